"""Raspberry Pi Pico: microphone and amplifier share the clock's wires; the card on SPI 1.

Setting audio = i2s: two ids of machine.I2S instead, for which the amplifier's clocks have wires of their own.
"""

import machine
import vfs

from unplay_device import pio
from unplay_device.i2s import I2SAudio

NAME = "pico"
SOUND = {"bclk": 16, "lrclk": 17, "din": 18, "dout": 19}
MICROPHONE = {"id": 0, "sck": 16, "ws": 17, "sd": 18}
AMPLIFIER = {"id": 1, "sck": 20, "ws": 21, "sd": 19}
CARD = {"id": 1, "sck": 14, "mosi": 15, "miso": 12, "cs": 13}
BUTTON = 22
LED = 25

CREDIT_BYTES = 8192
BAUDS = ()

CLOCK_HZ = 200000000
"""Rated by Raspberry Pi at a core voltage of 1.15 V; divides to 16 kHz without rest."""

CORE_VOLTAGE = 0x40064000
"""Register VREG, whose bits 4 to 7 are the voltage: 12 is 1.15 V (RP2040 data sheet, 2.10.6)."""

rings = None


def audio(settings):
    machine.mem32[CORE_VOLTAGE] = machine.mem32[CORE_VOLTAGE] & ~0xF0 | 12 << 4
    machine.freq(CLOCK_HZ)
    return sound(settings)


def sound(settings):
    """The better of both ways, unless the settings say otherwise. The rings stay: their place is rare."""
    global rings
    if settings["audio"] == "i2s":
        return I2SAudio(MICROPHONE, AMPLIFIER, settings)
    if rings is None:
        rings = pio.rings()
    return pio.PIOAudio(SOUND, rings, settings)


def mount_card(path):
    try:
        import sdcard  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise OSError("sdcard.py is missing; install it with: mpremote mip install sdcard")
    wires = [machine.Pin(CARD[name]) for name in ("sck", "mosi", "miso", "cs")]
    spi = machine.SPI(CARD["id"], sck=wires[0], mosi=wires[1], miso=wires[2])
    vfs.mount(sdcard.SDCard(spi, wires[3], 20000000), path)


def set_baud(rate):
    """USB has no rate."""
