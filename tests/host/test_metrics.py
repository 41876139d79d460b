"""Scores mean what their definitions say."""

from __future__ import annotations

import fast_bss_eval.numpy
import mir_eval.separation
import numpy as np
import pystoi
import pytest
import scipy.signal
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from unplay.errors import BadInputError
from unplay.metrics import (
    aecmos,
    echo_reduction_db,
    energy_ratio_db,
    reference_correlation,
    sdr_db,
    si_sdr_db,
    stoi,
    why_no_aecmos,
)
from unplay.virtual.scene import Scene


def noise(seed: int, n_samples: int = 4000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n_samples)


@settings(max_examples=50, deadline=None)
@given(level_db=st.floats(-60, 60), scale_db=st.floats(-60, 60), seed=st.integers(0, 1000))
def test_si_sdr_is_the_ratio_to_what_is_orthogonal_at_any_scale(level_db, scale_db, seed):
    truth, other = noise(seed), noise(seed + 1)
    distortion = other - truth * np.dot(other, truth) / np.dot(truth, truth)
    distortion *= np.linalg.norm(truth) / np.linalg.norm(distortion) * 10 ** (-level_db / 20)
    estimate = (truth + distortion) * 10 ** (scale_db / 20)
    assert si_sdr_db(truth, estimate) == pytest.approx(level_db, abs=1e-6)


def test_si_sdr_does_not_see_polarity():
    truth, estimate = noise(0), noise(0) + 0.1 * noise(1)
    assert si_sdr_db(truth, -estimate) == pytest.approx(si_sdr_db(truth, estimate))


def test_si_sdr_of_the_truth_itself_is_beyond_any_estimate():
    assert si_sdr_db(noise(0), 0.5 * noise(0)) > 250


def test_si_sdr_of_silence_is_a_number():
    silence = np.zeros(100)
    assert np.isfinite(si_sdr_db(noise(0, 100), silence))
    assert np.isfinite(si_sdr_db(silence, noise(0, 100)))
    assert np.isfinite(si_sdr_db(silence, silence))


@settings(max_examples=20, deadline=None)
@given(gain_db=st.floats(-100, 100))
def test_energy_ratio_of_a_scaled_signal_is_the_scale(gain_db):
    x = noise(2)
    assert energy_ratio_db(x * 10 ** (gain_db / 20), x) == pytest.approx(gain_db, abs=1e-9)


def test_energy_ratio_with_silence_is_a_number():
    silence = np.zeros(100)
    assert energy_ratio_db(silence, silence) == 0
    assert energy_ratio_db(noise(0, 100), silence) > 250


def test_echo_reduction_is_positive_when_the_residual_is_quieter():
    x = noise(3)
    assert echo_reduction_db(x, 0.01 * x) == pytest.approx(40)


def test_inputs_stay_untouched():
    truth, estimate = noise(0), noise(1)
    si_sdr_db(truth, estimate)
    energy_ratio_db(truth, estimate)
    np.testing.assert_array_equal(truth, noise(0))
    np.testing.assert_array_equal(estimate, noise(1))


@settings(max_examples=10, deadline=None)
@given(level_db=st.floats(-30, 50), seed=st.integers(0, 1000))
def test_sdrs_agree_with_fast_bss_eval(level_db: float, seed: int) -> None:
    """With coloured signals, filtered, so that the filter of 512 taps has something to do."""
    truth = scipy.signal.lfilter([1.0], [1, -0.8], np.append(noise(seed), np.zeros(40)))
    estimate = np.convolve(truth, noise(seed + 1, 30))[: len(truth)]
    estimate += 10 ** (-level_db / 20) * noise(seed + 2, len(truth))
    theirs_db = float(fast_bss_eval.numpy.sdr(truth[None], estimate[None])[0])
    assert sdr_db(truth, estimate) == pytest.approx(theirs_db, abs=1e-6)
    theirs_db = float(fast_bss_eval.numpy.si_sdr(truth[None], estimate[None])[0])
    assert si_sdr_db(truth, estimate) == pytest.approx(theirs_db, abs=1e-6)


