"""Firmware files: what they are for, before anything is connected.

ESP images: esptool's documentation, "Firmware Image Format". UF2: github.com/microsoft/uf2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from unplay.errors import BadInputError

RECOMMENDED = "1.29"
DOWNLOADS = "https://micropython.org/download/"
SOURCES = {
    "esp32": f"{DOWNLOADS}ESP32_GENERIC/",
    "esp32s3": f"{DOWNLOADS}ESP32_GENERIC_S3/",
    "pico": f"{DOWNLOADS}RPI_PICO/",
    "pico2": f"{DOWNLOADS}RPI_PICO2/",
}

ESP_MAGIC = 0xE9
ESP_HEADER = struct.Struct("<BBBBIB3xHBHH5x")
"""Magic, segments, flash mode, size and speed, entry, WP pin; chip id, least revision (old, new), most."""

ESP_CHIPS = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    23: "ESP32-C5",
}
ESP_BOARDS = {"ESP32": "esp32", "ESP32-S3": "esp32s3"}

UF2_BLOCK = struct.Struct("<IIIIIIII476sI")
UF2_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
UF2_HAS_FAMILY = 0x2000
UF2_ABSOLUTE = 0xE48BFF57
"""A block that RP2350 images begin with, for any of Raspberry Pi's chips."""

UF2_FAMILIES = {0xE48BFF56: "RP2040", 0xE48BFF59: "RP2350", 0xE48BFF5A: "RP2350 RISC-V"}
UF2_BOARDS = {"RP2040": "pico", "RP2350": "pico2"}

LEAST_BYTES = 100_000
"""MicroPython is larger; what is smaller is a bootloader or a part."""


@dataclass(frozen=True)
class Firmware:
    """A firmware file. chip: its maker's name. board: unplay's. least_revision: 100·major + minor."""

    path: Path
    data: bytes
    kind: str
    chip: str
    board: str
    least_revision: int = 0


def read_firmware(path: Path) -> Firmware:
    """A firmware file, checked as far as it can be without a board. Raises BadInputError."""
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise BadInputError(f"{path} is a folder: name the firmware file. {where_from()}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}). {where_from()}") from error
    if data[:4] == struct.pack("<I", UF2_MAGIC[0]):
        return _uf2(path, data)
    if data[:1] == bytes([ESP_MAGIC]) and len(data) > ESP_HEADER.size:
        return _esp(path, data)
    raise BadInputError(
        f"{path} is no firmware: it begins neither as an ESP32 image (.bin) nor as UF2. {where_from()}"
    )


def where_from(board: str = "") -> str:
    """A sentence: where the firmware is to be had."""
    if board:
        return f"The stock MicroPython {RECOMMENDED} is at {SOURCES[board]}"
    names = ", ".join(place.rstrip("/").rpartition("/")[2] for place in SOURCES.values())
    return f"The stock MicroPython {RECOMMENDED} is at {DOWNLOADS} ({names})"


def _esp(path: Path, data: bytes) -> Firmware:
    header = ESP_HEADER.unpack_from(data)
    number, old_revision, least, most = header[-4:]
    chip = ESP_CHIPS.get(number, f"chip number {number}")
    if chip not in ESP_BOARDS:
        raise BadInputError(
            f"{path} is for {chip}, which cannot play and record at once; unplay runs on ESP32 and ESP32-S3. "
            + where_from()
        )
    board = ESP_BOARDS[chip]
    if len(data) < LEAST_BYTES:
        raise BadInputError(
            f"{path} has {len(data)} bytes, too few for MicroPython: is it whole? {where_from(board)}"
        )
    return Firmware(path, data, "esp", chip, board, least if most else 100 * old_revision)


def _uf2(path: Path, data: bytes) -> Firmware:
    families = _families(path, data)
    chips = {UF2_FAMILIES.get(family, f"family {family:#010x}") for family in families}
    chip = " and ".join(sorted(chips))
    if chip not in UF2_BOARDS:
        raise BadInputError(f"{path} is for {chip}; unplay runs on RP2040 and RP2350 (ARM). {where_from()}")
    return Firmware(path, data, "uf2", chip, UF2_BOARDS[chip])


def _families(path: Path, data: bytes) -> set[int]:
    """Of all blocks but absolute ones. Raises BadInputError where blocks are damaged or missing."""
    damaged = f"{path} is damaged or not whole (%s); download it again"
    if len(data) % UF2_BLOCK.size:
        raise BadInputError(damaged % f"{len(data)} bytes are no whole number of {UF2_BLOCK.size}")
    families: set[int] = set()
    seen: dict[int, tuple[int, int]] = {}  # of each family: blocks announced, blocks found
    for at in range(0, len(data), UF2_BLOCK.size):
        first, second, flags, _, _, number, total, family, _, last = UF2_BLOCK.unpack_from(data, at)
        if (first, second, last) != UF2_MAGIC or not flags & UF2_HAS_FAMILY:
            raise BadInputError(damaged % f"block {at // UF2_BLOCK.size}")
        if family == UF2_ABSOLUTE:
            continue
        found = seen.get(family, (total, 0))[1]
        if number != found:
            raise BadInputError(damaged % f"block {found} is missing")
        seen[family] = (total, found + 1)
        families.add(family)
    if not families or any(total != found for total, found in seen.values()):
        raise BadInputError(damaged % "blocks are missing")
    return families
