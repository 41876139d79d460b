"""Finding the reference in the recording, and its clock.

Positions are in samples, at the sample rate of the caller. Recording sample n carries reference sample
p(n); p advances by 1 + drift·10⁻⁶ a sample (positive: the player's clock is the faster one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import soxr
from numpy.typing import NDArray

from unplay.removal.borders import direct_sound, sharpened
from unplay.removal.clock import MAX_DRIFT_PPM, Stretch, on_recording_clock
from unplay.removal.drift import SHORT_BLOCK_S, Track, refine
from unplay.removal.finding import FOUND_SCORE, Match, find
from unplay.removal.warp import HALF_WIDTH

ANALYSIS_RATE_HZ = 8000.0
"""Both signals are analysed at this rate or their own, whichever is lower; clocks are scaled back."""

SHORTEST_S = 0.5
"""Less of either signal is not searched."""

_DRIFT_SIGNIFICANCE = 2.5
_DRIFT_RESOLUTION_PPM = 0.005
_FAINT_SCORE = 30.0
_SHORT_S = 60.0
# standard deviation from short blocks, relative to that from long ones, below which it is believed
_SURER = 0.7
_END_S = 0.1


@dataclass(frozen=True)
class Alignment:
    """Where the reference plays in the recording.

    drift_ppm: mean drift, exactly 0.0 where the recording gives no reason for another value;
    drift_sigma_ppm: its standard deviation. drift_track (K, 2): recording time in s, drift in ppm there.
    delay_s: recording time at which reference sample 0 arrives, or would have, by the first stretch.
    evidence: the figures behind `found`; reason: a sentence that holds them.
    """

    found: bool
    reason: str
    stretches: tuple[Stretch, ...] = ()
    drift_ppm: float = 0.0
    drift_sigma_ppm: float = 0.0
    drift_track: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    delay_s: float = 0.0
    evidence: dict[str, float] = field(default_factory=dict)


def align(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    sample_rate_hz: float,
    *,
    follow_drift: bool = True,
) -> Alignment:
    """Find the reference (n,) in the recording (m,), both at `sample_rate_hz`.

    follow_drift=False leaves both clocks alone: one constant delay a stretch.
    """
    rate = min(ANALYSIS_RATE_HZ, sample_rate_hz)
    x = _resampled(reference, sample_rate_hz, rate)
    d = _resampled(recording, sample_rate_hz, rate)
    for name, signal in (("reference", x), ("recording", d)):
        if len(signal) < SHORTEST_S * rate:
            return Alignment(False, f"the {name} lasts {len(signal) / rate:.2f} s, under {SHORTEST_S} s")
        if not np.any(signal):
            return Alignment(False, f"the {name} is silent: all of its {len(signal) / rate:.1f} s are zero")
    finding = find(x, d, rate)
    evidence = {"score": finding.best.score, "runner_up": finding.best.runner_up}
    found = sharpened(x, d, rate, finding.stretches)
    if sum(s.stop - s.start for s in found) < SHORTEST_S * rate:
        return Alignment(False, _absence(finding.best), evidence=evidence)
    track, doubt = _track(x, d, rate, found, finding.best.score)
    if not follow_drift or _is_zero(track):
        track = replace(track, stretches=tuple(_without_drift(s) for s in track.stretches), drift_ppm=0.0)
    lag = direct_sound(x, d, rate, track.stretches)
    scaled = (s.later(lag).scaled(sample_rate_hz / rate) for s in track.stretches)
    stretches = to_the_ends(tuple(scaled), len(reference), len(recording), sample_rate_hz)
    first = stretches[0]
    delay_s = float(first.knots[0] - first.positions[0] / first.rates[0]) / sample_rate_hz
    return Alignment(
        True,
        f"the reference plays in {_listed(stretches, sample_rate_hz)} "
        f"(match {finding.best.score:.1f} times chance, {FOUND_SCORE:.0f} are needed)",
        stretches,
        track.drift_ppm,
        min(doubt * track.sigma_ppm, MAX_DRIFT_PPM),
        np.concatenate([_drift_track(s, sample_rate_hz) for s in stretches]),
        delay_s,
        evidence,
    )


def to_the_ends(
    stretches: Sequence[Stretch], n_reference: int, n_recording: int, sample_rate_hz: float
) -> tuple[Stretch, ...]:
    """Stretches in samples of any rate with the few samples at the reference's ends that the grid of the
    analysis leaves out: without them the music would begin or stop with a click that never was. One that
    stops just before the recording's end goes on to it, if the reference does."""
    grid = math.ceil(sample_rate_hz / min(ANALYSIS_RATE_HZ, sample_rate_hz))
    completed = []
    for stretch in stretches:
        begin, end = stretch.within_reference(n_reference, n_recording)
        start = begin if begin < stretch.start <= begin + grid else stretch.start
        nearly = stretch.stop >= min(end - grid, n_recording - _END_S * sample_rate_hz)
        stop = max(stretch.stop, end) if nearly else stretch.stop
        completed.append(replace(stretch, start=start, stop=stop).within(0, n_recording))
    return tuple(completed)


