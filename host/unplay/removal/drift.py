"""Drift between the player's clock and the recorder's: path and phase in turn.

In every STFT bin the echo is a short filter over past reference frames (a convolutive transfer function).
The least-squares filter, weighted by the inverse spectrum of what it leaves, models the echo; a clock that
is off by ε turns the phase of that model by jω·ε·t. One Gauss–Newton step of ε with the filters eliminated
(variable projection, Golub & Pereyra 1973), new filters, new weights, and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from unplay.removal.warp import warp

_N_FFT = 1024
_HOP = 256
_TAPS = 12
_LEAD = 1
_LOWEST_HZ = 100.0
_SMOOTHING = (3, 5)
_MAX_ITERATIONS = 12
# one sqrt-Hann frame every quarter of its length: each piece of evidence is counted about twice
_REDUNDANCY = 2.0


@dataclass(frozen=True)
class DriftEstimate:
    """Drift still left in an aligned reference, in ppm, with its standard deviation."""

    drift_ppm: float
    sigma_ppm: float


def estimate_drift(
    aligned: NDArray[np.floating], recording: NDArray[np.floating], sample_rate_hz: float
) -> DriftEstimate:
    """Drift left between an aligned reference (n,) and the recording (n,), both at `sample_rate_hz`.

    The delay may be off by tens of milliseconds (it belongs to the echo path); the drift by what keeps
    the signals within a quarter period of each other over the file.
    """
    n = np.arange(len(recording))
    centre = len(recording) / 2
    target = _spectrum(recording)
    frequency = 2 * np.pi * np.arange(target.shape[1]) / _N_FFT
    band = slice(int(_LOWEST_HZ * _N_FFT / sample_rate_hz), int(0.47 * _N_FFT))
    target, frequency = target[:, band], frequency[band]
    time = np.arange(len(target)) * _HOP + _HOP - _N_FFT / 2 - centre
    weight = 1 / (_smooth(np.abs(target) ** 2) + 1e-20)
    drift = warped_at = 0.0
    history = _history(_spectrum(aligned)[:, band])
    information = 1e-30
    for _ in range(_MAX_ITERATIONS):
        if abs(drift - warped_at) * len(recording) > 1.0:
            warped = warp(aligned, centre + (n - centre) * (1 + drift))
            history, warped_at = _history(_spectrum(warped)[:, band]), drift
        turn = np.exp(1j * (drift - warped_at) * frequency[:, None] * time)
        step, information, weight = _gauss_newton(history * turn[:, :, None], target, weight, frequency, time)
        drift += step
        if abs(step) * np.sqrt(information) < 0.01:
            break
    return DriftEstimate(drift * 1e6, 1e6 * np.sqrt(_REDUNDANCY / information))


def _gauss_newton(
    history: NDArray[np.complexfloating],
    target: NDArray[np.complexfloating],
    weight: NDArray[np.floating],
    frequency: NDArray[np.floating],
    time: NDArray[np.floating],
) -> tuple[float, float, NDArray[np.floating]]:
    """One step of ε, its information (1/variance), and the weights that the new residual asks for.

    history (n_bins, n_frames, taps), target and weight (n_frames, n_bins).
    """
    weighted = history.conj().transpose(0, 2, 1) * weight.T[:, None, :]
    gram = weighted @ history
    load = 1e-6 * np.trace(gram, axis1=1, axis2=2).real / _TAPS + 1e-12
    gram += np.eye(_TAPS) * load[:, None, None]
    path = np.linalg.solve(gram, weighted @ target.T[:, :, None])
    echo = (history @ path)[:, :, 0]
    residual = target.T - echo
    slope = 1j * frequency[:, None] * time * echo
    projected = slope - (history @ np.linalg.solve(gram, weighted @ slope[:, :, None]))[:, :, 0]
    power = _smooth(np.abs(residual.T) ** 2)
    new_weight = 1 / (power + 1e-4 * power.mean(axis=0) + 1e-20)
    information = float(np.sum(weight.T * np.abs(projected) ** 2)) + 1e-30
    step = float(np.sum(weight.T * (projected.conj() * residual).real)) / information
    return step, information, new_weight


def _spectrum(x: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    """Square-root-Hann STFT (n_frames, n_bins)."""
    window = np.sin(np.pi * np.arange(_N_FFT) / _N_FFT)
    padded = np.pad(x, (_N_FFT - _HOP, _N_FFT + -len(x) % _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    return np.fft.rfft(frames * window, axis=1)


def _history(spectrum: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """(n_frames, n_bins) → (n_bins, n_frames, taps): the frames from `_LEAD` ahead into the past."""
    n_frames, n_bins = spectrum.shape
    padded = np.zeros((n_bins, n_frames + _TAPS), spectrum.dtype)
    padded[:, _TAPS - 1 - _LEAD : _TAPS - 1 - _LEAD + n_frames] = spectrum.T
    return np.stack([padded[:, _TAPS - 1 - k : _TAPS - 1 - k + n_frames] for k in range(_TAPS)], axis=2)


def _smooth(power: NDArray[np.floating]) -> NDArray[np.floating]:
    return uniform_filter(power, _SMOOTHING, mode="nearest")
