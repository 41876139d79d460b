"""Drift: its size, its changes, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from scenes import Playback, Take, even, record, record_long, wandering

from unplay.removal.alignment import Alignment, align
from unplay.removal.clock import Stretch
from unplay.removal.drift import refine
from unplay.removal.warp import warp
from unplay.virtual.scene import room_response

RATE_HZ = 8000


def clock_error(alignment: Alignment, playback: Playback, take: Take) -> np.ndarray:
    """Position in the reference minus the truth in samples, without its mean, every quarter of a second."""
    stretch = alignment.stretches[0]
    rate = take.sample_rate_hz
    n = np.arange(stretch.start + rate, stretch.stop - rate, rate // 4, dtype=float)
    error = stretch.position_at(n) - playback.clock_s(n / rate) * rate
    return error - np.median(error)


def test_two_sigma_hold_the_truth() -> None:
    """Forty trials over loud and faint talkers: at least nine in ten lie within two sigma."""
    rng = np.random.default_rng(0)
    normalised = []
    for trial in range(40):
        drift_ppm, duration_s = rng.uniform(-400, 400), rng.choice([6.0, 10.0])
        take = record(
            [even(0, duration_s, 0.2, drift_ppm)],
            reference_s=duration_s + 1,
            duration_s=duration_s,
            seed=trial,
            sample_rate_hz=RATE_HZ,
            talker_to_echo_db=rng.uniform(-12, 10),
            noise_to_echo_db=rng.choice([-50.0, -25.0]),
            reverberation_s=rng.uniform(0.15, 0.5),
        )
        ends = np.array([0.0, len(take.recording)])
        # as far off as a search leaves it
        rate = 1 + (drift_ppm + rng.uniform(-5, 5)) * 1e-6
        start = Stretch(0, len(take.recording), ends, 0.2 * RATE_HZ + ends * rate)
        track = refine(take.reference, take.recording, RATE_HZ, [start])
        normalised.append((track.drift_ppm - drift_ppm) / track.sigma_ppm)
    assert np.mean(np.abs(normalised) < 2) >= 0.9
    # nor is it a bound that says nothing
    assert np.sqrt(np.mean(np.square(normalised))) > 0.3


@pytest.mark.parametrize("drift_ppm", [-500.0, -37.0, 2.0, 500.0])
def test_a_fixed_path(drift_ppm: float) -> None:
    take = record([even(0.5, 16, 0.0, drift_ppm)], reference_s=16, duration_s=16, seed=5)
    alignment = align(take.reference, take.recording, take.sample_rate_hz)
    assert alignment.drift_ppm == pytest.approx(drift_ppm, abs=0.05)


def test_no_drift_is_exactly_zero() -> None:
    for seed in range(3):
        take = record([even(0.5, 8)], reference_s=8, duration_s=8, seed=seed)
        alignment = align(take.reference, take.recording, take.sample_rate_hz)
        assert alignment.drift_ppm == 0.0
        assert np.all(alignment.drift_track[:, 1] == pytest.approx(0.0, abs=1e-6))
        assert alignment.drift_sigma_ppm > 0


def test_drift_can_be_left_alone() -> None:
    take = record([even(0.5, 10, 0.0, 150.0)], reference_s=10, duration_s=10)
    alignment = align(take.reference, take.recording, take.sample_rate_hz, follow_drift=False)
    assert alignment.drift_ppm == 0.0
    assert alignment.stretches[0].drift_ppm == pytest.approx(0.0, abs=1e-6)


def test_while_the_path_moves() -> None:
    """From one room to another within two seconds, with 60 ppm."""
    playback = even(0.5, 16, 0.0, 60.0)
    still = record([playback], reference_s=16, duration_s=16, seed=7, reverberation_s=1e-3)
    rng = np.random.default_rng(8)
    rooms = [room_response(rng, still.sample_rate_hz, 0.3) for _ in range(2)]
    echoes = [scipy.signal.oaconvolve(still.echo, room)[: len(still.echo)] for room in rooms]
    times_s = np.arange(len(still.echo)) / still.sample_rate_hz
    share = np.clip((times_s - 7) / 2, 0, 1)
    recording = (1 - share) * echoes[0] + share * echoes[1] + still.near_end
    alignment = align(still.reference, recording, still.sample_rate_hz)
    assert alignment.drift_ppm == pytest.approx(60.0, abs=1.0)


@pytest.mark.parametrize("seed", [8, 9])
@pytest.mark.parametrize("later_samples", [0.3, 1.0])
def test_a_microphone_that_is_moved_once_is_no_drift(seed: int, later_samples: float) -> None:
    """6 or 21 mm further away, half way through; measured errors are 0.02 to 0.05 ppm, and 1.8 to 6.5 ppm
    where the path is taken to stand still throughout."""
    take = record([even(0.5, 16, 0.0, 60.0)], reference_s=16, duration_s=16, seed=seed)
    n = np.arange(len(take.echo))
    echo = np.where(n < 8 * take.sample_rate_hz, take.echo, warp(take.echo, n - later_samples))
    alignment = align(take.reference, take.recording - take.echo + echo, take.sample_rate_hz)
    assert alignment.drift_ppm == pytest.approx(60.0, abs=0.15)
    assert alignment.drift_ppm == pytest.approx(60.0, abs=2 * alignment.drift_sigma_ppm)
    assert alignment.drift_sigma_ppm < 0.6


def test_a_step_of_30_ppm() -> None:
    playback = wandering(1.0, 300, [0, 150, 150.01, 300], [20, 20, 50, 50])
    take = record_long(playback, duration_s=300, seed=3)
    alignment = align(take.reference, take.recording, RATE_HZ)
    assert len(alignment.stretches) == 1
    times_s, drifts_ppm = alignment.drift_track.T
    np.testing.assert_allclose(drifts_ppm[(times_s > 10) & (times_s < 130)], 20, atol=1)
    np.testing.assert_allclose(drifts_ppm[(times_s > 170) & (times_s < 290)], 50, atol=1)
    # the corner falls between two knots; away from it the clock is right to a fiftieth of a sample
    error = np.abs(clock_error(alignment, playback, take))
    assert error.max() < 0.25
    assert np.quantile(error, 0.9) < 0.02


def test_a_ramp_of_30_ppm() -> None:
    playback = wandering(1.0, 300, [0, 300], [-10, 20])
    take = record_long(playback, duration_s=300, seed=4)
    alignment = align(take.reference, take.recording, RATE_HZ)
    assert len(alignment.stretches) == 1
    times_s, drifts_ppm = alignment.drift_track.T
    np.testing.assert_allclose(drifts_ppm[1:-1], np.interp(times_s[1:-1], [0, 300], [-10, 20]), atol=1)
    assert np.abs(clock_error(alignment, playback, take)).max() < 0.02
