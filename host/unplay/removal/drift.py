"""The clock's drift: echo path and delay track in turn.

In every STFT bin the echo is a short filter over past reference frames (a convolutive transfer function).
The least-squares filter, weighted by the inverse spectrum of what it leaves, models the echo; a reference
that is read τ samples further on turns the phase of that model by jωτ. τ over time is a piecewise linear
track; one Gauss–Newton step on its knots with the filters eliminated (variable projection, Golub & Pereyra
1973), new filters, new weights, and again.

The path is free in every block, so what counts is how the delay changes within a block, and the knots that
two blocks share. A prior holds the drift of one piece close to that of the next; how close is chosen by the
evidence (MacKay 1992), and an even clock is the simplest choice.

Blocks of a minute tell the drift best where the path stands still. A path that changes in the middle of one
looks like drift; of blocks of 8 s few hold such a change. How much the scores vary from one part of the
recording to the next tells how far an estimate may be trusted (White 1982), and so which of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from unplay.removal.clock import MAX_DRIFT_PPM, Stretch, on_recording_clock

_FRAME_S = 0.128
_HOPS = 4
_TAPS = 12
_SMOOTHING = (3, 5)
_LEAD = 1
_LOWEST_HZ = 100.0
_HIGHEST = 0.47
BLOCK_S, SHORT_BLOCK_S = 60.0, 8.0
_BRIDGED_GAP_S = 10.0
_TAIL_S = 0.4
_KNOT_S = 5.0
_FOLLOWED_FROM_S = 40.0
_BINS_AT_ONCE = 48
_FREE_ITERATIONS = 2
_MOST_ITERATIONS = 8
_CONVERGED_SAMPLES = 5e-4
# Frames every quarter of their length count all evidence twice. Batches of scores often vary less than
# that (a weight that holds the frame's own residual bounds its score), but real rooms ask for it.
_LEAST_VARIATION = 2.0
_BATCH_S = 2.0
# drift changes per square root of a second; the first is an even clock
_WANDER_PPM = (1e-4, 0.03, 0.3, 3.0)
_WANDER_MARGIN = 6.0


@dataclass(frozen=True)
class Track:
    """Stretches on their refined clocks; the mean drift and its standard deviation, in ppm.

    even: the drift doesn't change within the recording. log_likelihood: of the recording on these clocks,
    but for what all clocks share as long as the blocks are the same. well_modelled: the scores vary no more
    than they do where the clock is all that changes.
    """

    stretches: tuple[Stretch, ...]
    drift_ppm: float
    sigma_ppm: float
    even: bool
    log_likelihood: float
    well_modelled: bool


@dataclass
class _Block:
    """A piece of the recording with one echo path (n_bins, taps)."""

    start: int
    stop: int
    path: NDArray[np.complexfloating] | None = None


@dataclass(frozen=True)
class _Equations:
    """Normal equations of all knots, (J, J) and (J,), in units of log likelihood, and that of the clocks."""

    matrix: NDArray[np.floating]
    vector: NDArray[np.floating]
    log_likelihood: float
    well_modelled: bool


def refine(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    sample_rate_hz: float,
    stretches: Sequence[Stretch],
    block_s: float = BLOCK_S,
) -> Track:
    """The clocks of `stretches` refined from the signals, both at `sample_rate_hz`.

    block_s: how long the echo path is taken to stand still. The delay may start off by tens of milliseconds
    (it belongs to the echo path); the drift by what keeps the signals within a quarter period of each other
    over a block.
    """
    stretches = tuple(_knotted(s, sample_rate_hz) for s in stretches)
    blocks = list(_blocks(stretches, sample_rate_hz, block_s))
    wander = _WANDER_PPM[-1]
    n_iterations = 0
    while True:
        equations = _normal_equations(reference, recording, sample_rate_hz, stretches, blocks)
        if n_iterations >= _FREE_ITERATIONS:
            wander = _likeliest_wander(equations, stretches, sample_rate_hz)
        step, covariance = _solve(equations, stretches, sample_rate_hz, wander)
        stretches = _moved(stretches, step)
        n_iterations += 1
        settled = n_iterations > _FREE_ITERATIONS + 1 and np.ptp(step) < _CONVERGED_SAMPLES
        if settled or n_iterations == _MOST_ITERATIONS:
            break
    drift, contrast = _mean_drift(stretches)
    sigma_ppm = min(1e6 * float(np.sqrt(contrast @ covariance @ contrast)), MAX_DRIFT_PPM)
    even = wander == _WANDER_PPM[0]
    return Track(stretches, 1e6 * drift, sigma_ppm, even, equations.log_likelihood, equations.well_modelled)


def _knotted(stretch: Stretch, rate: float) -> Stretch:
    """The stretch with knots about every `_KNOT_S`, or at its ends alone where it is short."""
    duration_s = (stretch.stop - stretch.start) / rate
    n_pieces = max(1, round(duration_s / _KNOT_S)) if duration_s >= _FOLLOWED_FROM_S else 1
    knots = np.linspace(stretch.start, stretch.stop, n_pieces + 1)
    return replace(stretch, knots=knots, positions=stretch.position_at(knots))


def _blocks(stretches: Sequence[Stretch], rate: float, block_s: float) -> Iterator[_Block]:
    """Blocks of up to `block_s` that cover the stretches and bridge short gaps between them."""
    spans: list[list[int]] = []
    for stretch in stretches:
        if spans and stretch.start - spans[-1][1] < _BRIDGED_GAP_S * rate:
            spans[-1][1] = stretch.stop
        else:
            spans.append([stretch.start, stretch.stop])
    for start, stop in spans:
        edges = np.linspace(start, stop, int(np.ceil((stop - start) / (block_s * rate))) + 1).astype(int)
        for lo, hi in pairwise(edges):
            yield _Block(int(lo), int(hi))


def _normal_equations(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    rate: float,
    stretches: Sequence[Stretch],
    blocks: Sequence[_Block],
) -> _Equations:
    """Gauss–Newton equations of the knots at the present clocks; gives every block its new path.

    What the scores vary beyond their model (a path that moves) lowers the likelihood as a whole
    (White 1982): batches of frames show it.
    """
    n_knots = sum(len(s.knots) for s in stretches)
    matrix, vector = np.zeros((n_knots, n_knots)), np.zeros(n_knots)
    variation = expected = log_likelihood = 0.0
    for block in blocks:
        stop = min(block.stop + int(_TAIL_S * rate), len(recording))
        echo = _spectrum(on_recording_clock(reference, stretches, block.start, stop), rate)
        target = _spectrum(recording[block.start : stop], rate)
        weight = _weights(echo, target, block.path)
        log_likelihood += float(np.sum(np.log(weight))) / _LEAST_VARIATION
        hats = _hats(stretches, block.start + _centres(len(target), rate))
        near = np.flatnonzero(hats.any(axis=0))
        block_matrix, block_vector, scores, information = _block_equations(
            echo, target, weight, rate, hats[:, near], block
        )
        matrix[np.ix_(near, near)] += block_matrix
        vector[near] += block_vector
        n_batches = max(8, round((stop - block.start) / rate / _BATCH_S))
        variation += sum(float(np.sum(batch)) ** 2 for batch in np.array_split(scores, n_batches))
        expected += information
    scale = max(_LEAST_VARIATION, variation / (expected + 1e-30))
    return _Equations(matrix / scale, vector / scale, log_likelihood, scale == _LEAST_VARIATION)


def _block_equations(
    reference: NDArray[np.complexfloating],
    target: NDArray[np.complexfloating],
    weight: NDArray[np.floating],
    rate: float,
    hats: NDArray[np.floating],
    block: _Block,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating], float]:
    """Equations (J, J), (J,) of one block; its frames' scores (n_frames,) of an even drift, and their power.

    reference, target and weight: (n_frames, n_bins); hats: (n_frames, J).
    """
    n_frames, n_bins = target.shape
    frequency = _frequencies(rate)
    # knot values of a clock that runs evenly ahead, in seconds
    even = np.linspace(-0.5, 0.5, n_frames) * hats.sum(axis=1)
    directions = np.column_stack([hats, even]).astype(np.float32)
    matrix = np.zeros((directions.shape[1],) * 2)
    vector, scores = np.zeros(directions.shape[1]), np.zeros(n_frames)
    path = np.zeros((n_bins, _TAPS), np.complex64)
    for start in range(0, n_bins, _BINS_AT_ONCE):
        bins = slice(start, start + _BINS_AT_ONCE)
        history = _history(reference[:, bins])
        weighted = history.conj().transpose(0, 2, 1) * weight[:, bins].T[:, None, :]
        gram = (weighted @ history).astype(np.complex128)
        load = 1e-6 * np.trace(gram, axis1=1, axis2=2).real / _TAPS + 1e-20
        gram += np.eye(_TAPS) * load[:, None, None]
        solved = np.linalg.solve(gram, weighted @ target[:, bins].T[:, :, None])
        path[bins] = solved[:, :, 0]
        echo = (history @ path[bins, :, None])[:, :, 0]
        slope = 1j * frequency[bins, None] * echo
        slope_weight = weight[:, bins].T * slope.conj()
        residual = target[:, bins].T - echo
        cross = weighted @ (slope[:, :, None] * directions)
        eliminated = np.linalg.solve(gram, cross)
        power = np.sum((slope_weight * slope).real, axis=0)
        matrix += directions.T @ (power[:, None].astype(np.float64) * directions)
        matrix -= np.sum((cross.conj().transpose(0, 2, 1) @ eliminated).real, axis=0)
        score = np.sum((slope_weight * residual).real, axis=0)
        vector += directions.T @ score
        projected = (history @ eliminated[:, :, -1:])[:, :, 0]
        scores += even * score - np.sum((weight[:, bins].T * projected.conj() * residual).real, axis=0)
    block.path = path
    return matrix[:-1, :-1], vector[:-1], scores, float(matrix[-1, -1])


def _weights(
    reference: NDArray[np.complexfloating],
    target: NDArray[np.complexfloating],
    path: NDArray[np.complexfloating] | None,
) -> NDArray[np.float32]:
    """Inverse power of what the last path leaves, smoothed over frames and bins (n_frames, n_bins)."""
    residual = target if path is None else target - _echo(reference, path)
    power = np.abs(residual) ** 2
    for axis, size in enumerate(_SMOOTHING):
        power = uniform_filter1d(power, size, axis=axis, mode="nearest")
    # the path has fitted away its share of the noise
    share = min(0.7, _TAPS * 2 / _HOPS / len(target)) if path is not None else 0.0
    return (1 - share) / (power + 1e-4 * power.mean(axis=0) + 1e-20)


def _echo(
    reference: NDArray[np.complexfloating], path: NDArray[np.complexfloating]
) -> NDArray[np.complexfloating]:
    """The path (n_bins, taps) applied to the reference's frames (n_frames, n_bins)."""
    echo = np.zeros_like(reference)
    for k in range(min(_TAPS, len(echo) + _LEAD)):
        lag = k - _LEAD
        shifted = slice(max(lag, 0), len(echo) + min(lag, 0))
        source = slice(max(-lag, 0), len(echo) + min(-lag, 0))
        echo[shifted] += reference[source] * path[:, k]
    return echo


