"""What every named method must hold, and how deep each goes where its model is exact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unplay.metrics import echo_reduction_db, energy_ratio_db, si_sdr_db
from unplay.removal.baselines import METHODS, cross_correlation
from unplay.removal.nmf import Nmf
from unplay.removal.pursuit import Pursuit
from unplay.virtual.scene import Scene

SAMPLE_RATE_HZ = 16_000

Signal = NDArray[np.float64]

EVERY_METHOD = METHODS | {
    "pursuit": Pursuit(),
    "pursuit, weighted": Pursuit(segment_s=0.5, tail_s=0.02, weighted=True),
    "nmf": Nmf(n_iterations=5),
    "nmf, is": Nmf("is", n_iterations=5),
}

every_method = pytest.mark.parametrize("method", EVERY_METHOD.values(), ids=EVERY_METHOD.keys())


def noise(n_samples: int, seed: int) -> Signal:
    return np.random.default_rng(seed).standard_normal(n_samples)


def low_passed(x: Signal) -> Signal:
    """Nothing above 0.45 of the sample rate, where a windowed sinc stops being exact."""
    return scipy.signal.sosfiltfilt(scipy.signal.butter(12, 0.7, output="sos"), x)


def room(n_taps: int, seed: int) -> Signal:
    """A decaying response that falls by 60 dB over n_taps."""
    return noise(n_taps, seed) * 10 ** (-3 * np.arange(n_taps) / n_taps)


def delayed_exactly(x: Signal, delay_samples: float, phase: float = 0.0) -> Signal:
    """By the phase of every frequency, circularly; `phase` turns all frequencies alike."""
    turns = np.exp(-2j * np.pi * np.fft.rfftfreq(len(x)) * delay_samples + 1j * phase)
    return np.fft.irfft(np.fft.rfft(x) * turns, len(x))


def quiet_at_both_ends(x: Signal) -> Signal:
    """Silent for 4096 samples at either end, so that no echo is cut off."""
    out = np.zeros_like(x)
    out[4096:-4096] = x[4096:-4096]
    return out


@every_method
@pytest.mark.parametrize("n_samples", [1, 2, 100, 20_000])
def test_silent_reference_leaves_the_recording_unchanged(method, n_samples):
    recording = noise(n_samples, 1)
    np.testing.assert_array_equal(method(np.zeros(n_samples), recording, SAMPLE_RATE_HZ), recording)


@every_method
def test_silent_recording_stays_silent(method):
    near_end = method(noise(20_000, 1), np.zeros(20_000), SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(near_end, 0)


@every_method
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_type_and_length_are_the_recordings_and_inputs_stay_untouched(method, dtype):
    reference, recording = noise(20_000, 1).astype(dtype), noise(20_000, 2).astype(dtype)
    kept = reference.copy(), recording.copy()
    near_end = method(reference, recording, SAMPLE_RATE_HZ)
    assert near_end.dtype == dtype
    assert near_end.shape == recording.shape
    np.testing.assert_array_equal(reference, kept[0])
    np.testing.assert_array_equal(recording, kept[1])


@every_method
@settings(max_examples=10, deadline=None)
@given(gain_db=st.floats(-60, 60), reference_gain_db=st.floats(-60, 60), seed=st.integers(0, 1000))
def test_levels_do_not_matter(method, gain_db, reference_gain_db, seed):
    reference, recording = noise(8_000, seed), noise(8_000, seed + 1)
    gain, reference_gain = 10 ** (gain_db / 20), 10 ** (reference_gain_db / 20)
    expected = gain * method(reference, recording, SAMPLE_RATE_HZ)
    scaled = method(reference_gain * reference, gain * recording, SAMPLE_RATE_HZ)
    # rounding of Levinson's recursion over 4096 taps stays near 1e-9 of the signal
    np.testing.assert_allclose(scaled, expected, atol=1e-7 * gain * np.abs(recording).max())


@every_method
@settings(max_examples=10, deadline=None)
@given(n_samples=st.integers(1, 20_000), level_db=st.floats(-40, 40), seed=st.integers(0, 1000))
def test_output_is_never_louder_than_the_recording(method, n_samples, level_db, seed):
    """Also where the reference isn't in the recording at all, and shorter than any filter."""
    reference = noise(n_samples, seed) * 10 ** (level_db / 20)
    recording = noise(n_samples, seed + 1)
    near_end = method(reference, recording, SAMPLE_RATE_HZ)
    # each is least squares or a mask; the margin is for frames that overlap incoherently
    assert energy_ratio_db(near_end, recording) < 0.1


