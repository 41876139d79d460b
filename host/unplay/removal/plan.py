"""The plan: which stages help on this recording, and all of them fitted to it.

What the echo goes through is chosen on a trial (`choosing`); the chosen way is then fitted at the full
sample rate to everything that can be trusted. The recording itself is always a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unplay.removal.choosing import StageDecision, choose
from unplay.removal.echo_model import lead_samples
from unplay.removal.echo_path import Paths, weights_stft
from unplay.removal.echo_system import SCHEDULE, EchoSystem, fit_system, still_system
from unplay.removal.methods import Method, method_named
from unplay.removal.movement import sharpened_gain
from unplay.removal.neural import suppress, why_no_runtime
from unplay.removal.stft import Stft
from unplay.removal.suppression import suppress_residual_echo
from unplay.removal.trust import clipped_samples, trusted_frames

FloatArray = NDArray[np.floating]
Progress = Callable[[str, float], None]

SCHEDULE_GAINS = ((1e-1, 20), (1e-2, 20), (1e-2, 20), (1e-3, 30), (1e-3, 30), (1e-4, 30), (1e-4, 30))
"""For paths with gains, which are fitted in turn and so take more rounds."""

SCHEDULE_CURVE = (*4 * ((1e-1, 20),), *4 * ((1e-2, 20),), *3 * ((1e-3, 30),), *2 * ((1e-4, 30),))
"""For a system with a curve. What a poor curve leaves looks like a near end that nothing needs to explain:
the curve must be nearly right before the floor falls."""

SCHEDULE_MOVING = ((1e-2, 20), (1e-2, 20), (1e-3, 20))
"""For a path that moves, from one that stands still on."""

LEAST_TAKEN_DB, LEAST_TOLD_DB, ABOVE_CHANCE_DB = -6.0, -12.0, 3.0
"""Energy that the neural suppressor must take, over what it leaves: told of the echo as it is, of one no
louder than the residual, and how much more the latter must be than by chance. Of 213 simulated residuals with
a talker that validated its training it then treats 70, which gain 7.9 dB in the mean and lose 0.2 dB at most,
and 36 of 43 without one; without the conditions it would harm talkers by up to 12 dB (neural_gate.py among
the benchmarks). At -10 dB an earlier network would have harmed a talker on a real telephone."""

LEAST_HEARD_DB = -40.0
"""Of what it takes, beside the echo: below, what is left is noise, which is not ours to take."""

HALF_SURE_DB = 1.0
"""Gain on what the fit did not see at which the confidence is one half: chance reaches 0.7."""

KNOT_S = 0.5
"""Time between a moving path's knots."""


@dataclass(frozen=True)
class Removal:
    """near_end (n_samples,) float32; stages: every decision; confidence 0 to 1."""

    near_end: NDArray[np.float32]
    stages: tuple[StageDecision, ...]
    confidence: float


def remove(
    reference: FloatArray,
    recording: FloatArray,
    sample_rate_hz: int,
    *,
    n_past: int = 0,
    method: str | Method = "auto",
    strength: float = 1.0,
    progress: Progress | None = None,
) -> Removal:
    """Take the reference out of one channel of a recording.

    recording (n_samples,). reference (n_past + n_samples + n_next,): on the recording's clock, so that its
    direct sound is heard near lag 0; the first n_past ≥ 0 samples were played before the recording began,
    the last n_next ≥ 0 after it ended. Of these, `lead_samples` count: the echo path may begin before lag 0.
    method: "auto", one of `methods.NAMES`, or a method with settings of its own. strength: 0 (leave the
    recording) to 1.
    """
    d = np.asarray(recording, np.float64)
    x = np.asarray(reference, np.float64)
    if method != "auto":
        named = method_named(method) if isinstance(method, str) else method
        near_end, figures = named.take_out(x[n_past : n_past + len(d)], d, sample_rate_hz)
        stage = StageDecision(named.name, True, _ratio_db(d, near_end), "asked for by name", figures)
        return Removal(_mixed(d, near_end, strength), (stage,), 1.0)
    # the echo path may begin before lag 0: its first samples are needed then
    n_missing = max(0, lead_samples(sample_rate_hz) - n_past)
    x, n_past = np.concatenate([np.zeros(n_missing), x]), n_past + n_missing
    progress = progress or (lambda doing, share: None)
    near_end, stages, confidence = _planned(x, d, n_past, sample_rate_hz, progress)
    return Removal(_mixed(d, near_end, strength), stages, confidence)