def with_ringing(stretches: Sequence[Stretch], n_reference: int, n_recording: int) -> tuple[Stretch, ...]:
    """The stretches with what lies before and after the reference, where they hold its first or last sample:
    on the recording's clock it is delayed by part of a sample, too, and rings there. Cut off, the ringing
    would be a click that nothing in the recording explains."""
    ringing = []
    for stretch in stretches:
        begin, end = stretch.within_reference(n_reference, n_recording)
        start = stretch.start - HALF_WIDTH if stretch.start == begin > 0 else stretch.start
        stop = stretch.stop + HALF_WIDTH if stretch.stop == end < n_recording else stretch.stop
        ringing.append(replace(stretch, start=start, stop=stop))
    return tuple(ringing)


def aligned_reference(
    reference: NDArray[np.floating], alignment: Alignment, start: int, stop: int
) -> NDArray[np.floating]:
    """The reference on the recording's clock for recording samples [start, stop): (stop − start,).

    Zero where it isn't playing. The echo path from here to the recording has its direct sound near lag 0.
    """
    return on_recording_clock(reference, alignment.stretches, start, stop)


def _resampled(x: NDArray[np.floating], from_hz: float, to_hz: float) -> NDArray[np.float32]:
    x = np.asarray(x, np.float32)
    return x if from_hz == to_hz or not len(x) else soxr.resample(x, from_hz, to_hz)


def _absence(best: Match) -> str:
    if best.score < FOUND_SCORE:
        return (
            f"the best match of the reference with the recording is {best.score:.1f} times chance; "
            f"{FOUND_SCORE:.0f} are needed to call it present"
        )
    return f"the reference matches the recording for less than {SHORTEST_S} s ({best.score:.1f} times chance)"


def _listed(stretches: Sequence[Stretch], sample_rate_hz: float) -> str:
    spans = [f"{s.start / sample_rate_hz:.2f} to {s.stop / sample_rate_hz:.2f} s" for s in stretches[:4]]
    more = f" and {len(stretches) - 4} more stretches" if len(stretches) > 4 else ""
    return ", ".join(spans) + more


def _track(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, stretches: Sequence[Stretch], score: float
) -> tuple[Track, float]:
    """The refined clocks; where the path moves, by blocks short enough for it to stand still in most of them
    if those tell the drift more surely. And by what factor less sure they are than they seem to be.

    Two estimates that differ by more than their uncertainties: these are too small, and are to be scaled to
    what the difference asks for (Birge 1932).
    """
    track = _likelier_track(x, d, rate, stretches, score)
    if track.well_modelled:
        return track, 1.0
    by_short_blocks = refine(x, d, rate, track.stretches, SHORT_BLOCK_S)
    difference_ppm = abs(track.drift_ppm - by_short_blocks.drift_ppm)
    ratio = difference_ppm / math.hypot(track.sigma_ppm, by_short_blocks.sigma_ppm)
    surer = by_short_blocks if by_short_blocks.sigma_ppm < _SURER * track.sigma_ppm else track
    return surer, max(1.0, ratio)


def _likelier_track(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float, stretches: Sequence[Stretch], score: float
) -> Track:
    """What seems to drift, but is faint and short, must beat the best clock near zero."""
    track = refine(x, d, rate, stretches)
    playing_s = sum(s.stop - s.start for s in stretches) / rate
    if _is_zero(track) or score > _FAINT_SCORE or playing_s > _SHORT_S:
        return track
    still = refine(x, d, rate, [_without_drift(s) for s in stretches])
    return track if track.log_likelihood > still.log_likelihood else still


def _without_drift(stretch: Stretch) -> Stretch:
    """The stretch on a clock without drift, its middle where it was."""
    middle = (stretch.start + stretch.stop) / 2
    knots = np.array([stretch.start, stretch.stop], float)
    return replace(stretch, knots=knots, positions=stretch.position_at(np.array(middle)) + knots - middle)


def _is_zero(track: Track) -> bool:
    return track.even and abs(track.drift_ppm) < max(
        _DRIFT_SIGNIFICANCE * track.sigma_ppm, _DRIFT_RESOLUTION_PPM
    )


def _drift_track(stretch: Stretch, sample_rate_hz: float) -> NDArray[np.float64]:
    """(K − 1, 2): recording time in s and drift in ppm of each piece of the clock."""
    middles = (stretch.knots[:-1] + stretch.knots[1:]) / 2
    return np.column_stack([middles / sample_rate_hz, (stretch.rates - 1) * 1e6])