@every_method
def test_music_in_a_room_under_a_talker_gets_quieter(method, scene: Scene):
    near_end = method(scene.played, scene.recording, scene.sample_rate_hz)
    assert si_sdr_db(scene.true_near_end, near_end) > si_sdr_db(scene.true_near_end, scene.recording)


@pytest.mark.parametrize("delay_samples", [-700, 0, 3, 1500])
@pytest.mark.parametrize("gain", [0.3, -2.0])
def test_subtract_removes_a_whole_delay_of_either_polarity(delay_samples, gain):
    reference = quiet_at_both_ends(noise(30_000, 1))
    recording = gain * np.roll(reference, delay_samples)
    near_end = METHODS["subtract"](reference, recording, SAMPLE_RATE_HZ)
    # an exact model: only rounding is left
    assert echo_reduction_db(recording, near_end) > 200


@settings(max_examples=15, deadline=None)
@given(
    delay_samples=st.floats(-1000, 1000),
    gain=st.sampled_from([-3.0, -0.2, 0.5, 4.0]),
)
def test_match_removes_one_tap_at_a_fraction_of_a_sample(delay_samples, gain):
    reference = low_passed(quiet_at_both_ends(noise(30_000, 3)))
    recording = gain * delayed_exactly(reference, delay_samples)
    near_end = METHODS["match"](reference, recording, SAMPLE_RATE_HZ)
    # 1/128 sample of error leaves −40 dB of a white band to 0.35 of the sample rate
    assert echo_reduction_db(recording, near_end) > 36


def test_match_undoes_a_turned_phase():
    reference = low_passed(quiet_at_both_ends(noise(30_000, 4)))
    recording = delayed_exactly(reference, 40.5, phase=np.pi / 2)
    near_end = METHODS["match"](reference, recording, SAMPLE_RATE_HZ)
    subtracted = METHODS["subtract"](reference, recording, SAMPLE_RATE_HZ)
    assert echo_reduction_db(recording, near_end) > 36
    assert echo_reduction_db(recording, subtracted) < 10


@pytest.mark.parametrize("lead_samples", [0, 300])
def test_fir_removes_a_room_where_nobody_talks(lead_samples):
    reference = quiet_at_both_ends(noise(60_000, 5))
    recording = np.roll(scipy.signal.fftconvolve(reference, room(3000, 6))[:60_000], -lead_samples)
    near_end = METHODS["fir"](reference, recording, SAMPLE_RATE_HZ)
    # an exact model: only the regularisation's 1e-7 (−140 dB) and rounding are left
    assert echo_reduction_db(recording, near_end) > 100


def test_fir_survives_a_reference_without_treble():
    """Music from a telephone's codec: the normal equations are singular but for the regularisation."""
    band = scipy.signal.butter(10, 0.4, output="sos")
    reference = quiet_at_both_ends(noise(60_000, 7))
    reference = scipy.signal.sosfiltfilt(band, scipy.signal.sosfiltfilt(band, reference))
    recording = scipy.signal.fftconvolve(reference, room(3000, 8))[:60_000]
    near_end = METHODS["fir"](reference, recording, SAMPLE_RATE_HZ)
    # the regularisation stands 70 dB below the band's own diagonal
    assert echo_reduction_db(recording, near_end) > 60


def test_fir_goes_deeper_than_one_tap_in_a_room(scene: Scene):
    def gain_db(name: str) -> float:
        near_end = METHODS[name](scene.played, scene.recording, scene.sample_rate_hz)
        return si_sdr_db(scene.true_near_end, near_end) - si_sdr_db(scene.true_near_end, scene.recording)

    gains = {name: gain_db(name) for name in METHODS}
    assert gains["fir"] > gains["spectral"] > gains["match"]


@given(
    n_samples=st.integers(1, 300),
    first_lag=st.integers(-400, 400),
    n_lags=st.integers(1, 200),
)
@settings(max_examples=50, deadline=None)
def test_cross_correlation_is_the_sum_it_says(n_samples, first_lag, n_lags):
    x, d = noise(n_samples, 1), noise(n_samples, 2)
    lags = np.arange(first_lag, first_lag + n_lags)
    expected = [sum(x[n] * d[n + lag] for n in range(n_samples) if 0 <= n + lag < n_samples) for lag in lags]
    got = cross_correlation(x, d, int(lags[0]), int(lags[-1]))
    # rounding of an FFT of 2¹⁴ points over sums of a few hundred products
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_cross_correlation_does_not_depend_on_its_blocks():
    x, d = noise(100_000, 1), noise(100_000, 2)
    whole = np.array([np.dot(x, d), np.dot(x[:-5], d[5:])])
    got = cross_correlation(x, d, 0, 5)  # several blocks of 2¹⁴
    np.testing.assert_allclose(got[[0, 5]], whole, atol=1e-9)