def _planned(
    x: FloatArray, d: FloatArray, n_past: int, rate_hz: int, progress: Progress
) -> tuple[FloatArray, tuple[StageDecision, ...], float]:
    """Near end (n_samples,), decisions and confidence."""
    level, played_level = _level(d), _level(x)
    reference, recording = x / played_level, np.concatenate([np.zeros(n_past), d / level])
    damaged = _damaged(recording, n_past, weights_stft(rate_hz))
    progress("choosing what helps", 0.0)
    choice = choose(reference, recording, damaged, rate_hz)
    progress("fitting", 0.4)
    trust = trusted_frames(damaged, weights_stft(rate_hz))
    residual, gain = _fitted(choice.system, reference, recording, rate_hz, trust)
    stages = (*choice.stages, *gain)
    if np.sum(residual[n_past:] ** 2) > np.sum(recording**2):
        louder = StageDecision(
            "fit", False, _ratio_db(recording, residual[n_past:]), "it left more than there was: put aside"
        )
        return d, (*stages, louder), 0.0
    progress("looking for residual echo", 0.9)
    now = slice(n_past, n_past + len(d))
    reference, residual, recording = (signal[now] for signal in (reference, residual, recording))
    echo = recording - residual
    # the network first: its conditions were proven on what the linear stages leave
    governed, network = _with_network(residual, echo, reference, rate_hz)
    near_end, mask = _without_residual_echo(governed, echo, rate_hz)
    progress("done", 1.0)
    confidence = choice.gain_db / (choice.gain_db + HALF_SURE_DB) if choice.gain_db > 0 else 0.0
    return near_end * level, (*stages, network, mask), confidence


def _damaged(recording: FloatArray, n_past: int, stft: Stft) -> NDArray[np.bool_]:
    """Samples that say nothing of the echo: from before the recording began, and clipped ones.

    A recording that is clipped in most of its frames is trusted all the same: it is all there is.
    """
    past = np.arange(len(recording)) < n_past
    damaged = past | clipped_samples(recording)
    mostly_whole = trusted_frames(damaged, stft).sum() > 0.5 * trusted_frames(past, stft).sum()
    return damaged if mostly_whole else past


def _fitted(
    chosen: EchoSystem, reference: FloatArray, recording: FloatArray, rate_hz: int, trust: FloatArray
) -> tuple[FloatArray, tuple[StageDecision, ...]]:
    """Residual (n_samples,) of a system of the chosen kind, fitted from the beginning; and what was decided
    of its gain track, where it has one."""
    system = still_system(reference, recording, rate_hz)
    if chosen.curve is not None:
        system = replace(system.with_curve(), curve=chosen.curve)
    if chosen.gains is not None:
        system = replace(_with_gains(system, chosen.gains), switches=chosen.switches)
    if chosen.knot_samples is not None:
        system, _ = fit_system(system, recording, rate_hz, SCHEDULE[:2], trust)
        moving = system.with_movement(round(KNOT_S * rate_hz))
        return fit_system(moving, recording, rate_hz, SCHEDULE_MOVING, trust)[1], ()
    if chosen.curve is not None:
        schedule = SCHEDULE_CURVE
    else:
        schedule = SCHEDULE if chosen.gains is None else SCHEDULE_GAINS
    system, residual = fit_system(system, recording, rate_hz, schedule, trust)
    if system.gains is None or len(system.gains) > 1:
        return residual, ()
    (echo,) = system.model().echoes(system.paths.taps)
    sharp = sharpened_gain(system.gains[0], echo, recording, rate_hz)
    changed = sharp != system.gains[0]
    sharper = recording - sharp * echo
    effect_db = _ratio_db(residual[changed], sharper[changed])
    reason = f"a gain that changes within a frame, in {changed.mean():.1%} of the time: the effect there"
    return sharper, (StageDecision("fine gain", bool(changed.any()), effect_db, reason),)


