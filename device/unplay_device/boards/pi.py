"""Raspberry Pi: one card on the I2S pins plays and records; storage is the folder it runs in.

`unplay device serve` runs the application under CPython and gives it a `machine` whose I2S is ALSA. Which
pins the card uses is a matter of its overlay; these are those of `dtoverlay=googlevoicehat-soundcard`.
"""

from unplay_device.i2s import I2SAudio

NAME = "pi"
MICROPHONE = {"id": 0, "sck": 18, "ws": 19, "sd": 20}
AMPLIFIER = {"id": 1, "sck": 18, "ws": 19, "sd": 21}
CARD = None
BUTTON = 17
LED = 27

CREDIT_BYTES = 8192
BAUDS = ()


def audio(settings):
    return I2SAudio(MICROPHONE, AMPLIFIER, settings)
