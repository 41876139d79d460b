"""Echo paths that change: automatic gain, somebody walking by, a loudspeaker or a phone being moved.

Two models. Of low rank: the echo is Σ_r g_r(n) · (h_r ∗ x)(n), a few paths with gain tracks; one path
with a gain is automatic gain control, two paths are any passage from one place to another, and if one
gain is 1 at a time and the others 0, the path changes at once, or within a short ramp. Of full rank:
a path of its own at every knot in time and linear interpolation between them, held together by a
random-walk prior. The second is found first (it is linear) and gives the first its start.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from unplay.removal.chance import at_other_times
from unplay.removal.echo_model import EchoModel
from unplay.removal.echo_path import NearEndWeights, Paths
from unplay.removal.stft import FFT_WORKERS, Stft

FloatArray = NDArray[np.floating]

GAIN_STEP = 0.1
"""Standard deviation of a gain's change from one frame to the next (a gain's mean square is 1)."""

GAINS_APART = 64
"""Samples between the gains that are clustered."""

SWITCH_COST = 50.0
"""Log likelihood that a switch from one path to another must gain; the wrong path costs hundreds a second."""

RAMPS = np.concatenate([[0.0], 0.25 * 1.4 ** np.arange(19)])
"""Lengths of a ramp from one path to the next that are tried, in frames: none, 8 ms to 3.4 s."""

WHITENING_ORDER = 16
"""Of the linear prediction that whitens what surrounds a switch."""

KNOT_S = 0.004
"""Time between the knots of a gain that changes within a frame."""

FINE_GAIN_STEP = 0.05
"""A gain's usual change from knot to knot; the prior's tails are those of a Cauchy distribution."""

N_FINE_ROUNDS = 8
"""Of reweighting, each a tridiagonal system."""

FINE_GAIN_COST = 100.0
"""Log likelihood that the fine gains of a stretch must gain."""

TIMES_CHANCE = 1.5
"""And how many times that must be what it is with the echo of another time."""

FINE_S, FADE_S = 0.1, 0.01
"""Time in which fine gains are taken or left; the fade at its borders."""

FIRST_CHANGE = 0.02
"""Power of a path's change from one knot to the next that is expected first, relative to the path's."""


class MovingEchoModel(EchoModel):
    """The linear map from the paths at the knots to the echo, and its adjoint.

    reference (n_samples,), already advanced by the lead; taps are (n_knots, n_taps); the path at a sample is
    interpolated linearly between the two knots around it. Blocks of two knots' distance are convolved apart.
    """

    def __init__(self, reference: FloatArray, n_taps: int, hop: int) -> None:
        n_samples = len(reference)
        n_knots = -(-n_samples // hop) + 1
        self.reference, self.hop = reference, hop
        self.inputs, self.gains = reference[None], None
        self.n_inputs, self.n_samples, self.n_taps = n_knots, n_samples, n_taps
        self.n_fft = scipy.fft.next_fast_len(2 * hop + n_taps, real=True)
        padded = np.zeros(n_taps + hop + n_samples + 2 * hop, reference.dtype)
        padded[n_taps + hop : n_taps + hop + n_samples] = reference
        blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop + n_taps)[::hop][:n_knots]
        self.spectra = scipy.fft.rfft(blocks, self.n_fft, workers=FFT_WORKERS)
        self.hat = (1 - np.abs(np.arange(2 * hop) - hop) / hop).astype(reference.dtype)

    def astype(self, dtype: type[np.floating]) -> MovingEchoModel:
        return MovingEchoModel(self.reference.astype(dtype), self.n_taps, self.hop)

    def echo(self, taps: FloatArray) -> FloatArray:
        """taps (n_knots, n_taps) → echo (n_samples,)."""
        product = self.spectra * scipy.fft.rfft(taps, self.n_fft, workers=FFT_WORKERS)
        pieces = scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)
        pieces = pieces[:, self.n_taps : self.n_taps + 2 * self.hop] * self.hat
        out = np.zeros((self.n_inputs + 1, self.hop), pieces.dtype)
        out[:-1] += pieces[:, : self.hop]
        out[1:] += pieces[:, self.hop :]
        return out.reshape(-1)[self.hop : self.hop + self.n_samples]

    def adjoint(self, signal: FloatArray) -> FloatArray:
        """signal (n_samples,) → (n_knots, n_taps)."""
        padded = np.zeros((self.n_inputs + 1) * self.hop, signal.dtype)
        padded[self.hop : self.hop + self.n_samples] = signal
        halves = padded.reshape(-1, self.hop)
        pieces = np.zeros((self.n_inputs, self.n_taps + 2 * self.hop), signal.dtype)
        pieces[:, self.n_taps :] = np.concatenate([halves[:-1], halves[1:]], axis=1) * self.hat
        product = np.conj(self.spectra) * scipy.fft.rfft(pieces, self.n_fft, workers=FFT_WORKERS)
        return scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)[:, : self.n_taps]


def fit_gains(
    model: EchoModel, taps: FloatArray, recording: FloatArray, weights: FloatArray, stft: Stft
) -> NDArray[np.float64]:
    """Gain tracks (n_inputs, n_samples) of the paths' echoes that bring them closest to the recording.

    One gain a frame, by weighted least squares with a random walk as prior (a tridiagonal system),
    linear between the frames' centres. taps (n_inputs, n_taps); weights (n_frames, n_bins).
    """
    echoes = model.echoes(taps)
    signals = np.concatenate([echoes, recording[None].astype(echoes.dtype)])
    n_paths = len(echoes)
    products = np.zeros((len(weights), n_paths, n_paths + 1))
    for frames, spectrogram in stft.forward_in_pieces(signals):
        weighted = spectrogram[:n_paths] * (weights[frames] * (2 / stft.n_fft))
        products[frames] = np.einsum("rtf,stf->trs", np.conj(weighted), spectrogram, optimize=True).real
    gains = _smooth_gains(products[:, :, :n_paths], products[:, :, n_paths], GAIN_STEP**-2)
    centres = np.arange(len(gains)) * stft.hop + stft.hop - stft.n_fft / 2
    at = np.arange(model.n_samples)
    return np.stack([np.interp(at, centres, track) for track in gains.T])


def _smooth_gains(curvature: FloatArray, correlation: FloatArray, stiffness: float) -> NDArray[np.float64]:
    """Minimise Σ_t (gᵀC_t g − 2gᵀb_t) + stiffness·Σ_t |g_t − g_{t−1}|²: (n_frames, n_paths).

    curvature C (n_frames, n_paths, n_paths); correlation b (n_frames, n_paths).
    """
    n_frames, n_paths = correlation.shape
    n = n_frames * n_paths
    banded = np.zeros((n_paths + 1, n))  # lower diagonals
    ends = np.full(n_frames, 2.0)
    ends[[0, -1]] = 1.0
    for i in range(n_paths):
        banded[0, i::n_paths] = curvature[:, i, i] + stiffness * (ends + 1e-6)
        for j in range(i + 1, n_paths):
            banded[j - i, i::n_paths] = curvature[:, i, j]
    banded[n_paths, : n - n_paths] = -stiffness
    solution = scipy.linalg.solveh_banded(banded, correlation.reshape(-1), lower=True)
    return solution.reshape(n_frames, n_paths)


def sharpened_gain(
    gain: FloatArray, echo: FloatArray, recording: FloatArray, sample_rate_hz: int
) -> NDArray[np.float64]:
    """The gain track (n_samples,) of an echo, with what changed within a frame, as when a telephone turns its
    gain down at the first loud sound.

    echo, recording (n_samples,): without the gain, and with everything. What is missing from the gain is
    fitted to the whole recording, and added in stretches of FINE_S where that makes what is left likelier by
    FINE_GAIN_COST and by TIMES_CHANCE as much as the echo of another time can.
    """
    left = recording - gain * echo
    n_stretch = round(FINE_S * sample_rate_hz)
    whitening = _whitening(left / np.sqrt(uniform_filter1d(left**2, n_stretch // 4) + 1e-12))
    heard, left = (np.convolve(signal, whitening)[: len(gain)] for signal in (echo, left))
    floor = 1e-6 * np.mean(left**2) + 1e-30

    def fitted(heard: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The missing gain, and the log likelihood that it gains around each sample."""
        missing = _missing_gain(heard, left, round(KNOT_S * sample_rate_hz))
        before, after = (uniform_filter1d(x**2, n_stretch) + floor for x in (left, left - missing * heard))
        return missing, n_stretch / 2 * np.log(before / after)

    missing, likelier = fitted(heard)
    chance = max(np.max(fitted(other)[1]) for other in at_other_times(heard))
    right = likelier > max(FINE_GAIN_COST, TIMES_CHANCE * chance)
    around = maximum_filter1d(right.astype(float), n_stretch)
    return gain + missing * uniform_filter1d(around, round(FADE_S * sample_rate_hz))


