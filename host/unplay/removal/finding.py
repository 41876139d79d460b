"""Where the reference plays in the recording: stretches, each with a coarse clock.

Both signals are whitened frame by frame, so that loud talk, loud notes and steady tones weigh no more than
the rest. A window of the recording is then correlated with the whole reference, coherently, for every drift
of a bank: short correlations are added up along every slope. Several windows must agree on a line. The line
is followed window by window to its ends (a delay-locked loop whose discriminator is the shape of the echo
path found so far), and a two-state Viterbi path over quarters of a second says where the reference sounds.
What remains of the recording is searched again: playback may have been paused, looped or started anew.

All signals here are at the analysis rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr
from numpy.typing import NDArray

from unplay.removal.clock import MAX_DRIFT_PPM, Stretch
from unplay.removal.warp import warp

FOUND_SCORE = 9.0
"""Unrelated pairs score up to 7.4 (1296 pairs of real music, speech and rooms), references 20 dB below the
talker 11.6 and more."""

# whitening: STFT magnitudes to the power of 1 − exponent
_FRAME_S = 0.128
_BAND_HZ = (100.0, 3800.0)
_RECORDING_WHITENING = 1.0
_REFERENCE_WHITENING = 0.5

# search: coherent windows made of segments, drifts as fine as `_COHERENT_HZ` asks for
_WINDOW_S = 16.0
_SEGMENT_S = 0.5
_SHORTEST_S = 0.5
_COHERENT_HZ = 1000.0
_BLOCK = 1 << 19
_MOST_LAGS = 2.5e9
_LONG_S = 60.0
_SURE_SCORE = 14.0
_AGAIN_SCORE = 8.0
_AGREE_S = 0.03
_DRIFT_CHANGE_PPM = 50.0

# a line that is heard this far, or over this share of its length, is no accident of a loop
_UNMISTAKABLE_S = 40.0
_MOSTLY = 0.7

# following a line, and telling where it sounds
_FOLLOW_S = 8.0
_FOLLOWED_SCORE = 5.0
_COAST_S = 60.0
_STEP_S = 0.25
_REACH_S = 0.064
_SHAPE_S = (-0.008, 0.04)
_QUIET = 0.2
_SWITCH_COST = 6.0
_ABSENT_LOG_ODDS = float(np.log(0.5))
_PRESENT_LOG_ODDS = 6.0
_SAME_CLOCK_S = 0.001
_BRIDGED_S = 2.0


@dataclass(frozen=True)
class Match:
    """A window of the recording found in the reference.

    score: the correlation over its standard deviation at all other positions and drifts; runner_up: the
    same of the best position elsewhere. Recording sample `time` carries reference sample `position`.
    """

    score: float
    runner_up: float
    time: float
    position: float
    drift: float

    def position_at(self, n: NDArray[np.floating] | float) -> NDArray[np.float64]:
        return self.position + (np.asarray(n, np.float64) - self.time) * (1 + self.drift)


NO_MATCH = Match(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Finding:
    """The best match of all, and the stretches in the order of the recording (none: not found)."""

    best: Match
    stretches: tuple[Stretch, ...] = ()


def find(reference: NDArray[np.float32], recording: NDArray[np.float32], rate: float) -> Finding:
    """Find every stretch of the reference (n,) in the recording (m,), both at `rate` Hz."""
    x = whitened(reference, rate, _REFERENCE_WHITENING)
    d = whitened(recording, rate, _RECORDING_WHITENING)
    search = _Search.through(x, d, rate)
    matches: list[Match] = []
    stretches: list[Stretch] = []
    for match in search.matches(_windows(0, len(d), rate), _drifts(0.0, MAX_DRIFT_PPM)):
        matches.append(match)
        if match.score >= _SURE_SCORE:
            stretches = _stretches(x, d, rate, match, 0, len(d))
            natural = _natural(match, len(x), 0, len(d))
            if _explained(stretches) > min(_MOSTLY * _explained([natural]), _UNMISTAKABLE_S * rate):
                break
    else:
        best = max(matches, key=lambda m: m.score, default=NO_MATCH)
        if best.score < FOUND_SCORE:
            return Finding(best)
        line = _consensus(matches, rate)
        # what is too faint to be followed piece by piece is taken to play to its ends
        stretches = _stretches(x, d, rate, line, 0, len(d)) or [_natural(line, len(x), 0, len(d))]
    drifts = _drifts(stretches[0].drift_ppm * 1e-6, _DRIFT_CHANGE_PPM)
    n_before = 0
    while len(stretches) > n_before:
        n_before = len(stretches)
        windows = [w for lo, hi in _free(stretches, len(d), rate) for w in _windows(lo, hi, rate)]
        for match in search.matches(windows, drifts):
            around = [(lo, hi) for lo, hi in _free(stretches, len(d), rate) if lo <= match.time < hi]
            if around and match.score >= _AGAIN_SCORE:
                stretches += _stretches(x, d, rate, match, *around[0])
    best = max(matches, key=lambda m: m.score)
    return Finding(best, _joined(sorted(stretches, key=lambda s: s.start), rate))


def _joined(stretches: Sequence[Stretch], rate: float) -> tuple[Stretch, ...]:
    """The stretches in order, those on one clock with a short gap in one piece."""
    joined: list[Stretch] = []
    for stretch in stretches:
        last = joined[-1] if joined else None
        if last and stretch.start - last.stop < _BRIDGED_S * rate:
            there = np.array(float(stretch.start))
            if abs(float(last.position_at(there) - stretch.position_at(there))) < _SAME_CLOCK_S * rate:
                joined[-1] = replace(last, stop=stretch.stop)
                continue
        joined.append(stretch)
    return tuple(joined)


def _explained(stretches: Sequence[Stretch]) -> int:
    """Samples in all stretches."""
    return sum(s.stop - s.start for s in stretches)


def whitened(x: NDArray[np.float32], rate: float, exponent: float) -> NDArray[np.float32]:
    """x (n,) with every STFT magnitude raised to 1 − exponent, and mean power one."""
    n_fft = 1 << round(np.log2(_FRAME_S * rate))
    hop = n_fft // 4
    window = np.sin(np.pi * np.arange(n_fft) / n_fft).astype(np.float32)
    padded = np.pad(x, (n_fft - hop, n_fft + -len(x) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    chunks = [slice(k, k + 1024) for k in range(0, len(frames), 1024)]
    energy = sum(np.sum(np.abs(np.fft.rfft(frames[c] * window, axis=1)) ** 2, axis=0) for c in chunks)
    level = np.sqrt(energy / len(frames))
    floor = 1e-2 * (level + 1e-3 * level.max()) + 1e-20
    frequency = np.arange(n_fft // 2 + 1) * rate / n_fft
    audible = (frequency > _BAND_HZ[0]) & (frequency < min(_BAND_HZ[1], 0.475 * rate))
    out = np.zeros((len(frames) + 3, hop), np.float32)
    for chunk in chunks:
        spectrum = np.fft.rfft(frames[chunk] * window, axis=1)
        spectrum *= audible / (np.abs(spectrum) + floor) ** exponent
        pieces = np.fft.irfft(spectrum, axis=1) * window
        for k in range(4):
            first = chunk.start + k
            out[first : first + len(pieces)] += pieces[:, k * hop : (k + 1) * hop]
    white = out.ravel()[n_fft - hop :][: len(x)]
    return white / np.sqrt(np.mean(white**2) + 1e-30)


def _drifts(centre: float, reach_ppm: float) -> tuple[float, float]:
    """Lowest and highest drift of a search, as ratios."""
    limit = MAX_DRIFT_PPM * 1e-6
    return max(centre - reach_ppm * 1e-6, -limit), min(centre + reach_ppm * 1e-6, limit)


@dataclass(frozen=True)
class _Search:
    """The whole reference x and recording d at 1/`coarse` of the analysis rate: half where they are long."""

    x: NDArray[np.float32]
    d: NDArray[np.float32]
    rate: float
    coarse: int

    @classmethod
    def through(cls, x: NDArray[np.float32], d: NDArray[np.float32], rate: float) -> _Search:
        if len(x) < _LONG_S * rate:
            return cls(x, d, rate, 1)
        return cls(soxr.resample(x, rate, rate / 2), soxr.resample(d, rate, rate / 2), rate / 2, 2)

    def matches(self, windows: Sequence[tuple[int, int]], drifts: tuple[float, float]) -> Iterator[Match]:
        """The best match of each window of the recording, spread over it, while the effort is bearable."""
        per_window = (len(self.x) + _WINDOW_S * self.rate) * _WINDOW_S / _SEGMENT_S
        for k in _spread_order(len(windows))[: max(8, int(_MOST_LAGS / per_window))]:
            start, stop = windows[k][0] // self.coarse, windows[k][1] // self.coarse
            match = _probe(self.x, self.d[start:stop], start, self.rate, drifts)
            yield replace(match, time=match.time * self.coarse, position=match.position * self.coarse)


def _windows(lo: int, hi: int, rate: float) -> list[tuple[int, int]]:
    """Windows of up to `_WINDOW_S` side by side in [lo, hi)."""
    if hi - lo < _SHORTEST_S * rate:
        return []
    edges = np.linspace(lo, hi, int(np.ceil((hi - lo) / (_WINDOW_S * rate))) + 1).astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _spread_order(n: int) -> list[int]:
    """0 … n − 1 so that every beginning of the list is spread evenly (multiples of the golden ratio)."""
    return np.argsort((np.arange(n) * 0.6180339887498949 + 0.5) % 1.0, kind="stable").tolist()


def _agreeing(matches: Sequence[Match], rate: float) -> list[Match]:
    """The largest group of sure matches that lie on one line as far as their drifts can tell."""
    sure = [m for m in matches if m.score >= _SURE_SCORE]

    def agree(a: Match, b: Match) -> bool:
        slack = _AGREE_S * rate + 1e-4 * abs(b.time - a.time)
        return abs(float(a.position_at(b.time)) - b.position) < slack

    groups = [[b for b in sure if agree(a, b)] for a in sure]
    return max(groups, key=lambda g: sum(m.score for m in g), default=[])


def _consensus(matches: Sequence[Match], rate: float) -> Match:
    """The best match of the largest group that agrees, or the best of all."""
    return max(_agreeing(matches, rate) or matches, key=lambda m: m.score)


def _probe(
    x: NDArray[np.float32],
    d: NDArray[np.float32],
    start: int,
    rate: float,
    drifts: tuple[float, float],
) -> Match:
    """The best match of one window d of the recording, which starts at recording sample `start`."""
    energy, count = 0.0, 0
    peaks: list[tuple[float, float, float]] = []
    for first, drift, score in _bank(x, d, rate, drifts):
        energy += float(np.dot(score, score))
        count += int(np.count_nonzero(score))
        magnitude = np.abs(score)
        k = int(np.argmax(magnitude))
        peaks.append((float(magnitude[k]), first + k, drift))
    deviation = np.sqrt(energy / max(count, 1)) + 1e-30
    peak, position, drift = max(peaks)
    elsewhere = (p[0] for p in peaks if abs(p[1] - position) > 0.05 * rate)
    centre = len(d) / 2
    return Match(
        peak / deviation, max(elsewhere, default=0.0) / deviation, start + centre, position + centre, drift
    )


def _bank(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, drifts: tuple[float, float]
) -> Iterator[tuple[int, float, NDArray[np.float32]]]:
    """(first position, drift, scores): normalised correlation of d with x at every position of d's start.

    Positions run from −len(d) to len(x); the drift turns around the centre of d.
    """
    segment = min(int(_SEGMENT_S * rate), len(d))
    n_segments = len(d) // segment
    slack = int(np.ceil(MAX_DRIFT_PPM * 1e-6 * len(d) / 2)) + 1
    margin = len(d) + 2 * slack + segment
    n_fft = _fast_length(min(_BLOCK, len(x) + len(d) + margin))
    n_positions = n_fft - margin
    segments = d[: n_segments * segment].reshape(n_segments, segment)
    spectra = np.fft.rfft(segments, n_fft, axis=1).conj()
    centres = (np.arange(n_segments) + 0.5) * segment - len(d) / 2
    step = 0.4 * rate / (len(d) * _COHERENT_HZ)
    grid = np.arange(np.floor(drifts[0] / step), np.ceil(drifts[1] / step) + 1) * step
    energy = _cumulative_energy(x)
    for first in range(-len(d), len(x), n_positions):
        piece = _excerpt(x, first - slack, n_fft)
        shorts = np.fft.irfft(np.fft.rfft(piece) * spectra, n_fft, axis=1).astype(np.float32, copy=False)
        at = np.arange(first, min(first + n_positions, len(x)))
        overlap = energy[np.clip(at + len(d), 0, len(x))] - energy[np.clip(at, 0, len(x))]
        # beyond the ends a short overlap of few samples must not weigh like a long one
        norm = (1 / np.sqrt(np.maximum(overlap, _SHORTEST_S * rate))).astype(np.float32)
        for drift in grid:
            score = np.zeros(len(at), np.float32)
            for k, shift in enumerate(np.rint(drift * centres).astype(int)):
                begin = slack + k * segment + shift
                score += shorts[k, begin : begin + len(at)]
            yield first, float(drift), score * norm


def _fast_length(n: int) -> int:
    """The smallest 2ᵏ, 3·2ᵏ or 5·2ᵏ that is at least n."""
    return min(odd << max(0, int(np.ceil(np.log2(n / odd)))) for odd in (1, 3, 5))


def _cumulative_energy(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy before each sample (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))])


def _excerpt(x: NDArray[np.float32], start: int, length: int) -> NDArray[np.float32]:
    """x[start : start + length], zero where that lies outside x."""
    out = np.zeros(length, np.float32)
    lo, hi = max(0, start), min(len(x), start + length)
    if lo < hi:
        out[lo - start : hi - start] = x[lo:hi]
    return out


@dataclass(frozen=True)
class _Lock:
    """A line measured on one window of the recording, and the shape of the echo path seen there."""

    match: Match
    shape: NDArray[np.floating]


def _stretches(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, match: Match, lo: int, hi: int
) -> list[Stretch]:
    """Where the line of a match sounds within recording samples [lo, hi)."""
    natural = _natural(match, len(x), lo, hi)
    lo, hi = natural.start, natural.stop
    if hi - lo < _SHORTEST_S * rate:
        return []
    locks = _followed(x, d, rate, match, lo, hi)
    if not locks:
        return []
    knots = np.array([k.match.time for k in locks])
    positions = np.array([k.match.position for k in locks])
    if len(locks) == 1:
        knots = np.array([lo, hi], float)
        positions = locks[0].match.position_at(knots)
    line = Stretch(lo, hi, knots, positions)
    shape = np.mean([k.shape for k in locks], axis=0)
    return [replace(line, start=start, stop=stop) for start, stop in _sounding(x, d, rate, line, shape)]


def _natural(match: Match, n_reference: int, lo: int, hi: int) -> Stretch:
    """The line of a match within [lo, hi), as far as the reference (n_reference,) goes."""
    ends = match.time + (np.array([0.0, n_reference]) - match.position) / (1 + match.drift)
    start, stop = max(lo, int(np.ceil(ends[0]))), min(hi, int(np.ceil(ends[1])))
    knots = np.array([start, max(stop, start + 1)], float)
    return Stretch(start, stop, knots, match.position_at(knots))


def _followed(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, match: Match, lo: int, hi: int
) -> list[_Lock]:
    """Locks on the match's line from one window to the next, in the order of the recording."""
    if hi - lo <= _WINDOW_S * rate:
        lock = _lock(x, d, rate, match, lo, hi, None)
        return [lock] if lock else []
    half = int(_FOLLOW_S * rate / 2)
    centre = int(np.clip(match.time, lo + half, hi - half))
    first = _lock(x, d, rate, match, centre - half, centre + half, None)
    if first is None:
        return []
    ahead = _follow(x, d, rate, first, lo, hi, half)
    behind = _follow(x, d, rate, first, lo, hi, -half)
    return [*behind[::-1], first, *ahead]


