"""ESP32: two ids of machine.I2S on one clock; the card on SPI slot 2.

Free of strapping pins (0, 2, 5 at boot only, 12, 15); 34 to 39 are inputs without pull-up.
"""

import machine

from unplay_device.cards import mount_sdcard
from unplay_device.i2s import I2SAudio

NAME = "esp32"
MICROPHONE = {"id": 0, "sck": 32, "ws": 25, "sd": 33}
AMPLIFIER = {"id": 1, "sck": 26, "ws": 27, "sd": 22}
CARD = {"slot": 2, "sck": 18, "mosi": 23, "miso": 19, "cs": 5}
BUTTON = 4
LED = 21

CREDIT_BYTES = 240
BAUDS = (115200, 460800, 921600)


def audio(settings):
    return I2SAudio(MICROPHONE, AMPLIFIER, settings)


def mount_card(path):
    mount_sdcard(CARD, path)


def set_baud(rate):
    """Of the USB bridge's UART, through which the prompt and the link go."""
    machine.UART(0, baudrate=rate)
