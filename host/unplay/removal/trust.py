"""Which samples and frames of a recording say something of the echo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

CLIP_LEVEL = 0.999
"""Of the recording's peak."""


def clipped_samples(recording: FloatArray) -> NDArray[np.bool_]:
    """Samples at the recording's peak whose neighbour is there, too: (n_samples,)."""
    magnitude = np.abs(recording)
    at_limit = magnitude >= CLIP_LEVEL * max(float(np.max(magnitude, initial=0.0)), 1e-30)
    return at_limit & (np.roll(at_limit, 1) | np.roll(at_limit, -1))


def trusted_frames(damaged: NDArray[np.bool_], stft: Stft) -> NDArray[np.float64]:
    """1.0 for the frames without damaged samples (n_samples,), else 0.0: (n_frames,).

    A frame that reaches beyond the recording holds a break in its middle, of talker and echo alike. Seen as
    a near end it would be wideband and the same in all bins: a fit that made the two breaks cancel would
    seem to explain hundreds of bins, and would bend the loud low notes for it.
    """
    n_samples = len(damaged)
    counts = np.concatenate([[0], np.cumsum(damaged)])
    begin = np.arange(stft.n_frames(n_samples)) * stft.hop - (stft.n_fft - stft.hop)
    end = begin + stft.n_fft
    whole = counts[np.clip(end, 0, n_samples)] == counts[np.clip(begin, 0, n_samples)]
    return ((begin >= 0) & (end <= n_samples) & whole).astype(float)
