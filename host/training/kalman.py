"""A causal linear stage: the partitioned-block frequency-domain Kalman filter.

Kuech, Mabande and Enzner, "State-space architecture of the partitioned-block-based acoustic echo controller"
(ICASSP 2014), with covariance matrices that are diagonal in partitions and bins. `unplay` itself uses better
ones offline and a cheaper one on devices; training and figures use it, since cancellers that run in real time
leave residuals of this kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

BLOCK = 256
"""Samples by which the filter steps, and taps of a partition."""
N_PARTITIONS = 8
"""128 ms at 16 kHz."""
RETENTION = 0.999
"""A: what the path keeps from one block to the next."""
SMOOTHING = 0.9
"""Of the near end's power, from one block to the next."""
FIRST_VARIANCE = 0.1
"""Of the path, where nothing is known yet; reference and mixture have level 1. It and RETENTION are about the
best of 24 choices on simulated scenes."""
TINY = 1e-8


def left_by_kalman(reference: FloatArray, mixture: FloatArray) -> FloatArray:
    """What the filter leaves of the mixtures, (n_clips, n_samples) each; the last samples, too few for a
    block, as they are."""
    n_clips, n_samples = mixture.shape
    shape = (n_clips, N_PARTITIONS, BLOCK + 1)
    path, played = np.zeros(shape, np.complex64), np.zeros(shape, np.complex64)
    variance = np.full(shape, FIRST_VARIANCE, np.float32)
    near_power = np.zeros((n_clips, BLOCK + 1))
    level, played_level = (np.std(x, axis=1, keepdims=True) + TINY for x in (mixture, reference))
    left = mixture / level
    padded = np.pad(reference / played_level, ((0, 0), (BLOCK, 0)))
    for start in range(0, n_samples - BLOCK + 1, BLOCK):
        played = np.roll(played, 1, axis=1)
        played[:, 0] = np.fft.rfft(padded[:, start : start + 2 * BLOCK])
        echo = np.fft.irfft(np.sum(path * played, axis=1))[:, BLOCK:]
        error = left[:, start : start + BLOCK] - echo
        left[:, start : start + BLOCK] = error
        spectrum = np.fft.rfft(np.pad(error, ((0, 0), (BLOCK, 0))))
        power = np.abs(spectrum) ** 2
        near_power = SMOOTHING * near_power + (1 - SMOOTHING) * power if start else power
        # half of a window of two blocks is error, hence the factors of one half
        heard = np.abs(played) ** 2
        step = variance / (0.5 * np.sum(variance * heard, axis=1) + near_power + TINY)[:, None]
        change = np.fft.irfft(step * played.conj() * spectrum[:, None])
        change[..., BLOCK:] = 0
        path = (RETENTION * (path + np.fft.rfft(change))).astype(np.complex64)
        variance = RETENTION**2 * (1 - 0.5 * step * heard) * variance
        variance += (1 - RETENTION**2) * np.abs(path) ** 2
    return level * left
