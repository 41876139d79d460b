"""The echo path by iteratively reweighted least squares, with the convolution exact in the time domain.

The recording is modelled as

    d(n) = Σ_m g_m(n) · (h_m ∗ x_m)(n) + v(n),

inputs x_m (usually one: the aligned reference), gain tracks g_m (usually 1), echo paths h_m of n_taps
taps, near end v. The taps minimise

    Σ_{t,f} W(t,f) |STFT(d − Σ_m g_m·(h_m ∗ x_m))|² + Σ_{m,k} h_m(k)² / σ_m²(k),

where W is one over the power spectrogram of the near end, estimated from the residual and refined from
iteration to iteration (the talker is the noise of this estimation problem and gets its own spectrum as
weight), and σ² is the envelope of the taps' energy (a room's response decays).

The floor of the near end's spectrogram falls from iteration to iteration: with a high floor the problem
is well conditioned and its solution a good start for the next, so that the pauses of the talker, where
the echo path can be learnt nearly without disturbance, come to count step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter, uniform_filter1d

from unplay.removal.stft import FFT_WORKERS, Stft

FloatArray = NDArray[np.floating]

LEAD_S = 0.020
"""How much earlier than the aligned reference the echo path may begin."""

TAIL_S = 1.0
"""Length of the echo path after the lead."""

FRAME_S = 0.032
"""Frame of the weights' STFT (rounded to a power of two of samples)."""

SCHEDULE = ((1e-1, 0.0), (1e-2, 0.1), (1e-3, 0.3), (1e-4, 1.0), (1e-5, 1.0))
"""One pair an iteration: the floor of the near end's power spectrogram relative to its mean in the bin,
and the strength of the decay prior (1: as calibrated; less while the taps have not converged, since an
envelope that is too small would hold them down)."""

PSD_SMOOTHING = (11, 3)
"""Frames and bins over which the near end's power is averaged."""

ENVELOPE_SMOOTHING_S = 0.016
"""Span over which the taps' energy is averaged for the decay prior."""


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


@dataclass
class Prior:
    """Gaussian prior on the taps: precision 1/σ² of each, and of the change from one input to the next.

    precision (n_inputs, n_taps); change (n_taps,): only where the inputs follow each other in time.
    """

    precision: FloatArray
    change: FloatArray | None = None

    def astype(self, dtype: type[np.floating]) -> Prior:
        """The same prior in another precision of the numbers."""
        return Prior(self.precision.astype(dtype), None if self.change is None else self.change.astype(dtype))

    def gradient(self, taps: FloatArray) -> FloatArray:
        """Half the gradient of −log prior, (n_inputs, n_taps)."""
        gradient = self.precision * taps
        if self.change is not None:
            difference = self.change * np.diff(taps, axis=0)
            gradient[:-1] -= difference
            gradient[1:] += difference
        return gradient

    def typical(self) -> float:
        """Median of the diagonal."""
        change = 0.0 if self.change is None else 2 * float(np.median(self.change))
        return float(np.median(self.precision)) + change


@dataclass
class EchoPathFit:
    """taps (n_inputs, n_taps); lead_samples: lag of tap 0 is −lead; echo and residual (n_samples,)."""

    taps: FloatArray
    lead_samples: int
    echo: FloatArray
    residual: FloatArray


def near_end_psd(spectrogram: NDArray[np.complexfloating], floor: float) -> FloatArray:
    """Smoothed power of an STFT (n_frames, n_bins) with a floor relative to each bin's mean.

    The floor keeps 1e-4 of the overall mean for bins that are empty throughout.
    """
    power = np.abs(spectrogram) ** 2
    psd = uniform_filter(power, PSD_SMOOTHING, mode="nearest")
    return psd + floor * (psd.mean(axis=0) + 1e-4 * psd.mean()) + 1e-24


