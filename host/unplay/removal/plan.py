"""The plan: which stages help on this recording, decided by what they do to stretches they did not see.

Every candidate for the echo's way (a still path, a loudspeaker curve, a gain track, a moving path) is
fitted with one eighth of a second in every half left out, and scored there: how much lower is the
residual's power than without it, over the frames and bins in which there is echo? A candidate that only
fits the talker's chance likeness to the reference loses there. The chosen ones are then fitted to
everything. The recording itself is always a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from unplay.removal.echo_path import (
    SCHEDULE,
    TAIL_S,
    Prior,
    decay_precision,
    lead_samples,
    near_end_weights,
    solve_step,
    weights_stft,
)
from unplay.removal.echo_system import EchoSystem, fit_system, still_system
from unplay.removal.methods import Method, method_named
from unplay.removal.movement import low_rank_start, moving_model
from unplay.removal.stft import Stft
from unplay.removal.suppression import ABOVE_CHANCE_DB, suppress_residual_echo

FloatArray = NDArray[np.floating]
Progress = Callable[[str, float], None]
Schedule = tuple[tuple[float, float], ...]

TRIAL_TAIL_S = 0.5
"""Tail of the paths while stages are being chosen."""

TRIAL_SCHEDULE = ((1e-2, 0.1), (1e-2, 0.1), (1e-2, 0.1))
"""A curve and its path need three rounds to find to each other."""

FINAL_SCHEDULE = SCHEDULE[2:]
FINAL_SCHEDULE_IN_TURN = ((1e-2, 0.1), (1e-2, 0.1), (1e-3, 0.3), (1e-3, 0.3), (1e-4, 1.0), (1e-4, 1.0))
"""For a system with more than one part, which are fitted in turn and so take more rounds."""

MOVING_TRIAL = ((1e-2, 0.1, 0.3), (1e-2, 0.1, 0.1))
MOVING_FINAL = ((1e-2, 0.03, 0.3), (1e-2, 0.03, 0.03), (1e-3, 0.03, 0.03))
"""For each round on a moving path: floor of the near end, strength of the decay prior (its mean path says
little of how large it may become), and precision of its change from knot to knot over that. The trial has
gaps to bridge and is stiffer."""

TRIAL_KNOT_S, FINAL_KNOT_S = 1.0, 0.5
"""Time between a moving path's knots."""

MARGIN_DB = 0.5
"""What a stage must gain on the stretches left out to be used."""

HELD_OUT_PERIOD_S = 0.5
HELD_OUT_S = 0.125

HEARD = 0.03
"""Power of the estimated echo over the residual's above which a bin counts when stages are compared."""

CLIP_LEVEL = 0.999
"""Of full scale or of the recording's peak."""

MAX_RANK = 3

WHAT = {
    "loudspeaker curve": "a memoryless curve ahead of the echo path",
    "gain track": "one path with a changing gain",
    "movement": "a path of its own every half second",
}
FURTHER_STAGES = {
    "loudspeaker curve": ["gain track", "movement"],
    "gain track": ["loudspeaker curve"],
    "movement": ["loudspeaker curve"],
}
"""What may be added to a stage that helped; a moving path has gains of its own."""

N_THREADS = 2
"""Candidates fitted at a time; the transforms they spend their time in run side by side."""


