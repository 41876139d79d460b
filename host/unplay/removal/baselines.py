"""The classical ways to take a known sound out of a recording, each under its own name.

All take `x` (n_samples,), the reference on the recording's clock (its direct sound within `MAX_LAG_S` of
where it is heard), `d` (n_samples,), the recording, and the sample rate. All return the near end
(n_samples,) in the type of `d`, leave their inputs alone, and return the recording unchanged when the
reference is silent. None follows a path that changes within the signal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

MAX_LAG_S = 0.1
"""How far on either side of the alignment `subtract` and `match` look for the echo."""

SPECTRAL_FRAME_S = 0.25
"""Frame of `spectral`, rounded up to a power of two: long enough to hold most of a room's response."""
OVERSUBTRACTION = 2.0
"""Multiple of the echo's magnitude that `spectral` subtracts (alpha in Berouti et al. 1979)."""
SPECTRAL_FLOOR = 0.02
"""What `spectral` leaves at least, as a part of the echo's magnitude (beta in Berouti et al. 1979)."""

FIR_TAIL_S = 0.256
"""Length of the filter of `fir`: 4096 taps at 16 kHz."""
FIR_LEAD_S = 0.02
"""Part of it before lag 0: a direct sound may arrive before the strongest reflection."""
FIR_REGULARISATION = 1e-7
"""Added to the diagonal of the normal equations, as a part of it."""

_TINY = 1e-30
_SINC_HALF_SAMPLES = 48
_KAISER_BETA = 12.0


