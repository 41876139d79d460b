"""What bad wires and parts do to the words of a microphone; for scenes with [fault]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 2.0**31
RATE_HZ = 16_000
HUM_HARMONICS = (1.0, 0.5, 0.3)

Frames = NDArray[np.int32]


@dataclass(frozen=True)
class FaultSetup:
    """microphone: "", or "silent" (no word comes), "high" (its line is stuck at 3V3), "late" (a bit late).

    slot: which one it answers in. dc: added, of full scale. hum_db: of mains hum of hum_hz, of full scale;
    absent: none. amplifier: "", or "silent". rate: of the I2S clock, of what it should be. player_ppm: by how
    much the player's clock is faster than the recorder's. feedback: what the microphone hears comes out of
    the loudspeaker again and reaches the microphone so many times as loud, by the direct sound.
    """

    microphone: str = ""
    slot: str = "left"
    dc: float = 0.0
    hum_db: float | None = None
    hum_hz: int = 50
    amplifier: str = ""
    rate: float = 1.0
    player_ppm: float = 0.0
    feedback: float = 0.0


def make_wiring(fault: FaultSetup) -> Callable[[Frames, int], Frames]:
    """A function of frames (n, 2) and the first one's number, that gives what arrives at the board."""

    def arrive(frames: Frames, first: int) -> Frames:
        words = frames[:, 0].astype(float) + fault.dc * FULL_SCALE + _hum(fault, first, len(frames))
        words = np.clip(words, -FULL_SCALE, FULL_SCALE - 1).astype(np.int32)
        if fault.microphone == "silent":
            words[:] = 0
        elif fault.microphone == "high":
            words[:] = -1
        elif fault.microphone == "late":
            words = (words.view(np.uint32) >> np.uint32(1)).view(np.int32)
        arrived = np.zeros_like(frames)
        arrived[:, 1 if fault.slot == "right" else 0] = words
        return arrived

    return arrive


def _hum(fault: FaultSetup, first: int, n: int) -> NDArray[np.float64]:
    if fault.hum_db is None:
        return np.zeros(n)
    t = np.arange(first, first + n) / RATE_HZ
    wave = sum(a * np.sin(2 * np.pi * k * fault.hum_hz * t) for k, a in enumerate(HUM_HARMONICS, 1))
    return np.asarray(wave) * (10 ** (fault.hum_db / 20) * FULL_SCALE)
