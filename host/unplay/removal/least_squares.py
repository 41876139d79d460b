"""One weighted least-squares problem of the echo path, by preconditioned conjugate gradients.

Taps are regularised in cells of lag and frequency, those of the STFT of the taps themselves: a prior says
how much power a tap has in each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from unplay.removal.echo_model import EchoModel
from unplay.removal.stft import FFT_WORKERS, Stft

FloatArray = NDArray[np.floating]

TOLERANCE = 1e-2
"""The iterations end when they have reduced the preconditioned gradient to this."""


@dataclass(frozen=True)
class Prior:
    """Gaussian prior on the taps: their variance, and that of the change from one input to the next.

    stft: of the taps, (n_inputs, n_taps) → cells (n_inputs, n_lags, n_bins). power: variance of a tap in
    each cell, of that shape or with one input for all. change: the same of the difference between
    neighbours; only where the inputs follow each other in time.
    """

    stft: Stft
    power: FloatArray
    change: FloatArray | None = None

    def astype(self, dtype: type[np.floating]) -> Prior:
        """The same prior in another precision of the numbers."""
        change = None if self.change is None else self.change.astype(dtype)
        return Prior(self.stft, self.power.astype(dtype), change)

    def gradient(self, taps: FloatArray) -> FloatArray:
        """The gradient of −log prior, (n_inputs, n_taps)."""
        cells = self.stft.forward(taps)
        gradient = cells / self.power
        if self.change is not None:
            difference = np.diff(cells, axis=0) / self.change
            gradient[:-1] -= difference
            gradient[1:] += difference
        return self.stft.inverse(gradient, taps.shape[-1])

    def precision(self) -> FloatArray:
        """The diagonal, in cells."""
        precision = 1.0 / self.power
        return precision if self.change is None else precision + 2.0 / self.change


def posterior_variance(curvature: FloatArray, power: FloatArray, change: FloatArray | None) -> FloatArray:
    """Variance that a tap keeps where the data have this curvature, under a Prior's power and change.

    In a long chain of inputs that change from one to the next it is 1/√(a² + 4a/change), a = curvature +
    1/power: the diagonal of the inverse of the tridiagonal matrix with a + 2/change on its diagonal and
    −1/change beside it.
    """
    a = curvature + 1.0 / power
    return 1.0 / a if change is None else 1.0 / np.sqrt(a**2 + 4 * a / change)


class Problem:
    """Minimise Σ W|STFT(d − echo(h))|² − 2·log prior(h) over the taps h, near some h at a time.

    weights (n_frames, n_bins): W, one over the near end's power. `fine` (n_inputs, n_fine_bins) is the
    curvature of the first term at each frequency: the inputs' weighted power.
    """

    def __init__(self, model: EchoModel, stft: Stft, weights: FloatArray, prior: Prior) -> None:
        self.model, self.stft, self.weights, self.prior = model, stft, weights, prior
        self._model32 = model.astype(np.float32)
        self._weights32 = weights.astype(np.float32)
        self._prior32 = prior.astype(np.float32)
        self.fine = self._fine_curvature()

    @property
    def n_fft(self) -> int:
        """Length of the transform behind `fine`: a multiple of the prior's frames, twice the taps or more."""
        frame = self.prior.stft.n_fft
        return frame * scipy.fft.next_fast_len(-(-2 * self.model.n_taps // frame), real=True)

    def curvature_by_bin(self) -> FloatArray:
        """`fine` grouped by the bins of the taps' STFT: (n_inputs, n_bins, fine bins in each)."""
        frame = self.prior.stft.n_fft
        width = self.n_fft // frame
        padded = np.pad(self.fine, ((0, 0), (width // 2, width - width // 2)), mode="reflect")
        n_bins = frame // 2 + 1
        return padded[:, : n_bins * width].reshape(len(self.fine), n_bins, width)

    def step(self, residual: FloatArray, taps: FloatArray, n_iterations: int) -> FloatArray:
        """The change of `taps` (n_inputs, n_taps), whose residual is (n_samples,), towards the minimum.

        The gradient at the start is taken in the precision of `residual` (float64); the iterations, which
        only have to reduce it, run in float32 (iterative refinement).
        """
        weighted = self.stft.inverse(self.weights * self.stft.forward(residual), len(residual))
        gradient = self.model.adjoint(weighted) - self.prior.gradient(taps)
        scale = float(np.max(np.abs(gradient)))
        if scale == 0.0:
            return np.zeros_like(taps)
        preconditioned = self._preconditioner()
        r = (gradient / scale).astype(np.float32)
        step = np.zeros_like(r)
        z = preconditioned(r)
        p = z.copy()
        rz = rz_start = _inner(r, z)
        for _ in range(n_iterations):
            q = self._hessian(p)
            alpha = np.float32(rz / _inner(p, q))
            step += alpha * p
            r -= alpha * q
            z = preconditioned(r)
            rz_next = _inner(r, z)
            if not np.isfinite(rz_next) or rz_next < TOLERANCE**2 * rz_start:
                break
            p = z + np.float32(rz_next / rz) * p
            rz = rz_next
        return step.astype(taps.dtype) * scale

    def _data_hessian(self, taps: FloatArray) -> FloatArray:
        echo = self._model32.echo(taps)
        weighted = self.stft.inverse(self._weights32 * self.stft.forward(echo), len(echo))
        return self._model32.adjoint(weighted)

    def _hessian(self, taps: FloatArray) -> FloatArray:
        return self._data_hessian(taps) + self._prior32.gradient(taps)

    def _fine_curvature(self) -> FloatArray:
        """Long frames resolve the lines of tonal music; the weights are averaged over each of them."""
        n_fft, model, stft = self.n_fft, self._model32, self.stft
        hop = n_fft // 2
        window = np.sin(np.pi * (np.arange(n_fft) + 0.5) / n_fft).astype(np.float32)
        start = np.arange(len(self.weights)) * stft.hop - (stft.n_fft - stft.hop)
        fine_bins = np.arange(n_fft // 2 + 1) * (stft.n_fft / n_fft)
        signals = model.inputs if model.gains is None else model.inputs * model.gains
        total = np.zeros((model.n_inputs, n_fft // 2 + 1))
        for begin in range(-hop, model.n_samples, hop):
            overlaps = (start + stft.n_fft > max(begin, 0)) & (start < begin + n_fft)
            if not overlaps.any():
                continue
            frame = np.zeros((len(signals), n_fft), signals.dtype)
            low, high = max(begin, 0), min(begin + n_fft, model.n_samples)
            frame[:, low - begin : high - begin] = signals[:, low:high]
            power = np.abs(scipy.fft.rfft(frame * window, workers=FFT_WORKERS)) ** 2
            total += power * np.interp(
                fine_bins, np.arange(stft.n_bins), self._weights32[overlaps].mean(axis=0)
            )
        # the spectrum has the operator's mean curvature, measured with one random vector
        shape = (model.n_inputs, model.n_taps)
        probe = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        mean = _inner(probe, self._data_hessian(probe)) / probe.size
        total *= mean / (total.mean() + 1e-30)
        return total + 1e-6 * total.mean(axis=1, keepdims=True) + 1e-30

    def _preconditioner(self) -> Callable[[FloatArray], FloatArray]:
        """√S·C⁻¹·√S, near the inverse of the Hessian A(f) + 1/P(k, f).

        C is circulant and resolves the lines of tonal music, C(f) = A(f) + 1/P̄(f), with the mean P̄ over
        the lags; S scales the cells of lag and frequency, S = (A + 1/P̄) / (A + 1/P).
        """
        n_taps, cells = self.model.n_taps, self.prior.stft
        precision = self.prior.precision()
        mean_precision = np.exp(np.mean(np.log(precision), axis=-2))
        curvature = np.exp(np.mean(np.log(self.curvature_by_bin()), axis=-1))
        scale = np.sqrt((curvature + mean_precision)[:, None] / (curvature[:, None] + precision))
        scale = scale.astype(np.float32)
        fine = np.arange(self.fine.shape[1]) * (cells.n_fft / self.n_fft)
        bins = np.arange(cells.n_bins)
        floor = np.stack([np.exp(np.interp(fine, bins, row)) for row in np.log(mean_precision)])
        inverse = (1.0 / (self.fine + floor)).astype(np.float32)

        def scaled(g: FloatArray) -> FloatArray:
            return cells.inverse(scale * cells.forward(g), n_taps)

        def preconditioned(g: FloatArray) -> FloatArray:
            product = scipy.fft.rfft(scaled(g), self.n_fft, workers=FFT_WORKERS) * inverse
            return scaled(scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)[:, :n_taps])

        return preconditioned


def _inner(a: FloatArray, b: FloatArray) -> float:
    return float(np.sum(a * b, dtype=np.float64))
