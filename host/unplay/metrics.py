"""Scores. All signals are float arrays of shape (n_samples,) at one sample rate; results are in dB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-30


def si_sdr_db(true_near_end: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, eq. 5; means are not removed)."""
    scale = np.dot(estimate, true_near_end) / (np.dot(true_near_end, true_near_end) + _TINY)
    target = scale * true_near_end
    distortion = estimate - target
    return float(10 * np.log10((np.dot(target, target) + _TINY) / (np.dot(distortion, distortion) + _TINY)))


def energy_ratio_db(numerator: NDArray[np.floating], denominator: NDArray[np.floating]) -> float:
    """10·log10 of the ratio of two signals' energies."""
    return float(
        10 * np.log10((np.dot(numerator, numerator) + _TINY) / (np.dot(denominator, denominator) + _TINY))
    )


def echo_reduction_db(recording: NDArray[np.floating], residual: NDArray[np.floating]) -> float:
    """ERLE: recording over residual energy. Means something only where nobody talks."""
    return energy_ratio_db(recording, residual)
