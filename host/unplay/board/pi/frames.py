"""`unplay_device.frames` in numpy."""

from __future__ import annotations

import numpy as np

FRAME_BYTES = 8


def spread(x, n: int, frames: bytearray, volume_q15: int) -> None:
    """Samples times volume into both slots."""
    words = np.frombuffer(x, np.int16, n).astype(np.int32) * (2 * volume_q15)
    np.frombuffer(frames, np.int32).reshape(-1, 2)[:n] = words[:, None]


def pick(frames: bytearray, n: int, slot: int, shift: int, out) -> int:
    """Samples of one slot, shifted down; returns how many were clipped."""
    words = np.frombuffer(frames, np.int32).reshape(-1, 2)[:n, slot] >> shift
    fits = np.clip(words, -32768, 32767)
    np.frombuffer(out, np.int16)[:n] = fits
    return int(np.count_nonzero(fits != words))


def loudest(x, n: int) -> int:
    """Bits collected over the samples."""
    words = np.frombuffer(x, np.int16, n).astype(np.int32)
    return int(np.bitwise_or.reduce(words ^ (words >> 31)))
