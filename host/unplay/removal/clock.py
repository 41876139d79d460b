"""Stretches of playback and their clocks: which reference sample each recording sample carries.

Recording sample n carries reference sample p(n), and p advances by 1 + drift·10⁻⁶ a sample: positive
drift means that the player's clock is the faster one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unplay.removal.warp import warp

MAX_DRIFT_PPM = 500.0


def pace(drift_ppm: float, sigma_ppm: float = 0.0) -> str:
    """The player's clock in words: "3.000 ± 0.005 ppm slow". sigma_ppm: 0 where it isn't known."""
    doubt = f" ± {sigma_ppm:.3f}" if sigma_ppm else ""
    return f"{abs(drift_ppm):.3f}{doubt} ppm {'slow' if drift_ppm < 0 else 'fast'}"


@dataclass(frozen=True)
class Stretch:
    """A part of the recording in which the reference plays without a break.

    The reference sounds in recording samples [start, stop). `knots` (K,) are recording samples and
    `positions` (K,) the reference samples played there, K ≥ 2; in between the clock runs evenly.
    """

    start: int
    stop: int
    knots: NDArray[np.float64]
    positions: NDArray[np.float64]

    def position_at(self, n: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reference samples at recording samples n (any shape); the end pieces go on beyond the knots."""
        k = np.clip(np.searchsorted(self.knots, n, side="right") - 1, 0, len(self.knots) - 2)
        return self.positions[k] + (n - self.knots[k]) * self.rates[k]

    @property
    def rates(self) -> NDArray[np.float64]:
        """Reference samples a recording sample between one knot and the next (K − 1,)."""
        return np.diff(self.positions) / np.diff(self.knots)

    @property
    def drift_ppm(self) -> float:
        """Mean drift from the first knot to the last."""
        span = self.knots[-1] - self.knots[0]
        return float((self.positions[-1] - self.positions[0] - span) / span) * 1e6

    def later(self, lag: int) -> Stretch:
        """The same playback heard `lag` samples later."""
        return replace(self, start=self.start + lag, stop=self.stop + lag, knots=self.knots + lag)

    def within(self, lo: int, hi: int) -> Stretch:
        """What of it lies in recording samples [lo, hi)."""
        return replace(self, start=max(self.start, lo), stop=min(self.stop, hi))

    def within_reference(self, n_reference: int, n_recording: int) -> tuple[int, int]:
        """Recording samples [start, stop) in which the clock runs inside the reference."""
        begin = self.knots[0] - self.positions[0] / self.rates[0]
        end = self.knots[-1] + (n_reference - self.positions[-1]) / self.rates[-1]
        return max(0, math.ceil(begin)), min(n_recording, math.ceil(end))

    def scaled(self, ratio: float) -> Stretch:
        """The same stretch at `ratio` times the sample rate."""
        return Stretch(
            round(self.start * ratio), round(self.stop * ratio), self.knots * ratio, self.positions * ratio
        )


def on_recording_clock(
    reference: NDArray[np.floating], stretches: Iterable[Stretch], start: int, stop: int
) -> NDArray[np.floating]:
    """The reference (n,) as it plays in recording samples [start, stop), zero where it doesn't."""
    out = np.zeros(stop - start, np.result_type(reference.dtype, np.float32))
    for stretch in stretches:
        lo, hi = max(start, stretch.start), min(stop, stretch.stop)
        if lo < hi:
            # where one begins as another ends they ring into each other
            out[lo - start : hi - start] += warp(
                reference, stretch.position_at(np.arange(lo, hi, dtype=float))
            )
    return out
