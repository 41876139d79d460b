"""Scores mean what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplay.metrics import echo_reduction_db, energy_ratio_db, si_sdr_db


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
