"""The short-time Fourier transform of the removal stages."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

FFT_WORKERS = 2
"""Threads of one FFT call over many frames."""


class Stft:
    """Square-root-Hann STFT whose inverse is its adjoint (a Parseval tight frame).

    `forward` gives `S[..., q, p]`: frame q starts at sample `q·hop − (n_fft − hop)`, column p is the
    frequency `p/n_fft` of the sample rate. Energy is kept: the sum of |S|² over the two-sided spectrum
    is n_fft times the energy of the signal, and `inverse(forward(x)) = x`.

    n_fft: even frame length in samples. hop: n_fft/2, n_fft/4, … (a divisor of n_fft, at most n_fft/2).
    """

    def __init__(self, n_fft: int, hop: int | None = None) -> None:
        hop = n_fft // 2 if hop is None else hop
        if n_fft % 2 or hop < 1 or n_fft % hop or hop > n_fft // 2:
            raise ValueError(f"n_fft={n_fft}, hop={hop}: hop must divide the even n_fft and be at most half")
        self.n_fft = n_fft
        self.hop = hop
        # sqrt of the periodic Hann window; the squared windows of all hops add up to n_fft/(2·hop)
        window = np.sin(np.pi * np.arange(n_fft) / n_fft)
        self.window = window * np.sqrt(2 * hop / n_fft)

    @property
    def n_bins(self) -> int:
        return self.n_fft // 2 + 1

    def n_frames(self, n_samples: int) -> int:
        """Frames that cover n_samples so that every sample lies in n_fft/hop of them."""
        return -(-(n_samples + self.n_fft - self.hop) // self.hop)

    def forward(self, x: NDArray[np.floating]) -> NDArray[np.complexfloating]:
        """x (..., n_samples) → (..., n_frames, n_bins)."""
        n_samples = x.shape[-1]
        lead = self.n_fft - self.hop
        length = (self.n_frames(n_samples) - 1) * self.hop + self.n_fft
        padded = np.zeros((*x.shape[:-1], length), x.dtype)
        padded[..., lead : lead + n_samples] = x
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft, axis=-1)[..., :: self.hop, :]
        return scipy.fft.rfft(frames * self.window.astype(x.dtype), axis=-1, workers=FFT_WORKERS)

    def inverse(self, spectrum: NDArray[np.complexfloating], n_samples: int) -> NDArray[np.floating]:
        """spectrum (..., n_frames, n_bins) → (..., n_samples), overlap-added."""
        frames = scipy.fft.irfft(spectrum, self.n_fft, axis=-1, workers=FFT_WORKERS)
        frames *= self.window.astype(frames.dtype)
        n_frames = frames.shape[-2]
        n_overlap = self.n_fft // self.hop
        out = np.zeros((*frames.shape[:-2], n_frames + n_overlap - 1, self.hop), frames.dtype)
        for k in range(n_overlap):
            out[..., k : k + n_frames, :] += frames[..., k * self.hop : (k + 1) * self.hop]
        flat = out.reshape(*out.shape[:-2], -1)
        lead = self.n_fft - self.hop
        return flat[..., lead : lead + n_samples]