def subtract(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Delay by whole samples, found by cross-correlation; add the inverted reference.

    The level at the microphone is not the level in the file, so that plain inversion makes matters worse
    as a rule; the reference is scaled by its least-squares gain, whose sign also undoes a reversed polarity.
    """
    n_lags = _lag_count(MAX_LAG_S, x, sample_rate_hz)
    correlation = cross_correlation(x, d, -n_lags, n_lags)
    best = int(np.argmax(np.abs(correlation)))
    echo = _delayed(x, best - n_lags)
    return _without(d, echo * (correlation[best] / (np.dot(echo, echo) + _TINY)))


def match(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Fractional delay, phase and gain from the maximum of the analytic cross-correlation.

    With x₊ = x + j·H{x} the analytic reference and c(τ) = Σ d(t)·x₊*(t − τ), the residual
    ‖d − Re(A·x₊(t − τ))‖² is least where |c(τ)| is greatest, with A = c(τ)/‖x‖². The maximum is refined
    to 1/64 sample; the delay is applied by a windowed sinc, the phase by turning x₊.
    """
    n_lags = _lag_count(MAX_LAG_S, x, sample_rate_hz)
    guard = _SINC_HALF_SAMPLES + 1
    first, last = -n_lags - guard, n_lags + guard
    in_phase = cross_correlation(x, d, first, last)
    quadrature = cross_correlation(_turned(x, -np.pi / 2), d, first, last)
    correlation = in_phase - 1j * quadrature
    best = guard + int(np.argmax(np.abs(correlation[guard:-guard])))
    fraction, maximum = _refined_maximum(correlation[best - guard : best + guard + 1])
    turned = _delayed(_turned(x, float(np.angle(maximum))), first + best)
    echo = np.convolve(turned, _sinc_kernel(fraction))[_SINC_HALF_SAMPLES:][: len(turned)]
    return _without(d, echo * (np.abs(maximum) / (np.dot(echo, echo) + _TINY)))


def spectral(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
    """Magnitude subtraction in the STFT with the recording's phase (Boll 1979).

    The echo's magnitude is the reference's times one gain a frequency: the median of |D|/|X| over the
    louder half of the reference's frames, which a talker who pauses moves little. Oversubtraction and
    floor after Berouti, Schwartz and Makhoul 1979, here on magnitudes:
    |V| = max(|D| − α|Y|, min(β|Y|, |D|)).
    """
    frame = _power_of_two(round(SPECTRAL_FRAME_S * sample_rate_hz))
    stft = Stft(frame, frame // 4)
    recording = stft.forward(np.asarray(d, np.float64))
    played = np.abs(stft.forward(np.asarray(x, np.float64)))
    heard = np.abs(recording)
    echo = magnitude_gain(played, heard) * played
    kept = np.maximum(heard - OVERSUBTRACTION * echo, np.minimum(SPECTRAL_FLOOR * echo, heard))
    removed_part = 1 - kept / np.maximum(heard, _TINY)
    removed_part[echo == 0] = 0
    return _without(d, stft.inverse(recording * removed_part, len(d)))


def fir(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
    """One least-squares FIR filter over the whole signal (the Wiener solution of the channel estimate)."""
    return _without(d, through(x, fir_response(x, d, sample_rate_hz), sample_rate_hz))


def fir_response(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """The filter (n_taps,) of `fir`, the first `FIR_LEAD_S` of its `FIR_TAIL_S` before lag 0.

    Solves the Toeplitz normal equations R h = r by Levinson's recursion. The signal counts as zero outside
    (the autocorrelation method).
    """
    n_taps = round(FIR_TAIL_S * sample_rate_hz)
    n_lead = round(FIR_LEAD_S * sample_rate_hz)
    autocorrelation = cross_correlation(x, x, 0, n_taps - 1)
    autocorrelation[0] *= 1 + FIR_REGULARISATION
    autocorrelation[0] += _TINY
    correlation = cross_correlation(x, d, -n_lead, n_taps - 1 - n_lead)
    return scipy.linalg.solve_toeplitz(autocorrelation, correlation)


def through(x: FloatArray, response: FloatArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """x through a filter of `fir_response`, as long as x (n_samples,)."""
    # imported here, since it takes longer than to clean a short recording by another method
    from scipy.signal import oaconvolve

    n_lead = round(FIR_LEAD_S * sample_rate_hz)
    echo = oaconvolve(np.asarray(x, np.float64), response)
    return np.concatenate([echo[n_lead:], np.zeros(n_lead)])[: len(x)]


METHODS: dict[str, Callable[[FloatArray, FloatArray, int], FloatArray]] = {
    "subtract": subtract,
    "spectral": spectral,
    "match": match,
    "fir": fir,
}
"""The methods by the name that the command line knows them under."""


def cross_correlation(x: FloatArray, d: FloatArray, first_lag: int, last_lag: int) -> NDArray[np.float64]:
    """Σ_n x(n)·d(n + lag), signals zero outside, for every lag from first_lag to last_lag inclusive.

    Summed over blocks a few times as long as the lags, so that memory does not grow with the signal.
    """
    n_lags = last_lag - first_lag + 1
    n_block = max(4 * n_lags, 1 << 14)
    n_fft = _power_of_two(n_block + n_lags)
    spectrum = np.zeros(n_fft // 2 + 1, np.complex128)
    for start in range(0, len(x), n_block):
        block = np.asarray(x[start : start + n_block], np.float64)
        heard = _slice_or_zeros(d, start + first_lag, n_block + n_lags - 1)
        spectrum += np.conj(np.fft.rfft(block, n_fft)) * np.fft.rfft(heard, n_fft)
    return np.fft.irfft(spectrum, n_fft)[:n_lags]


def _slice_or_zeros(d: FloatArray, start: int, length: int) -> NDArray[np.float64]:
    out = np.zeros(length)
    lo, hi = max(start, 0), min(start + length, len(d))
    if lo < hi:
        out[lo - start : hi - start] = d[lo:hi]
    return out


def _lag_count(seconds: float, x: FloatArray, sample_rate_hz: int) -> int:
    return min(round(seconds * sample_rate_hz), max(len(x) - 1, 0))


def _delayed(x: FloatArray, delay_samples: int) -> NDArray[np.float64]:
    return _slice_or_zeros(x, -delay_samples, len(x))


def _turned(x: FloatArray, phase: float) -> NDArray[np.float64]:
    """Re(e^{jφ}·x₊): every frequency of x turned by the same phase."""
    n_fft = _power_of_two(2 * len(x))
    spectrum = np.fft.rfft(np.asarray(x, np.float64), n_fft)
    return np.fft.irfft(spectrum * np.exp(1j * phase), n_fft)[: len(x)]


def _sinc_kernel(fraction: float) -> NDArray[np.float64]:
    """Taps that delay by `fraction` of a sample; as a dot product they read a sequence that much later."""
    t = np.arange(-_SINC_HALF_SAMPLES, _SINC_HALF_SAMPLES + 1) - fraction
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0, 1 - (t / (_SINC_HALF_SAMPLES + 1)) ** 2)))
    return np.sinc(t) * window / np.i0(_KAISER_BETA)


def _refined_maximum(correlation: NDArray[np.complex128]) -> tuple[float, complex]:
    """Position, in samples from the middle, and value of the greatest |correlation| within ± 1 sample."""
    kernel_length = 2 * _SINC_HALF_SAMPLES + 1
    steps = np.arange(-64, 65) / 64
    values = []
    for step in steps:
        whole = int(np.floor(step))
        around = correlation[1 + whole : 1 + whole + kernel_length]
        values.append(np.dot(around, _sinc_kernel(step - whole)))
    best = int(np.argmax(np.abs(values)))
    return float(steps[best]), complex(values[best])


def magnitude_gain(played: FloatArray, heard: FloatArray) -> FloatArray:
    """The median over the louder frames of heard/played, each (n_frames, n_bins): (n_bins,)."""
    loud = (played >= np.median(played, axis=0)) & (played > 0)
    ratio = np.full_like(played, np.nan)
    np.divide(heard, played, out=ratio, where=loud)
    gain = np.zeros(played.shape[1])
    audible = loud.any(axis=0)
    gain[audible] = np.nanmedian(ratio[:, audible], axis=0)
    return gain


def _power_of_two(length: int) -> int:
    """The least power of two that is not less than length ≥ 1."""
    return 1 << (length - 1).bit_length()


def _without(d: FloatArray, echo: FloatArray) -> FloatArray:
    return (d - echo).astype(d.dtype)
