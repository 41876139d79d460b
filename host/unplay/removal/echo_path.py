"""The echo path by iteratively reweighted least squares, with the convolution exact in the time domain.

The recording is modelled as

    d(n) = Σ_m g_m(n) · (h_m ∗ x_m)(n) + v(n),

inputs x_m (usually one: the aligned reference), gain tracks g_m (usually 1), echo paths h_m of n_taps
taps, near end v. The taps minimise

    Σ_{t,f} W(t,f) |STFT(d − Σ_m g_m·(h_m ∗ x_m))|² + Σ_m Σ_{k,f} |STFT(h_m)(k,f)|² / P_m(k,f),

where W is one over the power spectrogram V of the near end (the talker is the noise of this estimation
problem and gets its own spectrum as weight), and P is the power that the path has at each lag and
frequency (a room's response decays, and at each frequency at its own rate).

V and P are not known; they are estimated in turn with the taps by expectation maximisation (Dempster,
Laird & Rubin 1977), as in sparse Bayesian learning (Tipping 2001): what the taps might still be, given W
and P, counts. With A(f) the weighted power of the input, a tap of cell (k, f) has the posterior variance
Γ = 1 / (A + 1/P). Then

    P ← smooth |STFT(h)|² + Γ,        V ← smooth |STFT(e)|² / (1 − leverage),

where the leverage, Σ_k |X(t−k, f)|² Γ(k, f) / V(t, f), is the share of the near end's power that the fit
itself has taken at (t, f). (EM adds leverage·V instead of dividing; the fixed point is the same and is
reached sooner: MacKay 1992.) Without these terms quiet cells are fitted ever better and weigh ever more
until they alone decide, and a tail that is too long ruins the fit; with them the data choose the tail.

The floor of the near end's spectrogram falls from round to round: with a high floor the problem is well
conditioned and its solution a good start for the next, so that the pauses of the talker, where the echo
path can be learnt nearly without disturbance, come to count step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter, uniform_filter1d

from unplay.removal.echo_model import LEAD_S, EchoModel
from unplay.removal.least_squares import Prior, Problem, posterior_variance
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.032
"""Frame of the weights' STFT (rounded to a power of two of samples)."""

TAP_FRAME_S = 0.016
"""Frame of the taps' STFT (rounded to a power of two of samples)."""

PSD_SMOOTHING = (3, 3)
"""Frames and bins over which the near end's power is averaged."""

PATH_SMOOTHING = (3, 5)
"""Lags and bins over which the path's power is averaged."""

MOST_LEVERAGE = 0.8
"""Share of the near end's power that the fit is believed to have taken at most."""

FIRST_T60_S = 0.8
"""Reverberation time that is expected before anything is known. A tail that is longer than the room's is
soon shortened; one that is too short takes many rounds to grow."""

FIRST_LEAD_POWER = 0.1
"""Power of a tap ahead of the direct sound that is expected then, relative to one right after it."""

LEAST_POWER = 1e-30
"""Variance of a tap that is as good as none."""


@dataclass(frozen=True)
class Paths:
    """What is known of the echo paths.

    taps (n_paths, n_taps). power (n_paths, n_lags, n_bins): variance of a tap in each cell of `tap_stft`.
    change: None, or variance of the change from each path to the next, where the paths follow each other
    in time; all of them have one change and one power then, (1, n_lags, n_bins).
    """

    taps: FloatArray
    power: FloatArray
    change: FloatArray | None = None

    def scaled(self, factor: FloatArray | float) -> Paths:
        """The same paths, louder by a factor, or by one for each: (n_paths, 1)."""
        factor = np.broadcast_to(factor, (len(self.taps), 1))
        square = factor[: len(self.power), :, None] ** 2
        change = None if self.change is None else self.change * square
        # a path that nothing asks for fades, and would leave the range of single precision
        return Paths(self.taps * factor, np.maximum(self.power * square, LEAST_POWER), change)


def weights_stft(sample_rate_hz: int) -> Stft:
    """The STFT in which the near end is weighed."""
    return Stft(1 << round(np.log2(FRAME_S * sample_rate_hz)))