def _follow(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, first: _Lock, lo: int, hi: int, step: int
) -> list[_Lock]:
    """Locks from the first one on, `step` samples apart, until nothing has been heard for long."""
    locks = [first]
    half = abs(step)
    centre = int(first.match.time)
    while True:
        centre += step
        last = locks[-1].match
        if not lo + half / 2 <= centre <= hi - half / 2 or abs(centre - last.time) > _COAST_S * rate:
            return locks[1:]
        start, stop = max(lo, centre - half), min(hi, centre + half)
        lock = _lock(x, d, rate, last, start, stop, locks[-1].shape)
        if lock is None:
            continue
        recent = [lock.match, *(k.match for k in locks[-3:])]
        slope = np.polyfit([m.time for m in recent], [float(m.position - m.time) for m in recent], 1)[0]
        smoothed = Match(lock.match.score, 0.0, lock.match.time, lock.match.position, float(slope))
        locks.append(_Lock(smoothed, 0.7 * locks[-1].shape + 0.3 * lock.shape))


def _lock(
    x: NDArray[np.float32],
    d: NDArray[np.float32],
    rate: float,
    near: Match,
    start: int,
    stop: int,
    shape: NDArray[np.floating] | None,
) -> _Lock | None:
    """The line near a known one in recording samples [start, stop), if it is heard there.

    Without a known shape of the echo path the strongest lag counts, else where the shape fits best.
    """
    centre = (start + stop) / 2
    profiles, times = _profiles(x, d, rate, near.position_at, start, stop)
    step = 0.1 * rate / ((stop - start) * _COHERENT_HZ)
    reach = 0.4 * rate / (_FOLLOW_S * rate * _COHERENT_HZ)
    slopes = np.arange(-np.ceil(reach / step), np.ceil(reach / step) + 1) * step
    # of equals the first is taken: the least change
    slopes = slopes[np.argsort(np.abs(slopes), kind="stable")]
    sums = np.array([_slanted(profiles, -slope * (times - centre)) for slope in slopes])
    fits = sums if shape is None else _matched(sums, shape, rate)
    origin = profiles.shape[1] // 2
    allowed = (0.005 if shape is None else 0.002) * rate + 3e-5 * abs(centre - near.time)
    lags = np.arange(profiles.shape[1]) - origin
    heard = np.where(np.abs(lags) <= allowed, fits if shape is not None else np.abs(fits), -np.inf)
    row, column = np.unravel_index(int(np.argmax(heard)), heard.shape)
    noise = np.std(fits[:, np.abs(lags - lags[column]) > 0.02 * rate])
    score = float(heard[row, column] / (noise + 1e-30))
    if score < _FOLLOWED_SCORE:
        return None
    lag = lags[column] + _parabolic_peak(np.abs(fits[row]), int(column))
    drift = (1 + near.drift) * (1 + slopes[row]) - 1
    match = Match(score, 0.0, centre, float(near.position_at(centre - lag)), float(drift))
    return _Lock(match, _shape_of(sums[row], int(column), rate))