def _with_gains(system: EchoSystem, gains: FloatArray) -> EchoSystem:
    """The system with unknown paths for gain tracks (n_paths, n) of another sample rate."""
    n_paths, n = gains.shape
    at = np.arange(len(system.reference)) * (n / len(system.reference))
    tracks = np.stack([np.interp(at, np.arange(n), track) for track in gains])
    taps, power = (np.repeat(array, n_paths, axis=0) for array in (system.paths.taps, system.paths.power))
    return replace(system, paths=Paths(taps, power), gains=tracks)


def _without_residual_echo(
    residual: FloatArray, echo: FloatArray, rate_hz: int
) -> tuple[FloatArray, StageDecision]:
    """The residual without residual echo, where there is any; and the decision."""
    cleaned, share = suppress_residual_echo(residual, echo, rate_hz)
    reason = f"structured NMF: residual echo, beyond chance, in {share:.0%} of the frequencies"
    return cleaned, StageDecision("residual echo", share > 0, _ratio_db(residual, cleaned), reason)


def _with_network(
    residual: FloatArray, echo: FloatArray, reference: FloatArray, rate_hz: int
) -> tuple[FloatArray, StageDecision]:
    """The residual after the neural suppressor, where that takes much, and more than by chance. And the
    decision."""
    missing = why_no_runtime()
    if missing:
        return residual, StageDecision("network", False, 0.0, missing)
    cleaned = suppress(residual, echo, reference, rate_hz)
    taken_db, heard_db = _ratio_db(residual - cleaned, cleaned), _ratio_db(residual - cleaned, echo)
    used = taken_db > LEAST_TAKEN_DB and heard_db > LEAST_HEARD_DB
    reason = (
        f"takes {taken_db:+.1f} dB beside what it leaves, {LEAST_TAKEN_DB:g} dB needed, "
        f"and {heard_db:+.1f} dB beside the echo, {LEAST_HEARD_DB:g} dB needed"
    )
    if used:
        told_db, chance_db = _told_and_by_chance_db(residual, echo, reference, rate_hz)
        used = told_db > max(LEAST_TOLD_DB, chance_db + ABOVE_CHANCE_DB)
        reason += (
            f"; told of an echo no louder than the residual {told_db:+.1f} dB, {LEAST_TOLD_DB:g} dB needed, "
            f"and by chance {chance_db:+.1f} dB, {ABOVE_CHANCE_DB:g} dB more needed"
        )
    return cleaned if used else residual, StageDecision("network", used, _ratio_db(residual, cleaned), reason)


def _told_and_by_chance_db(
    residual: FloatArray, echo: FloatArray, reference: FloatArray, rate_hz: int
) -> tuple[float, float]:
    """What the network takes, over what it leaves, when it is told of the echo and of another time's; either
    no louder than the residual: to be weak beside the echo is not to come from it."""
    echo = echo * min(1.0, _level(residual) / _level(echo))
    half = len(residual) // 2
    told = suppress(residual, echo, reference, rate_hz)
    by_chance = suppress(residual, np.roll(echo, half), np.roll(reference, half), rate_hz)
    return _ratio_db(residual - told, told), _ratio_db(residual - by_chance, by_chance)


def _level(signal: FloatArray) -> float:
    """Root mean square; 1 for silence. Signals of level 1 keep the solvers' single precision in range."""
    return float(np.sqrt(np.mean(signal**2))) or 1.0


def _mixed(recording: FloatArray, near_end: FloatArray, strength: float) -> NDArray[np.float32]:
    """strength 0: the recording; 1: the near end."""
    return (recording + strength * (near_end - recording)).astype(np.float32)


def _ratio_db(before: FloatArray, after: FloatArray) -> float:
    return float(10 * np.log10((np.sum(before**2) + 1e-30) / (np.sum(after**2) + 1e-30)))