def tap_stft(sample_rate_hz: int) -> Stft:
    """The STFT of the taps; its cells are lags and frequencies."""
    return Stft(1 << round(np.log2(TAP_FRAME_S * sample_rate_hz)))


def unknown_paths(reference: FloatArray, recording: FloatArray, n_taps: int, sample_rate_hz: int) -> Paths:
    """One path of zeros, with the power that explains the recording by the reference at each frequency.

    reference (n_samples,), advanced by the lead; recording (n_samples,).
    """
    cells = tap_stft(sample_rate_hz)
    played, heard = (
        uniform_filter1d(np.mean(np.abs(cells.forward(signal)) ** 2, axis=0), PATH_SMOOTHING[1])
        for signal in (reference, recording)
    )
    gain = heard / (played + 1e-4 * played.mean() + 1e-30)
    time_s = np.arange(cells.n_frames(n_taps)) * cells.hop / sample_rate_hz - LEAD_S
    decay = np.where(time_s < -TAP_FRAME_S / 2, FIRST_LEAD_POWER, 10 ** (-6 * time_s.clip(0) / FIRST_T60_S))
    power = decay[:, None] * gain / (np.sum(decay) * cells.hop)
    return Paths(np.zeros((1, n_taps)), power[None] + 1e-12)


def tap_power(taps: FloatArray, cells: Stft) -> FloatArray:
    """Mean square of the taps (n_paths, n_taps) around each cell: (n_paths, n_lags, n_bins)."""
    power = np.abs(cells.forward(taps)) ** 2 * (2 / cells.n_fft)
    return uniform_filter(power, (1, *PATH_SMOOTHING), mode="nearest")


class NearEndWeights:
    """W(t, f), one over the near end's power spectrogram, for one recording from fit to fit.

    trust (n_frames,): a factor on each frame. smoothing: frames and bins over which the power is averaged.
    After a fit, `account` for what it took of the near end.
    """

    def __init__(
        self, stft: Stft, trust: FloatArray | None = None, smoothing: tuple[int, int] = PSD_SMOOTHING
    ) -> None:
        self.stft = stft
        self._smoothing = smoothing
        self._trust = 1.0 if trust is None else trust[:, None]
        self._kept: FloatArray | float = 1.0

    def of(self, residual: FloatArray, floor: float) -> FloatArray:
        """Weights (n_frames, n_bins) of the residual (n_samples,), so that Σ W|STFT(v)|²/n_fft ≈ n_samples/2.

        floor: least power, relative to each bin's mean (of which bins that are empty have a share, too).
        """
        psd = uniform_filter(np.abs(self.stft.forward(residual)) ** 2, self._smoothing, mode="nearest")
        psd = psd / self._kept
        mean = np.mean(psd * self._trust, axis=0) / (np.mean(self._trust) + 1e-12)
        psd += floor * (mean + 1e-4 * mean.mean()) + 1e-24
        return self._trust * (self.stft.n_fft / 2) / psd

    def account(self, leverage: FloatArray) -> None:
        """Note the share of each frame and bin that a fit took of the near end, (n_frames, n_bins)."""
        smooth = uniform_filter(leverage, self._smoothing, mode="nearest")
        self._kept = 1.0 - np.minimum(smooth, MOST_LEVERAGE)


def leverages(problem: Problem, paths: Paths) -> FloatArray:
    """Share of the near end that a fit takes, (n_frames, n_bins), 0 or more.

    W(t, f)·Σ_k |X(t − k, f)|² Γ(k, f), scaled down to the fit's degrees of freedom Σ A·Γ where it exceeds
    them (frames overlap and bins leak).
    """
    stft, cells, model = problem.stft, problem.prior.stft, problem.model
    freedom, error_power = 0.0, np.zeros_like(problem.weights)
    for k, (played, curvature) in enumerate(zip(model.inputs, problem.curvature_by_bin(), strict=False)):
        # A·Γ before Γ: each fine bin counts as much as the input is heard there
        change = None if paths.change is None else paths.change[k, ..., None]
        determined = np.mean(curvature * posterior_variance(curvature, paths.power[k, ..., None], change), -1)
        kernel = _on_frames(cells.hop * determined / curvature.mean(axis=-1), cells, stft)
        power = np.abs(stft.forward(played)) ** 2
        spread = _convolved(power, kernel).clip(0)
        error_power += spread if model.gains is None else spread * _per_frame(model.gains[k] ** 2, stft)
        freedom += float(np.sum(determined[:, :-1])) * model.n_inputs / len(model.inputs)
    leverage = problem.weights * error_power * (2 / stft.n_fft)
    return leverage * min(1.0, freedom / (float(np.sum(leverage)) + 1e-30))