def _profiles(
    x: NDArray[np.float32],
    d: NDArray[np.float32],
    rate: float,
    position_at: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    start: int,
    stop: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Normalised correlations of short pieces of the recording with the reference on a clock.

    Returns (n_pieces, n_lags), lags from −reach to reach with a positive lag where the recording is later
    than the clock says, and the pieces' centres (n_pieces,).
    """
    length = min(int(_STEP_S * rate), stop - start)
    reach = int(_REACH_S * rate)
    n_pieces = (stop - start) // length
    n = np.arange(start - reach, start + n_pieces * length + reach, dtype=float)
    clocked = warp(x, position_at(n))
    pieces = d[start : start + n_pieces * length].reshape(n_pieces, length)
    spans = np.lib.stride_tricks.sliding_window_view(clocked, length + 2 * reach)[::length]
    n_fft = 1 << int(np.ceil(np.log2(length + 2 * reach)))
    spectra = np.fft.rfft(spans, n_fft, axis=1) * np.fft.rfft(pieces, n_fft, axis=1).conj()
    profiles = np.fft.irfft(spectra, n_fft, axis=1)[:, 2 * reach :: -1]
    energy = np.mean(spans**2, axis=1) * length * np.sum(pieces**2, axis=1)
    profiles = profiles / np.sqrt(energy + 1e-3 * length**2)[:, None]
    return profiles, start + (np.arange(n_pieces) + 0.5) * length


def _slanted(profiles: NDArray[np.floating], shifts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sum of the profiles, each read `shifts` lags further on."""
    total = np.zeros(profiles.shape[1])
    for profile, shift in zip(profiles, np.rint(shifts).astype(int), strict=True):
        total += np.roll(profile, -shift)
    return total


def _shape_of(profile: NDArray[np.floating], column: int, rate: float) -> NDArray[np.floating]:
    """The profile around a lag, with unit energy."""
    lo, hi = (column + round(s * rate) for s in _SHAPE_S)
    shape = _excerpt(profile.astype(np.float32), lo, hi - lo).astype(float)
    return shape / np.sqrt(np.sum(shape**2) + 1e-30)


def _matched(sums: NDArray[np.floating], shape: NDArray[np.floating], rate: float) -> NDArray[np.floating]:
    """How well the shape fits at each lag: same form as sums."""
    lead = -round(_SHAPE_S[0] * rate)
    return np.array([np.correlate(np.pad(s, (lead, len(shape) - 1 - lead)), shape, "valid") for s in sums])


def _parabolic_peak(values: NDArray[np.floating], k: int) -> float:
    """Vertex of the parabola through values[k − 1 : k + 2], relative to k."""
    if not 0 < k < len(values) - 1:
        return 0.0
    left, middle, right = values[k - 1 : k + 2]
    curvature = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _sounding(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, line: Stretch, shape: NDArray[np.floating]
) -> list[tuple[int, int]]:
    """Intervals of the recording in which the line is heard: Viterbi over short pieces."""
    log_odds, edges = _log_odds(x, d, rate, line, shape)
    state = _two_states(log_odds)
    borders = np.flatnonzero(np.diff(np.concatenate([[0], state, [0]])))
    return [
        (int(edges[a]), int(edges[b]))
        for a, b in zip(borders[::2], borders[1::2], strict=True)
        if np.sum(log_odds[a:b]) > _SWITCH_COST
    ]


def _log_odds(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, line: Stretch, shape: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Log odds that the line is heard, for short pieces of the recording, and the pieces' edges."""
    length = int(_STEP_S * rate)
    odds: list[NDArray[np.floating]] = []
    chunk = int(64 * _STEP_S * rate)
    for start in range(line.start, line.stop, chunk):
        stop = min(start + chunk, line.stop)
        if stop - start < length:
            break
        profiles, _ = _profiles(x, d, rate, line.position_at, start, stop)
        odds.append(_matched(profiles, shape, rate))
    fits = np.concatenate(odds)
    origin = fits.shape[1] // 2
    # lags before the direct sound: chance, and what the reference has in common with itself
    early = fits[:, : origin - round(0.016 * rate)]
    noise = float(np.std(early)) + 1e-30
    score = fits[:, origin - 1 : origin + 2].max(axis=1) / np.maximum(noise, np.std(early, axis=1))
    amplitude = max(float(np.mean(score[score > np.median(score)])), 1.0)
    models = [
        np.exp(np.clip(a * score - a**2 / 2, -50, 50)) for a in (0.5 * amplitude, amplitude, 2 * amplitude)
    ]
    log_odds = np.log(0.5 + 0.5 * np.mean(models, axis=0))
    # a silent piece of the reference says nothing
    log_odds[np.std(fits, axis=1) < _QUIET * noise] = 0.0
    edges = line.start + np.arange(len(score) + 1) * length
    edges[-1] = line.stop
    return np.clip(log_odds, _ABSENT_LOG_ODDS, _PRESENT_LOG_ODDS), edges


def _two_states(log_odds: NDArray[np.floating]) -> NDArray[np.int64]:
    """Viterbi path, 1 where present; each change of state costs `_SWITCH_COST`."""
    scores = np.zeros(2)
    came_from = np.zeros((len(log_odds), 2), np.int64)
    for k, gain in enumerate(log_odds):
        stay_or_come = scores[None, :] - _SWITCH_COST * (1 - np.eye(2))
        came_from[k] = np.argmax(stay_or_come, axis=1)
        scores = np.max(stay_or_come, axis=1) + np.array([0.0, gain])
    state = np.zeros(len(log_odds), np.int64)
    current = int(np.argmax(scores))
    for k in range(len(log_odds) - 1, -1, -1):
        state[k] = current
        current = int(came_from[k, current])
    return state


def _free(stretches: Sequence[Stretch], n_samples: int, rate: float) -> list[tuple[int, int]]:
    """Intervals of the recording that no stretch explains; echo fades after each."""
    fade = int(0.5 * rate)
    free, at = [], 0
    for stretch in sorted(stretches, key=lambda s: s.start):
        free.append((at, stretch.start))
        at = max(at, stretch.stop + fade)
    free.append((at, n_samples))
    return [(lo, hi) for lo, hi in free if hi - lo >= 1.0 * rate]
