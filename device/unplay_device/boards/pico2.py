"""Raspberry Pi Pico 2: wired as a Pico. Its 150 MHz divide to 16 kHz without rest."""

from unplay_device.boards.pico import (  # noqa
    AMPLIFIER, BAUDS, BUTTON, CARD, CREDIT_BYTES, LED, MICROPHONE, SOUND, mount_card, set_baud, sound,
)

NAME = "pico2"
audio = sound