def refit(
    paths: Paths,
    model: EchoModel,
    residual: FloatArray,
    weights: NearEndWeights,
    floor: float,
    n_iterations: int,
    sample_rate_hz: int,
) -> Paths:
    """One round of expectation maximisation; residual (n_samples,) is that of `paths`."""
    prior = Prior(tap_stft(sample_rate_hz), paths.power, paths.change)
    problem = Problem(model, weights.stft, weights.of(residual, floor), prior)
    taps = paths.taps + problem.step(residual, paths.taps, n_iterations)
    refitted = _with_prior(taps, paths, problem)
    weights.account(leverages(problem, refitted))
    return refitted


def _with_prior(taps: FloatArray, before: Paths, problem: Problem) -> Paths:
    """Taps with the power, and the change, that their posterior has."""
    cells = problem.prior.stft
    curvature = problem.curvature_by_bin()[: len(before.power)].mean(axis=-1)[:, None]
    variance = posterior_variance(curvature, before.power, before.change)
    if before.change is None:
        return Paths(taps, _above_zero(tap_power(taps, cells) + variance))
    power = tap_power(taps, cells).mean(axis=0, keepdims=True) + variance
    # neighbours in a long chain have the correlation ρ that solves ρ + 1/ρ = 2 + change·a
    half = 1 + before.change * (curvature + 1.0 / before.power) / 2
    correlation = half - np.sqrt(half**2 - 1)
    moved = tap_power(np.diff(taps, axis=0), cells).mean(axis=0, keepdims=True)
    return Paths(taps, _above_zero(power), _above_zero(moved + 2 * (1 - correlation) * variance))


def _above_zero(power: FloatArray) -> FloatArray:
    return power + 1e-9 * power.max() + LEAST_POWER


def _on_frames(power: FloatArray, cells: Stft, stft: Stft) -> FloatArray:
    """Power in cells of lag and frequency (n_lags, n_bins) on the frames and bins of another STFT.

    Each lag is shared out to the two frames around it; each bin is interpolated.
    """
    bins = np.arange(stft.n_bins) * (cells.n_fft / stft.n_fft)
    below = np.minimum(bins.astype(int), cells.n_bins - 2)
    power = power[:, below] + (bins - below) * (power[:, below + 1] - power[:, below])
    frames = np.arange(len(power)) * (cells.hop / stft.hop)
    first = frames.astype(int)
    shared = np.zeros((first[-1] + 2, stft.n_bins))
    np.add.at(shared, first, (1 - (frames - first))[:, None] * power)
    np.add.at(shared, first + 1, (frames - first)[:, None] * power)
    return shared


def _convolved(power: FloatArray, kernel: FloatArray) -> FloatArray:
    """Each bin of power (n_frames, n_bins) with that of a causal kernel (n_kernel, n_bins)."""
    # scipy.signal has this, too, but takes longer to import than a short recording to clean
    n_fft = scipy.fft.next_fast_len(len(power) + len(kernel), real=True)
    product = scipy.fft.rfft(power, n_fft, axis=0) * scipy.fft.rfft(kernel, n_fft, axis=0)
    return scipy.fft.irfft(product, n_fft, axis=0)[: len(power)]


def _per_frame(track: FloatArray, stft: Stft) -> FloatArray:
    """Mean of a track (n_samples,) in each frame, (n_frames, 1)."""
    n_frames = stft.n_frames(len(track))
    centres = np.arange(n_frames) * stft.hop + stft.hop - stft.n_fft / 2
    return np.interp(centres, np.arange(len(track)), uniform_filter1d(track, stft.n_fft))[:, None]
