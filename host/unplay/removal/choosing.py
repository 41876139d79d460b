"""What the echo goes through: decided by what each stage does to stretches that it did not see.

Every candidate (a still path, a loudspeaker curve, a gain track, a moving path) is fitted with one eighth
of a second in every half left out, and scored there: how much lower is the residual's power than without
it, over the frames and bins in which there is echo? A candidate that only fits the talker's chance likeness
to the reference loses there. Up to `TRIAL_RATE_HZ` is enough to tell, and quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from unplay.removal.echo_path import weights_stft
from unplay.removal.echo_system import SCHEDULE, EchoSystem, fit_system, still_system
from unplay.removal.movement import low_rank_start, switching_start
from unplay.removal.threads import N_THREADS
from unplay.removal.trust import trusted_frames

FloatArray = NDArray[np.floating]

TRIAL_RATE_HZ = 8000

TRIAL_SCHEDULE = ((1e-2, 10), (1e-2, 10), (1e-2, 10))
"""Floors and iterations while stages are compared: a curve and its path need three rounds to find to each
other."""

TRIAL_KNOT_S = 1.0
"""Time between a moving path's knots: there are gaps to bridge."""

MARGIN_DB = 0.5
"""What a stage must gain on the stretches left out to be used."""

DEEP, AUDIBLE, LOUD = 1e-6, 1e-3, 0.1
"""Shares of the mean of what was left. Added to the powers of what was left and of what is left, they set how
deep a change still counts."""

DEPTH = {"loudspeaker curve": AUDIBLE, "gain track": DEEP, "movement": DEEP}
"""How deep a stage's changes count. Far below the talker even a curve that is none explains something."""

LOUD_MARGIN_DB = 0.1
"""Movement is used as well where it gains so much on what is loud alone. A path that stands still for two
thirds of a recording may lose more decibels there, deep below the talker, than it gains in the rest, where
its echo is heard."""

HELD_OUT_PERIOD_S = 0.5
HELD_OUT_S = 0.125

HEARD = 0.03
"""Power of the estimated echo over the residual's above which a bin counts when stages are compared."""

MAX_RANK = 3

WHAT = {
    "loudspeaker curve": "a memoryless curve ahead of the echo path",
    "gain track": "one path with a changing gain",
    "movement": "a path that changes, at its best",
}
FURTHER_STAGES = {
    "loudspeaker curve": ["gain track", "movement"],
    "gain track": ["loudspeaker curve"],
    "movement": ["loudspeaker curve"],
}
"""What may be added to a stage that helped; a moving path has gains of its own."""


