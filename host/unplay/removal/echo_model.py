"""The linear map from echo paths to the echo, with the convolution exact in the time domain."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from unplay.removal.stft import FFT_WORKERS

FloatArray = NDArray[np.floating]

LEAD_S = 0.020
"""How much earlier than the aligned reference the echo path may begin."""


class EchoModel:
    """The linear map from echo paths to the echo, and its adjoint.

    inputs: (n_inputs, n_samples), already advanced by the lead. gains: (n_inputs, n_samples) or None.
    """

    def __init__(self, inputs: FloatArray, n_taps: int, gains: FloatArray | None = None) -> None:
        self.n_inputs, self.n_samples = inputs.shape
        self.n_taps = n_taps
        self.gains = gains
        self.inputs = inputs
        self.n_fft = scipy.fft.next_fast_len(self.n_samples + n_taps, real=True)
        self.spectra = scipy.fft.rfft(inputs, self.n_fft, workers=FFT_WORKERS)

    def astype(self, dtype: type[np.floating]) -> EchoModel:
        """The same model in another precision."""
        gains = None if self.gains is None else self.gains.astype(dtype)
        return EchoModel(self.inputs.astype(dtype), self.n_taps, gains)

    def echoes(self, taps: FloatArray) -> FloatArray:
        """taps (n_inputs, n_taps) → each input's echo before its gain, (n_inputs, n_samples)."""
        spectra = self.spectra * scipy.fft.rfft(taps, self.n_fft, workers=FFT_WORKERS)
        return scipy.fft.irfft(spectra, self.n_fft, workers=FFT_WORKERS)[:, : self.n_samples]

    def gained_echoes(self, taps: FloatArray) -> FloatArray:
        """taps (n_inputs, n_taps) → each input's echo, (n_inputs, n_samples)."""
        echoes = self.echoes(taps)
        return echoes if self.gains is None else self.gains * echoes

    def echo(self, taps: FloatArray) -> FloatArray:
        """taps (n_inputs, n_taps) → echo (n_samples,)."""
        return np.sum(self.gained_echoes(taps), axis=0)

    def adjoint(self, signal: FloatArray) -> FloatArray:
        """signal (n_samples,) → correlations with the inputs, (n_inputs, n_taps)."""
        weighted = np.broadcast_to(signal, (self.n_inputs, self.n_samples))
        if self.gains is not None:
            weighted = self.gains * weighted
        spectra = scipy.fft.rfft(weighted, self.n_fft, workers=FFT_WORKERS)
        product = np.conj(self.spectra) * spectra
        return scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)[:, : self.n_taps]


def advanced(x: FloatArray, lead_samples: int, n_samples: int) -> FloatArray:
    """x (n,) moved earlier by lead_samples, zeros appended where it is too short: (n_samples,)."""
    out = np.zeros(n_samples, x.dtype)
    part = x[lead_samples : lead_samples + n_samples]
    out[: len(part)] = part
    return out


def lead_samples(sample_rate_hz: int) -> int:
    """LEAD_S in samples."""
    return round(LEAD_S * sample_rate_hz)