@dataclass(frozen=True)
class StageDecision:
    """A stage that was weighed. effect_db: its measured gain on stretches left out of its fit."""

    name: str
    used: bool
    effect_db: float
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A system and what it leaves of the recording; moving_taps (n_knots, n_taps) replace its taps."""

    system: EchoSystem
    residual: FloatArray
    moving_taps: FloatArray | None = None


@dataclass(frozen=True)
class Removal:
    """near_end (n_samples,) float32; confidence 0 to 1; warm_start: the still path, for the next block."""

    near_end: NDArray[np.float32]
    stages: tuple[StageDecision, ...]
    confidence: float
    warm_start: FloatArray | None


def remove(
    reference: FloatArray,
    recording: FloatArray,
    sample_rate_hz: int,
    *,
    method: str | Method = "auto",
    strength: float = 1.0,
    warm_start: FloatArray | None = None,
    progress: Progress | None = None,
) -> Removal:
    """Take the reference out of one channel of a recording.

    recording (n_samples,). reference (n_past + n_samples,): on the recording's clock, so that its direct
    sound is heard near lag 0; the first n_past ≥ 0 samples were played before the recording began.
    method: "auto", one of `methods.NAMES`, or a method with settings of its own. strength: 0 (leave the
    recording) to 1.
    """
    d = np.asarray(recording, np.float64)
    x = np.asarray(reference, np.float64)
    # the echo path may begin before lag 0: its first samples are needed then
    n_missing = max(0, lead_samples(sample_rate_hz) - (len(x) - len(d)))
    x = np.concatenate([np.zeros(n_missing), x])
    if method != "auto":
        named = method_named(method) if isinstance(method, str) else method
        near_end = named.take_out(x[len(x) - len(d) :], d, sample_rate_hz)
        stage = StageDecision(named.name, True, _ratio_db(d, near_end), "asked for by name")
        return Removal(_mixed(d, near_end, strength), (stage,), 1.0, None)
    level, played_level = _level(d), _level(x)
    plan = _Plan(x / played_level, d / level, sample_rate_hz, progress or (lambda doing, share: None))
    near_end = plan.run(warm_start) * level
    return Removal(_mixed(d, near_end, strength), tuple(plan.stages), plan.confidence, plan.still_taps)


class _Plan:
    """One block of one channel. All signals here have the past in front: (n_past + n_samples,)."""

    def __init__(
        self, reference: FloatArray, recording: FloatArray, rate_hz: int, progress: Progress
    ) -> None:
        self.rate_hz = rate_hz
        self.n_past = len(reference) - len(recording)
        self.reference = reference
        self.recording = np.concatenate([np.zeros(self.n_past), recording])
        self.stft = weights_stft(rate_hz)
        self.trust = _trusted_frames(self.recording, self.n_past, self.stft)
        self.held_out = _held_out_frames(len(self.trust), self.stft.hop / rate_hz) & (self.trust > 0)
        self.seen = self.trust * ~self.held_out
        self.progress = progress
        self.stages: list[StageDecision] = []
        self.confidence = 0.0
        self.still_taps: FloatArray | None = None

    def run(self, warm_start: FloatArray | None) -> FloatArray:
        """The near end (n_samples,)."""
        self.progress("echo path", 0.0)
        still = self._still(warm_start)
        self.progress("curve, gain, movement", 0.3)
        chosen = self._choose(still)
        gain_db = self._gain_db(self.recording, chosen.residual)
        self.confidence = max(0.0, gain_db / (gain_db + MARGIN_DB)) if gain_db > 0 else 0.0
        self.progress("fitting", 0.6)
        fitted = self._fit_everything(chosen)
        self.still_taps = still.system.taps
        residual = self._without_residual_echo(fitted.residual)
        self.progress("done", 1.0)
        return residual[self.n_past :]

    def _still(self, warm_start: FloatArray | None) -> _Candidate:
        system = still_system(self.reference, self.rate_hz, TRIAL_TAIL_S)
        if warm_start is not None and warm_start.shape == system.taps.shape:
            system = replace(system, taps=warm_start)
        return self._fit(system, SCHEDULE[:2], 20)

    def _choose(self, still: _Candidate) -> _Candidate:
        """Of curve, gain track and movement take the one that helps most, then look for another."""
        chosen = self._fit(still.system, TRIAL_SCHEDULE, 10)
        self._decide(
            "echo path", self._gain_db(self.recording, chosen.residual), "one path that stands still"
        )
        start, open_stages = still, ["loudspeaker curve", "gain track", "movement"]
        while open_stages:
            with ThreadPoolExecutor(N_THREADS) as pool:
                candidates = dict(
                    zip(open_stages, pool.map(partial(self._with, start, chosen), open_stages), strict=True)
                )
            effects_db = {name: self._gain_db(chosen.residual, c.residual) for name, c in candidates.items()}
            best = max(open_stages, key=lambda name: effects_db[name])
            for name in open_stages:
                self._decide(name, effects_db[name], WHAT[name], unless=name != best)
            if effects_db[best] < MARGIN_DB:
                break
            start = chosen = candidates[best]
            if chosen.moving_taps is not None:
                chosen = start = self._few_paths(chosen)
            if chosen.moving_taps is not None:
                break
            open_stages = [
                name
                for name in FURTHER_STAGES[best]
                if name == "loudspeaker curve" or chosen.system.gains is None
            ]
            if open_stages:
                chosen = self._fit(start.system, TRIAL_SCHEDULE, 10)
        return chosen

    def _with(self, start: _Candidate, chosen: _Candidate, stage: str) -> _Candidate:
        """start with another stage, fitted as long as chosen, which is start without it."""
        if stage == "movement":
            return self._fit_moving(chosen, self.seen, MOVING_TRIAL)
        system = start.system.with_curve() if stage == "loudspeaker curve" else start.system.with_gain()
        return self._fit(system, TRIAL_SCHEDULE, 10)

    def _few_paths(self, moving: _Candidate) -> _Candidate:
        """The moving candidate as a few paths with gain tracks, if that is what it is."""
        for rank in range(2, MAX_RANK + 1):
            few = self._fit_few_paths(moving, rank)
            if self._decide(
                f"{rank} paths", self._gain_db(moving.residual, few.residual), "paths with gain tracks"
            ):
                return few
        return moving

    def _fit(self, system: EchoSystem, schedule: Schedule, n_iterations: int) -> _Candidate:
        return _Candidate(
            *fit_system(system, self.recording, self.rate_hz, schedule, n_iterations, self.seen)
        )

    def _fit_moving(
        self, still: _Candidate, trust: FloatArray, schedule: tuple[tuple[float, float, float], ...]
    ) -> _Candidate:
        """A path at every knot, from the still path on; schedule: MOVING_TRIAL or MOVING_FINAL."""
        knot_s = TRIAL_KNOT_S if schedule is MOVING_TRIAL else FINAL_KNOT_S
        model = moving_model(still.system.driven(), self.rate_hz, knot_s)
        taps = np.repeat(still.system.taps[:1, : model.n_taps], model.n_inputs, axis=0)
        residual = self.recording - model.echo(taps)
        for floor, strength, stiffness in schedule:
            mean = taps.mean(axis=0, keepdims=True)
            precision = strength * decay_precision(mean, self.rate_hz) + 1e-9
            prior = Prior(np.repeat(precision, model.n_inputs, axis=0), stiffness * precision[0])
            weights = near_end_weights(self.stft, residual, floor, trust)
            taps = taps + solve_step(model, self.stft, weights, residual, taps, prior, 20)
            residual = self.recording - model.echo(taps)
        return _Candidate(still.system, residual, taps)

    def _fit_few_paths(self, moving: _Candidate, rank: int) -> _Candidate:
        assert moving.moving_taps is not None
        system = moving.system
        taps, gains = low_rank_start(
            moving.moving_taps,
            rank,
            system.driven(),
            moving.residual,
            self.stft,
            round(TRIAL_KNOT_S * self.rate_hz),
            system.taps.shape[1],
        )
        return self._fit(replace(system, taps=taps, gains=gains), TRIAL_SCHEDULE, 20)

    def _fit_everything(self, chosen: _Candidate) -> _Candidate:
        """The chosen candidate fitted to all that can be trusted, with the whole tail."""
        if chosen.moving_taps is not None:
            return self._fit_moving(chosen, self.trust, MOVING_FINAL)
        system = chosen.system.with_taps(lead_samples(self.rate_hz) + round(TAIL_S * self.rate_hz))
        alone = system.gains is None and system.basis is None
        schedule, n_iterations = (FINAL_SCHEDULE, 30) if alone else (FINAL_SCHEDULE_IN_TURN, 20)
        return _Candidate(
            *fit_system(system, self.recording, self.rate_hz, schedule, n_iterations, self.trust)
        )

    def _without_residual_echo(self, residual: FloatArray) -> FloatArray:
        cleaned, above_chance_db = suppress_residual_echo(residual, self.recording - residual, self.rate_hz)
        self.stages.append(
            StageDecision(
                "residual echo",
                cleaned is not residual,
                _ratio_db(residual, cleaned),
                f"a Wiener mask takes {above_chance_db:+.1f} dB over what it would take by chance; "
                f"{ABOVE_CHANCE_DB:g} dB are needed",
            )
        )
        return cleaned

    def _gain_db(self, without: FloatArray, residual: FloatArray) -> float:
        """Mean decrease of the residual's level in the frames left out, in dB.

        Over the bins with echo, weighted with its amplitude.
        """
        before, after, echo = (
            uniform_filter(np.abs(self.stft.forward(signal)) ** 2, (1, 5))[self.held_out]
            for signal in (without, residual, self.recording - residual)
        )
        floor = 1e-6 * before.mean() + 1e-30
        amplitude = np.sqrt(echo) * (echo > HEARD * before)
        decrease_db = 10 * np.log10((before + floor) / (after + floor))
        return float(np.sum(amplitude * decrease_db) / (np.sum(amplitude) + 1e-30))

    def _decide(self, name: str, effect_db: float, what: str, unless: bool = False) -> bool:
        """Write the decision down and return it."""
        used = effect_db >= MARGIN_DB and not unless
        compared = "another stage does better" if unless else f"{MARGIN_DB:g} dB are needed"
        self.stages.append(
            StageDecision(
                name, used, effect_db, f"{what}: {effect_db:+.2f} dB on what it did not see; {compared}"
            )
        )
        return used


def _held_out_frames(n_frames: int, hop_s: float) -> NDArray[np.bool_]:
    return np.arange(n_frames) * hop_s % HELD_OUT_PERIOD_S < HELD_OUT_S


def _trusted_frames(recording: FloatArray, n_past: int, stft: Stft) -> FloatArray:
    """1.0 for frames with neither unrecorded past nor clipped samples, else 0.0: (n_frames,).

    A recording that is clipped nearly everywhere is trusted all the same: it is all there is.
    """
    peak = np.max(np.abs(recording), initial=0.0)
    at_limit = np.abs(recording) >= CLIP_LEVEL * max(peak, CLIP_LEVEL)
    clipped = at_limit & (np.roll(at_limit, 1) | np.roll(at_limit, -1))
    unknown = np.arange(len(recording)) < n_past
    past = _touched(unknown, stft)
    damaged = _touched(clipped | unknown, stft)
    return 1.0 - (damaged if damaged.mean() < 0.5 else past)


def _touched(samples: NDArray[np.bool_], stft: Stft) -> FloatArray:
    """1.0 for the frames in which any of the samples (n_samples,) lies."""
    counts = np.concatenate([[0], np.cumsum(samples)])
    begin = np.arange(stft.n_frames(len(samples))) * stft.hop - (stft.n_fft - stft.hop)
    low, high = np.clip(begin, 0, len(samples)), np.clip(begin + stft.n_fft, 0, len(samples))
    return (counts[high] > counts[low]).astype(float)


def _level(signal: FloatArray) -> float:
    """Root mean square; 1 for silence. Signals of level 1 keep the solvers' single precision in range."""
    return float(np.sqrt(np.mean(signal**2))) or 1.0


def _mixed(recording: FloatArray, near_end: FloatArray, strength: float) -> NDArray[np.float32]:
    """strength 0: the recording; 1: the near end."""
    return (recording + strength * (near_end - recording)).astype(np.float32)


def _ratio_db(before: FloatArray, after: FloatArray) -> float:
    return float(10 * np.log10((np.sum(before**2) + 1e-30) / (np.sum(after**2) + 1e-30)))
