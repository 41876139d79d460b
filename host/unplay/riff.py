"""The sizes in a WAV header, which recorders that lose power or fill a disk leave wrong."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

UNKNOWN_BYTES = 0x7FFF_F000
"""Sizes from here on are what programs write that cannot know the size yet, or ever (pipes)."""


@dataclass(frozen=True)
class DataChunk:
    """The samples of a WAV file: where their size is written, what it says, what there is (bytes)."""

    size_offset: int
    promised_bytes: int
    present_bytes: int


def find_data_chunk(path: Path) -> DataChunk | None:
    """The data chunk of a RIFF/WAVE file; None for any other file.

    What follows the promised end counts as samples unless it reads as further chunks, as a tag, or as
    padding with zeros.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
            return None
        for name, start, size in _chunks(content, 12):
            if name == b"data":
                n_present = len(content) - start
                if 0 < size < n_present and _is_trailer(content, start + size):
                    n_present = size
                return DataChunk(start - 4, size if size < UNKNOWN_BYTES else n_present, n_present)
    return None


class RepairedFile(io.FileIO):
    """A WAV file that reads as if the sizes in its header were right."""

    def __init__(self, path: Path, chunk: DataChunk) -> None:
        super().__init__(path)
        self._patches = {
            4: struct.pack("<I", path.stat().st_size - 8),
            chunk.size_offset: struct.pack("<I", chunk.present_bytes),
        }

    def readinto(self, buffer: Buffer) -> int:
        start = self.tell()
        n_read = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for offset, patch in self._patches.items():
            for k, value in enumerate(patch):
                if 0 <= offset + k - start < n_read:
                    view[offset + k - start] = value
        return n_read


def _chunks(content: mmap.mmap, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the contents, size; a chunk begins at an even offset."""
    while start + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[start : start + 8])
        yield name, start + 8, size
        start += 8 + size + size % 2


def _is_trailer(content: mmap.mmap, end: int) -> bool:
    rest = content[end : end + 8]
    if len(rest) < 8 or not any(rest) or rest[:3] in (b"ID3", b"TAG"):
        return True
    return any(name.isascii() and name.decode().isprintable() for name in (rest[:4], rest[1:5]))
