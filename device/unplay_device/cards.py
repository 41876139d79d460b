"""Cards of the ESP32 family, whose driver is part of the firmware."""

import machine
import vfs

CARD_HZ = 20000000
"""Of the SPI clock: what a card on short wires takes."""


def mount_sdcard(wires, path):
    """Mount the card on these pins (slot, sck, mosi, miso, cs). Raises OSError where there is none."""
    pins = {name: machine.Pin(wires[name]) for name in ("sck", "mosi", "miso", "cs")}
    vfs.mount(machine.SDCard(slot=wires["slot"], freq=CARD_HZ, **pins), path)
