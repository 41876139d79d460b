"""Playback whose clock is known at every sample: drift that changes, pauses, loops, late starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal

from unplay.removal.warp import warp
from unplay.virtual.scene import Signal, compose, room_response, talker


@dataclass(frozen=True)
class Playback:
    """The reference as heard from recording time start_s to stop_s, at reference times clock_s(time_s)."""

    start_s: float
    stop_s: float
    clock_s: Callable[[Signal], Signal]


def even(start_s: float, stop_s: float, position_s: float = 0.0, drift_ppm: float = 0.0) -> Playback:
    """Playback on an even clock; reference time `position_s` plays at recording time `start_s`."""
    return Playback(start_s, stop_s, lambda t: position_s + (t - start_s) * (1 + drift_ppm * 1e-6))


def wandering(
    start_s: float, stop_s: float, times_s: Sequence[float], drifts_ppm: Sequence[float]
) -> Playback:
    """Playback from reference time 0 whose drift runs linearly between values at given recording times."""
    fine_s = np.linspace(start_s, stop_s, 20_001)
    drift = np.interp(fine_s, times_s, drifts_ppm) * 1e-6
    ahead = np.concatenate([[0.0], np.cumsum((drift[1:] + drift[:-1]) / 2 * np.diff(fine_s))])
    return Playback(start_s, stop_s, lambda t: t - start_s + np.interp(t, fine_s, ahead))


@dataclass(frozen=True)
class Take:
    """A recording of playbacks under a talker; all signals of shape (n_samples,) at sample_rate_hz."""

    sample_rate_hz: int
    reference: Signal
    recording: Signal
    near_end: Signal
    echo: Signal


def record_long(
    playback: Playback,
    *,
    duration_s: float,
    seed: int = 0,
    sample_rate_hz: int = 8000,
    talker_to_echo_db: float = -6.0,
) -> Take:
    """Minutes of one playback: bursts of coloured noise, band-limited, on any clock (below −120 dB exact)."""
    rng = np.random.default_rng(seed)
    n_samples = round(duration_s * sample_rate_hz)
    beats = np.repeat(rng.uniform(-25, 0, n_samples * 4 // sample_rate_hz + 1), sample_rate_hz // 4)
    noise = rng.standard_normal(n_samples) * 10 ** (beats[:n_samples] / 20)
    reference = scipy.signal.sosfilt(scipy.signal.butter(8, 0.85, output="sos"), noise)
    reference = scipy.signal.lfilter([0.1], [1, -0.9], reference)
    times_s = np.arange(n_samples) / sample_rate_hz
    heard = (times_s >= playback.start_s) & (times_s < playback.stop_s)
    played = warp(reference, playback.clock_s(times_s) * sample_rate_hz) * heard
    echo = scipy.signal.oaconvolve(played, room_response(rng, sample_rate_hz, 0.3))[:n_samples]
    near_end = talker(rng, sample_rate_hz, n_samples)
    near_end *= np.std(echo) / np.std(near_end) * 10 ** (talker_to_echo_db / 20)
    return Take(sample_rate_hz, reference, echo + near_end, near_end, echo)


def record(
    playbacks: Sequence[Playback],
    *,
    reference_s: float,
    duration_s: float,
    seed: int = 0,
    sample_rate_hz: int = 16_000,
    talker_to_echo_db: float = -6.0,
    noise_to_echo_db: float = -50.0,
    reverberation_s: float = 0.3,
) -> Take:
    """Record playbacks of one composed song through one room. Ratios are of powers where both sound."""
    rng = np.random.default_rng(seed)
    song = compose(rng, reference_s, sample_rate_hz)
    reference = song.at(np.arange(round(reference_s * sample_rate_hz)) / sample_rate_hz)
    level = 0.5 / np.max(np.abs(reference))
    n_samples = round(duration_s * sample_rate_hz)
    times_s = np.arange(n_samples) / sample_rate_hz
    played = np.zeros(n_samples)
    for playback in playbacks:
        heard = (times_s >= playback.start_s) & (times_s < playback.stop_s)
        played[heard] += level * song.at(playback.clock_s(times_s[heard]))
    echo = scipy.signal.oaconvolve(played, room_response(rng, sample_rate_hz, reverberation_s))[:n_samples]
    near_end = scipy.signal.oaconvolve(
        talker(rng, sample_rate_hz, n_samples), room_response(rng, sample_rate_hz, reverberation_s)
    )[:n_samples]
    echo_power = np.mean(echo[played != 0] ** 2)
    near_end *= np.sqrt(echo_power / np.mean(near_end**2)) * 10 ** (talker_to_echo_db / 20)
    noise = rng.standard_normal(n_samples) * np.sqrt(echo_power) * 10 ** (noise_to_echo_db / 20)
    return Take(sample_rate_hz, level * reference, echo + near_end + noise, near_end, echo)
