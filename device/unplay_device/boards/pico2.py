"""Raspberry Pi Pico 2: wired as a Pico. Its 150 MHz divide to 16 kHz without rest."""

from unplay_device.boards import pico
from unplay_device.boards.pico import mount_card, set_baud, sound

NAME = "pico2"
SOUND, MICROPHONE, AMPLIFIER, CARD = pico.SOUND, pico.MICROPHONE, pico.AMPLIFIER, pico.CARD
BUTTON, LED = pico.BUTTON, pico.LED
CREDIT_BYTES, BAUDS = pico.CREDIT_BYTES, pico.BAUDS

audio = sound
__all__ = ["audio", "mount_card", "set_baud"]