def advanced(x: FloatArray, lead_samples: int) -> FloatArray:
    """x (..., n_samples) moved earlier by lead_samples, zeros appended."""
    out = np.zeros_like(x)
    out[..., : x.shape[-1] - lead_samples] = x[..., lead_samples:]
    return out


def _circulant_preconditioner(model: EchoModel, weights: FloatArray, stft: Stft) -> tuple[FloatArray, int]:
    """Power spectrum of each input, weighted as the solver weighs it: (n_inputs, n_bins), FFT length.

    Long frames resolve the lines of tonal music; the weights are averaged over each of them.
    """
    n_fft = scipy.fft.next_fast_len(2 * model.n_taps, real=True)
    hop = n_fft // 2
    window = np.sin(np.pi * (np.arange(n_fft) + 0.5) / n_fft)
    start = np.arange(weights.shape[0]) * stft.hop - (stft.n_fft - stft.hop)
    fine_bins = np.arange(n_fft // 2 + 1) * (stft.n_fft / n_fft)
    signals = model.inputs if model.gains is None else model.inputs * model.gains
    total = np.zeros((model.n_inputs, n_fft // 2 + 1))
    for begin in range(-hop, model.n_samples, hop):
        overlaps = (start + stft.n_fft > max(begin, 0)) & (start < begin + n_fft)
        if not overlaps.any():
            continue
        frame = np.zeros((model.n_inputs, n_fft), signals.dtype)
        low, high = max(begin, 0), min(begin + n_fft, model.n_samples)
        frame[:, low - begin : high - begin] = signals[:, low:high]
        power = np.abs(scipy.fft.rfft(frame * window, workers=FFT_WORKERS)) ** 2
        total += power * np.interp(fine_bins, np.arange(stft.n_bins), weights[overlaps].mean(axis=0))
    return total, n_fft


def solve_step(
    model: EchoModel,
    stft: Stft,
    weights: FloatArray,
    residual: FloatArray,
    taps: FloatArray,
    prior: Prior,
    n_iterations: int,
    tolerance: float = 1e-3,
) -> FloatArray:
    """Preconditioned conjugate gradients from `taps`: the change of the taps (n_inputs, n_taps).

    The gradient at the start is taken in the precision of `residual` (float64); the iterations, which
    only have to reduce it by `tolerance`, run in float32 (iterative refinement).
    weights (n_frames, n_bins).
    """
    n_samples = model.n_samples

    def weighted(signal: FloatArray, w: FloatArray) -> FloatArray:
        return stft.inverse(w * stft.forward(signal), n_samples)

    gradient = model.adjoint(weighted(residual, weights)) - prior.gradient(taps)
    scale = float(np.max(np.abs(gradient)))
    if scale == 0.0:
        return np.zeros_like(taps)
    small = model.astype(np.float32)
    weights32 = weights.astype(np.float32)
    prior32 = prior.astype(np.float32)

    def curvature(h: FloatArray) -> FloatArray:
        return small.adjoint(weighted(small.echo(h), weights32)) + prior32.gradient(h)

    spectrum, n_fft = _circulant_preconditioner(small, weights32, stft)
    # the circulant approximation has the operator's mean curvature, measured with one random vector
    probe = np.random.default_rng(0).standard_normal(taps.shape).astype(np.float32)
    ratio = float(np.sum(probe * (curvature(probe) - prior32.gradient(probe)))) / (
        spectrum.mean() * probe.size + 1e-30
    )
    spectrum = spectrum * ratio
    spectrum += 1e-6 * spectrum.mean(axis=1, keepdims=True) + prior.typical()
    inverse = (1.0 / (spectrum + 1e-30)).astype(np.float32)

    def preconditioned(g: FloatArray) -> FloatArray:
        product = scipy.fft.rfft(g, n_fft, workers=FFT_WORKERS) * inverse
        return scipy.fft.irfft(product, n_fft, workers=FFT_WORKERS)[:, : model.n_taps]

    r = (gradient / scale).astype(np.float32)
    step = np.zeros_like(r)
    z = preconditioned(r)
    p = z.copy()
    rz = rz_start = float(np.sum(r * z, dtype=np.float64))
    for _ in range(n_iterations):
        q = curvature(p)
        alpha = rz / float(np.sum(p * q, dtype=np.float64))
        step += np.float32(alpha) * p
        r -= np.float32(alpha) * q
        z = preconditioned(r)
        rz_next = float(np.sum(r * z, dtype=np.float64))
        if not np.isfinite(rz_next) or rz_next < tolerance**2 * rz_start:
            break
        p = z + np.float32(rz_next / rz) * p
        rz = rz_next
    return step.astype(taps.dtype) * scale


def decay_precision(taps: FloatArray, sample_rate_hz: int) -> FloatArray:
    """1/σ² of the decay prior: σ² is the taps' smoothed energy, (n_inputs, n_taps); 0 while they are 0.

    A tail that has not been fitted yet (exact zeros) takes the envelope of the last fitted taps.
    """
    if not taps.any():
        return np.zeros_like(taps)
    span = max(1, round(ENVELOPE_SMOOTHING_S * sample_rate_hz))
    n_fitted = int(np.max(np.nonzero(taps.any(axis=0)))) + 1
    envelope = uniform_filter1d(taps[:, :n_fitted] ** 2, span, axis=-1, mode="nearest")
    envelope = np.pad(envelope, ((0, 0), (0, taps.shape[1] - n_fitted)), mode="edge")
    return 1.0 / (envelope + 1e-6 * envelope.max(axis=-1, keepdims=True) + 1e-30)


def near_end_weights(
    stft: Stft, residual: FloatArray, floor: float, trust: FloatArray | None = None
) -> FloatArray:
    """W(t, f) of the residual (n_samples,): one over the near end's power, so that Σ W|STFT|²/n_fft ≈ n.

    trust (n_frames,): a factor on each frame.
    """
    weights = (stft.n_fft / 2) / near_end_psd(stft.forward(residual), floor)
    return weights if trust is None else weights * trust[:, None]


def lead_samples(sample_rate_hz: int) -> int:
    """LEAD_S in samples."""
    return round(LEAD_S * sample_rate_hz)


def weights_stft(sample_rate_hz: int) -> Stft:
    """The STFT in which the near end is weighed."""
    return Stft(1 << round(np.log2(FRAME_S * sample_rate_hz)))


def fit_echo_path(
    inputs: FloatArray,
    recording: FloatArray,
    sample_rate_hz: int,
    *,
    trust: FloatArray | None = None,
    tail_s: float = TAIL_S,
    schedule: Sequence[tuple[float, float]] = SCHEDULE,
    n_iterations: int = 30,
    taps: FloatArray | None = None,
) -> EchoPathFit:
    """Fit the echo paths from the inputs to the recording.

    inputs (n_samples,) or (n_inputs, n_samples); recording (n_samples,); trust (n_frames,) in [0, 1]: a
    factor on the weights of each frame of `weights_stft` (0 where the recording is clipped or held out);
    taps: a start (n_inputs, n_taps), as an earlier fit returned it.
    """
    x = np.atleast_2d(np.asarray(inputs, np.float64))
    d = np.asarray(recording, np.float64)
    lead = lead_samples(sample_rate_hz)
    n_taps = lead + round(tail_s * sample_rate_hz)
    model = EchoModel(advanced(x, lead), n_taps)
    stft = weights_stft(sample_rate_hz)
    h = np.zeros((len(x), n_taps)) if taps is None else taps.copy()
    residual = d - model.echo(h) if h.any() else d
    for floor, strength in schedule:
        weights = near_end_weights(stft, residual, floor, trust)
        prior = Prior(strength * decay_precision(h, sample_rate_hz) + 1e-9)
        h = h + solve_step(model, stft, weights, residual, h, prior, n_iterations)
        residual = d - model.echo(h)
    return EchoPathFit(h, lead, d - residual, residual)