def _missing_gain(heard: FloatArray, left: FloatArray, knot: int) -> FloatArray:
    """m (n_samples,), linear between knots `knot` samples apart, for which left ≈ m · heard.

    Reweighted least squares: the near end's power is that of what is left around a sample; the prior is a
    random walk whose steps have a Cauchy distribution.
    """
    n_knots = -(-len(left) // knot) + 1
    at = np.arange(len(left)) / knot
    before, share = at.astype(np.intp), at % 1

    def on_knots(values: FloatArray, of_before: FloatArray, of_after: FloatArray) -> FloatArray:
        sums = np.bincount(before, values * of_before, n_knots).astype(np.float64)
        return sums + np.bincount(before + 1, values * of_after, n_knots)

    on_knot, rest = np.zeros(n_knots), left
    missing = np.zeros(len(left))
    for _ in range(N_FINE_ROUNDS):
        near_end_power = uniform_filter1d(rest**2, 4 * knot) + 1e-6 * np.mean(left**2) + 1e-30
        curvature = heard**2 / near_end_power
        stiffness = 1 / (FINE_GAIN_STEP**2 + np.diff(on_knot) ** 2)
        banded = np.zeros((2, n_knots))  # lower diagonals
        banded[0] = on_knots(curvature, (1 - share) ** 2, share**2) + 1e-6
        banded[0] += np.concatenate([[0.0], stiffness]) + np.concatenate([stiffness, [0.0]])
        banded[1, :-1] = np.bincount(before, curvature * share * (1 - share), n_knots)[:-1] - stiffness
        correlation = on_knots(heard * left / near_end_power, 1 - share, share)
        on_knot = scipy.linalg.solveh_banded(banded, correlation, lower=True)
        missing = (1 - share) * on_knot[before] + share * on_knot[before + 1]
        rest = left - missing * heard
    return missing


def path_switches(
    model: EchoModel, taps: FloatArray, recording: FloatArray, weights: FloatArray, stft: Stft
) -> NDArray[np.float64]:
    """Which path the echo takes at each sample: tracks (n_inputs, n_samples), 0 where it is not.

    Where it is, the track is the largest value of the model's gain track for it. The likeliest sequence of
    paths, frame by frame (Viterbi 1967) with SWITCH_COST for each switch; for each switch then the linear
    ramp from path to path, of any length in RAMPS and at any sample, that is likeliest. Arguments as for
    `fit_gains`.
    """
    assert model.gains is not None
    taken_gain = model.gains.max(axis=1)
    residuals = recording - taken_gain[:, None] * model.echoes(taps)
    cost = np.zeros((len(weights), len(residuals)))
    for frames, spectrogram in stft.forward_in_pieces(residuals):
        power = spectrogram.real**2 + spectrogram.imag**2
        cost[frames] = np.einsum("tf,rtf->tr", weights[frames] * (2 * stft.hop / stft.n_fft**2), power)
    states = _viterbi(cost, SWITCH_COST)
    shares = np.zeros(residuals.shape)
    shares[states[0]] = 1.0
    switches = np.flatnonzero(np.diff(states)) + 1
    centres = switches * stft.hop + stft.hop // 2 - stft.n_fft // 2
    lengths = np.round(RAMPS * stft.n_fft)
    reach = int(lengths[-1])
    between = (centres[:-1] + centres[1:]) // 2
    for k, (switch, centre) in enumerate(zip(switches, centres, strict=True)):
        before, after = states[switch - 1], states[switch]
        begin = max(centre - reach, 0 if k == 0 else between[k - 1])
        around = slice(begin, min(centre + reach, model.n_samples if k == len(between) else between[k]))
        shares[:, around.start :] = 0.0
        shares[after, around.start :] = 1.0
        ramp = _ramp(residuals[before, around], residuals[after, around], lengths)
        shares[before, around], shares[after, around] = 1 - ramp, ramp
    return taken_gain[:, None] * shares


def _viterbi(cost: FloatArray, switch_cost: float) -> NDArray[np.intp]:
    """States (n_frames,) of least total cost (n_frames, n_states), each switch costing switch_cost."""
    best = cost[0].copy()
    came_from = np.empty(cost.shape, np.intp)
    stay = np.arange(cost.shape[1])
    for t in range(1, len(cost)):
        other = int(np.argmin(best))
        switches = best > best[other] + switch_cost
        came_from[t] = np.where(switches, other, stay)
        best = best[came_from[t]] + switch_cost * switches + cost[t]
    states = np.empty(len(cost), np.intp)
    states[-1] = np.argmin(best)
    for t in range(len(cost) - 1, 0, -1):
        states[t - 1] = came_from[t, states[t]]
    return states


def _ramp(before: FloatArray, after: FloatArray, lengths: FloatArray) -> FloatArray:
    """The share s (n_samples,) of the path `after` that leaves least where both leave the residuals given.

    s = 0, then a straight line of one of the lengths, then 1. What is left is (1 − s)·before + s·after, with
    the energy Σ before² − 2s·before·(before − after) + s²·(before − after)²: two correlations with the ramp
    give it for every place. Both residuals are whitened by the linear prediction of the smaller of the two
    at each sample, which is mostly the near end.
    """
    near_end = np.where(np.abs(before) < np.abs(after), before, after)
    whitening = _whitening(near_end)
    before, change = (np.convolve(r, whitening)[: len(before)] for r in (before, before - after))
    n = len(before)
    n_fft = scipy.fft.next_fast_len(2 * n, real=True)
    linear, square = scipy.fft.rfft(-2 * before * change, n_fft), scipy.fft.rfft(change**2, n_fft)
    least, share = 0.0, np.zeros(n)
    for length in lengths[lengths < n]:
        ramp = ((np.arange(n) + 1) / (length + 1)).clip(0, 1)
        spectrum = np.conj(scipy.fft.rfft(np.stack([ramp, ramp**2]), n_fft))
        energy = scipy.fft.irfft(linear * spectrum[0] + square * spectrum[1], n_fft)[:n]
        begin = int(np.argmin(energy))
        if energy[begin] < least:
            least = energy[begin]
            share = np.concatenate([np.zeros(begin), ramp[: n - begin]])
    return share


def _whitening(signal: FloatArray) -> FloatArray:
    """The filter (WHITENING_ORDER + 1,) whose output is what linear prediction cannot tell of the signal."""
    lags = np.array([np.dot(signal[: len(signal) - k], signal[k:]) for k in range(WHITENING_ORDER + 1)])
    lags[0] = lags[0] * (1 + 1e-4) + 1e-12
    return np.concatenate([[1.0], -scipy.linalg.solve_toeplitz(lags[:-1], lags[1:])])


def switching_start(paths: Paths, gains: FloatArray) -> tuple[Paths, FloatArray]:
    """As many paths that take turns as there are paths with gain tracks (n_paths, n_samples), nearest to
    them; and the tracks of the turns.

    Clusters the gains at every GAINS_APART samples (k-means++: Arthur & Vassilvitskii 2007).
    """
    sampled = gains[:, ::GAINS_APART].T
    centres, states = kmeans2(sampled, len(gains), minit="++", rng=np.random.default_rng(0))
    at = np.repeat(states, GAINS_APART)[: gains.shape[1]]
    turns = (at == np.arange(len(gains))[:, None]).astype(float)
    level = np.sqrt(np.mean(turns**2, axis=1, keepdims=True)) + 1e-30
    power = np.einsum("sr,rkf->skf", centres**2, paths.power)
    return Paths(centres @ paths.taps, power).scaled(level), turns / level


def moving_paths(still: Paths, n_knots: int) -> Paths:
    """A path at every knot, from one that stands still (n_paths = 1)."""
    return Paths(np.repeat(still.taps, n_knots, axis=0), still.power, FIRST_CHANGE * still.power)


def low_rank_start(
    moving: Paths, rank: int, reference: FloatArray, residual: FloatArray, stft: Stft, hop: int
) -> tuple[Paths, FloatArray]:
    """`rank` paths, and their gain tracks (rank, n_samples), nearest to the paths at the knots.

    By singular values, each frequency counted as much as it is heard: by the reference's power over the
    near end's (from the residual of the moving fit). hop: distance of the knots in samples.
    """
    power = np.abs(stft.forward(reference)) ** 2
    heard = np.mean(power * NearEndWeights(stft).of(residual, 1e-2), axis=0)
    n_fft = scipy.fft.next_fast_len(2 * moving.taps.shape[1], real=True)
    bins = np.arange(n_fft // 2 + 1) * (stft.n_fft / n_fft)
    root = np.sqrt(np.interp(bins, np.arange(stft.n_bins), heard))
    shaped = scipy.fft.irfft(scipy.fft.rfft(moving.taps, n_fft) * root, n_fft)
    vectors = np.linalg.svd(shaped, full_matrices=False)[0][:, :rank]
    at = np.arange(len(reference)) / hop
    gains = np.stack([np.interp(at, np.arange(len(vectors)), vector) for vector in vectors.T])
    # a path that is only at a knot after the end is never heard, and has no level
    level = np.sqrt(np.mean(gains**2, axis=1, keepdims=True)).clip(1e-3)
    paths = Paths(np.linalg.pinv(vectors) @ moving.taps, np.repeat(moving.power, rank, axis=0))
    return paths.scaled(level), gains / level