def _history(spectrum: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """(n_frames, n_bins) → (n_bins, n_frames, taps): the frames from `_LEAD` ahead into the past."""
    n_frames, n_bins = spectrum.shape
    padded = np.zeros((n_bins, n_frames + _TAPS), spectrum.dtype)
    padded[:, _TAPS - 1 - _LEAD : _TAPS - 1 - _LEAD + n_frames] = spectrum.T
    return np.stack([padded[:, _TAPS - 1 - k : _TAPS - 1 - k + n_frames] for k in range(_TAPS)], axis=2)


def _n_fft(rate: float) -> int:
    return 1 << round(np.log2(_FRAME_S * rate))


def _band(rate: float) -> slice:
    return slice(round(_LOWEST_HZ * _n_fft(rate) / rate), round(_HIGHEST * _n_fft(rate)))


def _frequencies(rate: float) -> NDArray[np.float32]:
    """Radians a sample of the bins in use."""
    return (2 * np.pi * np.arange(_n_fft(rate) // 2 + 1)[_band(rate)] / _n_fft(rate)).astype(np.float32)


def _spectrum(x: NDArray[np.floating], rate: float) -> NDArray[np.complexfloating]:
    """Square-root-Hann STFT of the bins in use (n_frames, n_bins)."""
    n_fft = _n_fft(rate)
    hop = n_fft // _HOPS
    window = np.sin(np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(x, (n_fft - hop, n_fft + -len(x) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    return np.fft.rfft(frames * window, axis=1)[:, _band(rate)].astype(np.complex64)


def _centres(n_frames: int, rate: float) -> NDArray[np.floating]:
    """Samples at the centres of the frames of `_spectrum`."""
    n_fft = _n_fft(rate)
    return np.arange(n_frames) * (n_fft // _HOPS) + n_fft // _HOPS - n_fft / 2


def _hats(stretches: Sequence[Stretch], n: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear interpolation from all knots to recording samples n: (len(n), J); zero outside the stretches."""
    columns = []
    for stretch in stretches:
        inside = (n >= stretch.start - 1) & (n <= stretch.stop + 1)
        for unit in np.eye(len(stretch.knots)):
            columns.append(np.interp(n, stretch.knots, unit) * inside)
    return np.stack(columns, axis=1)


def _roughness(stretches: Sequence[Stretch]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Change of drift from each piece to the next, as (R, J) of the knots and (R,) at the present ones.

    In units of its standard deviation for a wander of one per square root of a sample.
    """
    n_knots = sum(len(s.knots) for s in stretches)
    rows, middles, first = [], [], 0
    for stretch in stretches:
        for k, span in enumerate(np.diff(stretch.knots)):
            row = np.zeros(n_knots)
            row[first + k : first + k + 2] = -1 / span, 1 / span
            rows.append(row)
            middles.append(stretch.knots[k] + span / 2)
        first += len(stretch.knots)
    changes = np.diff(rows, axis=0) / np.sqrt(np.diff(middles))[:, None]
    drift = np.concatenate([s.rates - 1 for s in stretches])
    return changes, np.diff(drift) / np.sqrt(np.diff(middles))


def _precision(stretches: Sequence[Stretch], rate: float, wander_ppm: float) -> tuple[NDArray, NDArray]:
    """Of the prior on a step of the knots: its matrix (J, J) and its pull (J,)."""
    changes, present = _roughness(stretches)
    scale = rate / (wander_ppm * 1e-6) ** 2
    return scale * changes.T @ changes, -scale * changes.T @ present


def _solve(
    equations: _Equations, stretches: Sequence[Stretch], rate: float, wander_ppm: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The step of the knots (J,) and its covariance (J, J) under the prior."""
    precision, pull = _precision(stretches, rate, wander_ppm)
    # what is common to all knots belongs to the echo path
    matrix = equations.matrix + precision + 1e-6 * np.eye(len(pull))
    covariance = np.linalg.inv(matrix)
    return covariance @ (equations.vector + pull), covariance


def _likeliest_wander(equations: _Equations, stretches: Sequence[Stretch], rate: float) -> float:
    """The prior's width with the highest evidence; a less even clock needs a clear margin."""
    if not len(_roughness(stretches)[1]):
        return _WANDER_PPM[0]
    best, best_evidence = _WANDER_PPM[0], -np.inf
    for k, wander in enumerate(_WANDER_PPM):
        evidence = _log_evidence(equations, stretches, rate, wander) - (_WANDER_MARGIN if k == 1 else 0.0)
        if evidence > best_evidence:
            best, best_evidence = wander, evidence
    return best


def _log_evidence(
    equations: _Equations, stretches: Sequence[Stretch], rate: float, wander_ppm: float
) -> float:
    """Log marginal likelihood of the prior's width, but for what all widths share (Laplace)."""
    changes, present = _roughness(stretches)
    scale = rate / (wander_ppm * 1e-6) ** 2
    step, covariance = _solve(equations, stretches, rate, wander_ppm)
    misfit = 0.5 * step @ equations.matrix @ step - equations.vector @ step
    roughness = 0.5 * scale * np.sum((present + changes @ step) ** 2)
    _, log_det = np.linalg.slogdet(covariance)
    return float(-misfit - roughness + 0.5 * log_det + 0.5 * len(present) * np.log(scale))


def _moved(stretches: Sequence[Stretch], step: NDArray[np.floating]) -> tuple[Stretch, ...]:
    """The stretches with `step` (J,) added to the positions of their knots."""
    moved, first = [], 0
    for stretch in stretches:
        part = step[first : first + len(stretch.knots)]
        moved.append(replace(stretch, positions=stretch.positions + part))
        first += len(part)
    return tuple(moved)


def _mean_drift(stretches: Sequence[Stretch]) -> tuple[float, NDArray[np.floating]]:
    """Mean drift over the time that plays, as a ratio, and its derivative by all knots (J,)."""
    total = sum(float(s.knots[-1] - s.knots[0]) for s in stretches)
    gained = sum(float(s.positions[-1] - s.positions[0] - s.knots[-1] + s.knots[0]) for s in stretches)
    parts = [np.concatenate([[-1.0], np.zeros(len(s.knots) - 2), [1.0]]) for s in stretches]
    return gained / total, np.concatenate(parts) / total
