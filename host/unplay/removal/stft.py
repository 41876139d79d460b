"""The short-time Fourier transform of the removal stages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from unplay.removal.threads import N_THREADS

FFT_WORKERS = N_THREADS
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
        _, spectrogram = next(self.forward_in_pieces(x, self.n_frames(x.shape[-1])))
        return spectrogram

    def forward_in_pieces(
        self, x: NDArray[np.floating], n_frames: int = 1024
    ) -> Iterator[tuple[slice, NDArray[np.complexfloating]]]:
        """`forward` of x (n_signals, n_samples), n_frames at a time: (frames, (n_signals, …, n_bins))."""
        n_samples = x.shape[-1]
        n_total = self.n_frames(n_samples)
        lead = self.n_fft - self.hop
        for first in range(0, n_total, n_frames):
            last = min(first + n_frames, n_total)
            begin, end = first * self.hop - lead, (last - 1) * self.hop + self.hop
            piece = np.zeros((*x.shape[:-1], end - begin), x.dtype)
            low, high = max(begin, 0), min(end, n_samples)
            piece[..., low - begin : high - begin] = x[..., low:high]
            frames = np.lib.stride_tricks.sliding_window_view(piece, self.n_fft, axis=-1)
            frames = frames[..., :: self.hop, :] * self.window.astype(x.dtype)
            yield slice(first, last), scipy.fft.rfft(frames, axis=-1, workers=FFT_WORKERS)

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
