"""Kalman filters over the last frames of each frequency bin: they follow what a fixed echo path cannot.

In a bin, with E, Ŷ, Q and X the frames of residual, echo estimate, what a loudspeaker's curve may have added
to it (`distortion`: an odd and an even part) and reference,

    E_t = uᵀ_t c_t + V_t,   u_t = (Ŷ_t … Ŷ_{t−N+1}, Q_t, X_t … X_{t−M+1}),   c_{t+1} = A c_t + noise,

the near end V being the observation's noise, of a power that the errors of the last frames tell, and
(1 − A²)·Φ the power of the state's noise, so that c never strays far beyond its prior power Φ. This is the
frequency-domain Kalman filter of Enzner and Vary (Signal Processing 86, 2006) with four changes: the state
is what the linear stage has missed, not the echo path, and what it cannot know, the loudspeaker's curve; the
taps of a bin share one covariance matrix; and two filters run side by side, since how fast a path moves isn't
known beforehand.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from unplay.removal.distortion import N_CURVES

ComplexArray = NDArray[np.complex64]

N_FILTERS = 2
"""A cautious one and a quick one."""
ECHO_TAPS, REFERENCE_TAPS = 2, 8
"""Frames; with a hop of 16 ms the direct sound and early reflections. Of each curve there is one."""
N_TAPS = ECHO_TAPS + N_CURVES + REFERENCE_TAPS

RETENTION = np.array([0.999, 0.998], np.float32)
"""A."""
ECHO_DEVIATION, CURVE_DEVIATION, REFERENCE_DEVIATION = (0.2, 0.5), (0.1, 0.15), (0.12, 0.25)
"""√Φ of the taps of either, where residual + echo estimate and reference have level 1; of the reference's the
first. With the retentions the best of some thirty choices on simulated scenes."""
DECAY = 0.85
"""By which √Φ falls from one of the reference's taps to the next, as a room's response does."""
SMOOTHING = np.float32(0.8)
"""Share of the near end's power that is kept from frame to frame."""
LEAST_POWER = np.float32(1e-5)


class FrameFilters:
    """The filters of `n_streams` streams with `n_bins` bins each."""

    def __init__(self, n_streams: int, n_bins: int) -> None:
        shape = (N_FILTERS, n_streams, n_bins)
        reference_decay = DECAY ** np.arange(REFERENCE_TAPS)[:, None]
        echo_taps, curve_taps = np.ones((ECHO_TAPS, 1)), np.ones((N_CURVES, 1))
        deviation = [
            echo_taps * ECHO_DEVIATION,
            curve_taps * CURVE_DEVIATION,
            reference_decay * REFERENCE_DEVIATION,
        ]
        prior = np.concatenate(deviation) ** 2
        self._taps = np.zeros((N_TAPS, *shape), np.complex64)
        self._covariance = np.zeros((N_TAPS, N_TAPS, *shape), np.complex64)
        self._near_end_power = np.zeros(shape, np.float32)
        self._echo = deque([np.zeros(shape[1:], np.complex64)] * ECHO_TAPS, ECHO_TAPS)
        self._reference = deque([np.zeros(shape[1:], np.complex64)] * REFERENCE_TAPS, REFERENCE_TAPS)
        self._retention = RETENTION[:, None, None]
        self._growth = ((1 - RETENTION**2) * prior)[:, :, None, None].astype(np.float32)
        self._add_to_diagonal(prior[:, :, None, None].astype(np.float32))

    def step(self, frames: ComplexArray) -> ComplexArray:
        """One frame of residual, echo estimate, reference and the curves' parts of the echo (`distortion`)
        (3 + N_CURVES, n_streams, n_bins) → what either filter leaves of the residual
        (N_FILTERS, n_streams, n_bins)."""
        residual, echo, reference, *curves = frames
        self._echo.appendleft(echo)
        self._reference.appendleft(reference)
        u = np.stack([*self._echo, *curves, *self._reference])[:, None]
        self._taps *= self._retention
        self._covariance *= self._retention**2
        self._add_to_diagonal(self._growth)
        error = residual - np.sum(u * self._taps, axis=0)
        spread = np.sum(self._covariance * u.conj(), axis=1)
        power = np.sum(u * spread, axis=0).real
        self._near_end_power += (1 - SMOOTHING) * (_beside(error) - self._near_end_power)
        gain = spread / (power + self._near_end_power + LEAST_POWER)
        self._covariance -= gain[:, None] * spread.conj()
        self._taps += gain * error
        return residual - np.sum(u * self._taps, axis=0)

    def _add_to_diagonal(self, power: NDArray[np.float32]) -> None:
        taps = np.arange(N_TAPS)
        self._covariance[taps, taps] += power


def _beside(error: ComplexArray) -> NDArray[np.float32]:
    """Power (..., n_bins) of a bin and its two neighbours, in the mean."""
    power = error.real**2 + error.imag**2
    sum_ = power.copy()
    sum_[..., 1:] += power[..., :-1]
    sum_[..., :-1] += power[..., 1:]
    return sum_ / 3
