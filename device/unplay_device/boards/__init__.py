"""One file a board: its wires, and how it plays, records and stores."""

import os
import sys


def find(name):
    """The module of a board; of the one this runs on where the name is empty. Raises ImportError."""
    name = name or board_name(sys.platform, os.uname().machine)
    return getattr(__import__("unplay_device.boards." + name).boards, name)


def board_name(platform, machine):
    """esp32, esp32s3, pico, pico2 or pi, from what `sys.platform` and `os.uname().machine` say."""
    if platform == "linux":
        return "pi"
    if platform == "rp2":
        return "pico2" if "RP2350" in machine else "pico"
    if platform == "esp32":
        for other in ("C3", "C6", "S2", "H2", "C2", "C5"):
            if "ESP32" + other in machine or "ESP32-" + other in machine:
                raise ImportError("%s has one I2S: it cannot play and record at once" % machine)
        return "esp32s3" if "S3" in machine else "esp32"
    raise ImportError("no board file for %s (%s)" % (platform, machine))
