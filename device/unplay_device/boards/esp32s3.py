"""ESP32-S3: as the ESP32, with the pins that a DevKitC-1 has free.

Not used: 0, 3, 45, 46 (strapping), 19 and 20 (USB), 26 to 37 (flash and PSRAM).
"""

from unplay_device.cards import mount_sdcard
from unplay_device.i2s import I2SAudio

NAME = "esp32s3"
MICROPHONE = {"id": 0, "sck": 5, "ws": 6, "sd": 7}
AMPLIFIER = {"id": 1, "sck": 15, "ws": 16, "sd": 17}
CARD = {"slot": 2, "sck": 12, "mosi": 11, "miso": 13, "cs": 10}
BUTTON = 4
LED = 21

CREDIT_BYTES = 8192
BAUDS = ()


def audio(settings):
    return I2SAudio(MICROPHONE, AMPLIFIER, settings)


def mount_card(path):
    mount_sdcard(CARD, path)