def test_sdrs_of_a_scene_agree_with_fast_bss_eval(scene: Scene) -> None:
    """At 48 kHz, too, where all above 8 kHz is nothing and the equations are nearly singular."""
    cleaned = scene.true_near_end + 0.01 * scene.echo
    for truth, estimate in (
        (scene.true_near_end, scene.recording),
        (scene.true_near_end, cleaned),
        (soxr.resample(scene.true_near_end, 1, 3), soxr.resample(cleaned, 1, 3)),
    ):
        theirs_db = float(fast_bss_eval.numpy.sdr(truth[None], estimate[None])[0])
        assert sdr_db(truth, estimate) == pytest.approx(theirs_db, abs=1e-6)
        theirs_db = float(fast_bss_eval.numpy.si_sdr(truth[None], estimate[None])[0])
        assert si_sdr_db(truth, estimate) == pytest.approx(theirs_db, abs=1e-6)


@pytest.mark.filterwarnings("ignore:mir_eval.separation.bss_eval_sources:FutureWarning")
def test_sdr_agrees_with_mir_eval(scene: Scene) -> None:
    """Its separation module is the reference implementation in Python, and announced to go with 0.9."""
    coloured = scipy.signal.lfilter([1.0], [1, -0.8], np.append(noise(1), np.zeros(40)))
    filtered = np.convolve(coloured, noise(2, 30))[: len(coloured)]
    for truth, estimate in (
        (scene.true_near_end, scene.recording),
        (scene.true_near_end, scene.true_near_end + 0.01 * scene.echo),
        *(
            (coloured, filtered + 10 ** (-level_db / 20) * noise(3, len(coloured)))
            for level_db in (-30, 0, 50)
        ),
    ):
        theirs_db, *_ = mir_eval.separation.bss_eval_sources(truth[None], estimate[None], False)
        assert sdr_db(truth, estimate) == pytest.approx(float(theirs_db[0]), abs=1e-6)


def test_stoi_is_that_of_pystoi(scene: Scene) -> None:
    theirs = pystoi.stoi(scene.true_near_end, scene.recording, scene.sample_rate_hz)
    assert stoi(scene.true_near_end, scene.recording, scene.sample_rate_hz) == pytest.approx(theirs, abs=1e-6)


def test_aecmos_hears_less_echo(scene: Scene) -> None:
    """Where the extra is there; else it says what to install."""
    signals = (scene.played, scene.recording, scene.true_near_end)
    if why_no_aecmos() is not None:
        with pytest.raises(BadInputError, match=r"pip install 'unplay\[bench\]'"):
            aecmos(*signals, scene.sample_rate_hz)
        return
    after = aecmos(*signals, scene.sample_rate_hz)
    before = aecmos(scene.played, scene.recording, scene.recording, scene.sample_rate_hz)
    # two models' worth of doubt about one scene: half an opinion
    assert after.echo > before.echo + 0.5
    assert 1 <= after.degradation <= 5


def test_sdr_forgives_a_filter_and_si_sdr_does_not() -> None:
    truth = noise(1)
    truth[-600:] = 0
    filtered = np.convolve(truth, noise(2, 500))[: len(truth)]
    assert sdr_db(truth, filtered) > 60
    assert si_sdr_db(truth, filtered) < 0


def test_sdr_of_silence_is_a_number() -> None:
    silence = np.zeros(2000)
    for truth, estimate in [(noise(0, 2000), silence), (silence, noise(0, 2000)), (silence, silence)]:
        assert np.isfinite(sdr_db(truth, estimate))


def test_stoi_falls_with_the_music_beside_the_talker(scene: Scene) -> None:
    truth, rate_hz = scene.true_near_end, scene.sample_rate_hz
    assert stoi(truth, truth, rate_hz) == pytest.approx(1.0, abs=1e-6)
    louder, softer = (stoi(truth, truth + gain * scene.echo, rate_hz) for gain in (1.0, 0.1))
    assert louder is not None
    assert softer is not None
    assert louder < softer < 1


def test_stoi_of_next_to_no_speech_is_unknown() -> None:
    assert stoi(noise(1, 3000), noise(2, 3000), 16_000) is None


def test_reference_correlation_is_one_for_a_filtered_reference_and_chance_for_another() -> None:
    reference = noise(1, 40_000)
    reference[-600:] = 0
    echo = np.roll(np.convolve(reference, noise(2, 300))[:40_000], -20)
    assert reference_correlation(reference, echo, n_lead=64) == pytest.approx(1, abs=1e-3)
    # √(512/40000) = 0.113
    assert reference_correlation(reference, noise(3, 40_000)) == pytest.approx(0.113, abs=0.02)
    assert reference_correlation(reference, np.zeros(40_000)) == 0
    mixed = echo / np.std(echo) + noise(3, 40_000)
    assert reference_correlation(reference, mixed, n_lead=64) == pytest.approx(np.sqrt(0.5), abs=0.03)