@dataclass(frozen=True)
class StageDecision:
    """A stage that was weighed. effect_db: its measured gain on stretches left out of its fit. figures: what
    else is known of how it went, lists of numbers by name."""

    name: str
    used: bool
    effect_db: float
    reason: str
    figures: Mapping[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """system: the chosen one, at the trial's sample rate; gain_db: what all of it gains on what it did not
    see; stages: every decision in its order."""

    system: EchoSystem
    gain_db: float
    stages: tuple[StageDecision, ...]


@dataclass(frozen=True)
class _Candidate:
    """A system and what it leaves of the recording (n_samples,)."""

    system: EchoSystem
    residual: FloatArray


def choose(
    reference: FloatArray, recording: FloatArray, damaged: NDArray[np.bool_], sample_rate_hz: int
) -> Choice:
    """Choose what the echo goes through from the aligned reference to the recording.

    reference (n_samples + n_next,), see `still_system`; recording (n_samples,); damaged (n_samples,):
    samples that say nothing of the echo.
    """
    rate_hz = min(TRIAL_RATE_HZ, sample_rate_hz)
    if rate_hz < sample_rate_hz:
        reference, recording = (
            soxr.resample(signal, sample_rate_hz, rate_hz) for signal in (reference, recording)
        )
        at = np.flatnonzero(damaged) * rate_hz // sample_rate_hz
        damaged = np.zeros(len(recording), bool)
        damaged[at[at < len(damaged)]] = True
    return _Trial(reference, recording, damaged, rate_hz).choice()


def _left_out(time_s: FloatArray) -> NDArray[np.bool_]:
    """Which times are in the eighth of a second that is left out of every half, somewhere in it.

    At a fixed place in it, music of 120 beats a minute would be judged by the same part of every beat.
    """
    period = (time_s // HELD_OUT_PERIOD_S).astype(int)
    n_periods = int(period.max(initial=0)) + 1
    begins_s = np.random.default_rng(0).uniform(0, HELD_OUT_PERIOD_S - HELD_OUT_S, n_periods)
    within_s = time_s - period * HELD_OUT_PERIOD_S - begins_s[period]
    return (within_s >= 0) & (within_s < HELD_OUT_S)


@dataclass
class _Trial:
    reference: FloatArray
    recording: FloatArray
    damaged: NDArray[np.bool_]
    rate_hz: int
    stages: list[StageDecision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stft = weights_stft(self.rate_hz)
        trust = trusted_frames(self.damaged, self.stft)
        time_s = np.arange(len(trust)) * self.stft.hop / self.rate_hz
        self.held_out = _left_out(time_s) & (trust > 0)
        self.seen = trust * ~self.held_out

    def choice(self) -> Choice:
        chosen = self._chosen()
        return Choice(chosen.system, self._gain_db(self.recording, chosen.residual), tuple(self.stages))

    def _chosen(self) -> _Candidate:
        """Of curve, gain track and movement take the one that helps most, then look for another."""
        still = self._fit(still_system(self.reference, self.recording, self.rate_hz), SCHEDULE[:2])
        chosen = self._fit(still.system, TRIAL_SCHEDULE)
        gain_db = self._gain_db(self.recording, chosen.residual)
        self.stages.append(_decision("echo path", gain_db, "one path that stands still"))
        start, open_stages = still, ["loudspeaker curve", "gain track", "movement"]
        while open_stages:
            candidates = _side_by_side(partial(self._with, start, chosen), open_stages)
            decisions: list[StageDecision] = []
            if "movement" in candidates and self._loud_or_clear(chosen, candidates["movement"]):
                candidates, decisions = self._at_their_best(chosen, candidates)
            best = self._most_helpful(chosen, candidates)
            if best is None:
                break
            start = chosen = candidates[best]
            if best == "movement":
                self.stages += decisions
            if chosen.system.knot_samples is not None:
                break
            open_stages = [
                name
                for name in FURTHER_STAGES[best]
                if name == "loudspeaker curve" or chosen.system.gains is None
            ]
            if open_stages:
                chosen = self._fit(start.system, TRIAL_SCHEDULE)
        return chosen

    def _most_helpful(self, chosen: _Candidate, candidates: dict[str, _Candidate]) -> str | None:
        """Of the candidates the stage that helps most beside chosen; None where none does."""
        effects_db = self._effects_db(chosen, candidates)
        helpful = [name for name, effect_db in effects_db.items() if effect_db >= MARGIN_DB]
        # a few paths can do what one does whose gain changes: they must do better
        best = max(
            helpful, key=lambda name: effects_db[name] - MARGIN_DB * (name == "movement"), default=None
        )
        loud_db = 0.0
        if best is None and "movement" in candidates:
            loud_db = self._gain_db(chosen.residual, candidates["movement"].residual, LOUD)
        for name, effect_db in effects_db.items():
            if name == "movement" and loud_db >= LOUD_MARGIN_DB:
                best = name
                reason = (
                    f"{WHAT[name]}: {effect_db:+.2f} dB on what it did not see, but {loud_db:+.2f} dB on "
                    f"what is loud of it; {LOUD_MARGIN_DB:g} dB are needed"
                )
                self.stages.append(StageDecision(name, True, loud_db, reason))
            else:
                self.stages.append(_decision(name, effect_db, WHAT[name], unless=best not in (None, name)))
        return best

    def _effects_db(self, chosen: _Candidate, candidates: dict[str, _Candidate]) -> dict[str, float]:
        return {
            name: self._gain_db(chosen.residual, candidate.residual, DEPTH[name])
            for name, candidate in candidates.items()
        }

    def _loud_or_clear(self, chosen: _Candidate, moving: _Candidate) -> bool:
        """Whether the path may move: a few paths may help far more than it does so far."""
        return (
            self._gain_db(chosen.residual, moving.residual) >= MARGIN_DB
            or self._gain_db(chosen.residual, moving.residual, LOUD) >= LOUD_MARGIN_DB
        )

    def _at_their_best(
        self, chosen: _Candidate, candidates: dict[str, _Candidate]
    ) -> tuple[dict[str, _Candidate], list[StageDecision]]:
        """Movement as a few paths, if it is that, and the others that help fitted for as many rounds; and
        what was decided."""
        few, decisions = self._few_paths(candidates["movement"])
        effects_db = self._effects_db(chosen, candidates)
        rivals = [name for name in candidates if name != "movement" and effects_db[name] >= MARGIN_DB]
        as_long = _side_by_side(lambda name: self._fit(candidates[name].system, 2 * TRIAL_SCHEDULE), rivals)
        return {**candidates, **as_long, "movement": few}, decisions

    def _with(self, start: _Candidate, chosen: _Candidate, stage: str) -> _Candidate:
        """start with another stage, fitted as long as chosen, which is start without it."""
        if stage == "movement":
            return self._fit(chosen.system.with_movement(self._knot_samples), TRIAL_SCHEDULE)
        system = start.system.with_curve() if stage == "loudspeaker curve" else start.system.with_gain()
        return self._fit(system, TRIAL_SCHEDULE)

    @property
    def _knot_samples(self) -> int:
        return round(TRIAL_KNOT_S * self.rate_hz)

    def _few_paths(self, moving: _Candidate) -> tuple[_Candidate, list[StageDecision]]:
        """The moving candidate as a few paths with gain tracks, if it is that; and what was decided."""
        decisions = []
        n_knots = len(moving.system.paths.taps)
        for rank in range(2, min(MAX_RANK, n_knots) + 1):
            few = self._fit_few_paths(moving, rank)
            effect_db = self._gain_db(moving.residual, few.residual)
            decisions.append(_decision(f"{rank} paths", effect_db, "paths with gain tracks"))
            if decisions[-1].used:
                switching, further = self._switching(few)
                return switching, decisions + further
        return moving, decisions

    def _switching(self, few: _Candidate) -> tuple[_Candidate, list[StageDecision]]:
        """The candidate of few paths with gain tracks, as paths that take turns if that is what it is; and
        what was decided."""
        assert few.system.gains is not None
        paths, turns = switching_start(few.system.paths, few.system.gains)
        if not turns.any(axis=1).all():  # a path that never has its turn is none
            return few, []
        system = replace(few.system, paths=paths, gains=turns, switches=True)
        switching = self._fit(system, TRIAL_SCHEDULE)
        effect_db = self._gain_db(few.residual, switching.residual)
        decision = _decision("switch", effect_db, "paths that take turns, from one sample to the next")
        return switching if decision.used else few, [decision]

    def _fit_few_paths(self, moving: _Candidate, rank: int) -> _Candidate:
        system = moving.system
        paths, gains = low_rank_start(
            system.paths, rank, system.driven(), moving.residual, self.stft, self._knot_samples
        )
        return self._fit(replace(system, paths=paths, gains=gains, knot_samples=None), 2 * TRIAL_SCHEDULE)

    def _fit(self, system: EchoSystem, schedule: tuple[tuple[float, int], ...]) -> _Candidate:
        return _Candidate(*fit_system(system, self.recording, self.rate_hz, schedule, self.seen))

    def _gain_db(self, without: FloatArray, residual: FloatArray, depth: float = DEEP) -> float:
        """Mean decrease of the residual's level in the frames left out, in dB.

        Over the bins with echo, weighted with its amplitude. depth: DEEP, AUDIBLE or LOUD.
        """
        before, after, echo = (
            # its running sums can end a rounding error below 0 beside loud bins
            uniform_filter(np.abs(self.stft.forward(signal)) ** 2, (1, 5))[self.held_out].clip(0)
            for signal in (without, residual, self.recording - residual)
        )
        floor = depth * before.mean() + 1e-30
        amplitude = np.sqrt(echo) * (echo > HEARD * before)
        decrease_db = 10 * np.log10((before + floor) / (after + floor))
        return float(np.sum(amplitude * decrease_db) / (np.sum(amplitude) + 1e-30))


def _side_by_side(fit: Callable[[str], _Candidate], names: Sequence[str]) -> dict[str, _Candidate]:
    """The transforms that a fit spends its time in run on all cores."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return dict(zip(names, pool.map(fit, names), strict=True))


def _decision(name: str, effect_db: float, what: str, unless: bool = False) -> StageDecision:
    """On a stage of this effect on what its fit did not see; unless another one does better."""
    used = effect_db >= MARGIN_DB and not unless
    compared = "another stage does better" if unless else f"{MARGIN_DB:g} dB are needed"
    return StageDecision(
        name, used, effect_db, f"{what}: {effect_db:+.2f} dB on what it did not see; {compared}"
    )
