"""The scenes that other tests judge by: their truth must be true."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.signal

from unplay.metrics import energy_ratio_db
from unplay.virtual.scene import make_scene

short_scene = partial(make_scene, duration_s=3.0, reference_s=3.0)


def test_parts_add_up() -> None:
    scene = short_scene(3, offset_s=0.5, talker_to_echo_db=-15, talker_to_noise_db=30)
    noise = scene.recording - scene.true_near_end - scene.echo
    assert energy_ratio_db(scene.true_near_end, scene.echo) == pytest.approx(-15)
    assert energy_ratio_db(scene.true_near_end, noise) == pytest.approx(30)
    echo = scipy.signal.oaconvolve(scene.played, scene.echo_path)[: len(scene.echo)]
    np.testing.assert_allclose(echo, scene.echo, atol=1e-12)
    assert np.max(np.abs(scene.recording)) == pytest.approx(0.7)


@pytest.mark.parametrize("offset_s", [0.25, -0.25])
def test_without_drift_the_music_is_only_late(offset_s: float) -> None:
    scene = short_scene(offset_s=offset_s, drift_ppm=0)
    shift = round(offset_s * scene.sample_rate_hz)
    both = slice(max(0, shift), min(0, shift) or None)
    np.testing.assert_allclose(
        scene.played[both], scene.reference[max(0, -shift) :][: len(scene.played[both])], atol=1e-12
    )


@pytest.mark.parametrize("sample_rate_hz", [16_000, 44_100])
def test_drift_is_band_limited_interpolation(sample_rate_hz: int) -> None:
    """Against the trigonometric interpolation of the reference, which is exact for what it can hold."""
    scene = short_scene(sample_rate_hz=sample_rate_hz, offset_s=0.1, drift_ppm=300)
    n_samples = len(scene.reference)
    spectrum = np.fft.rfft(scene.reference)
    harmonics = np.arange(len(spectrum))
    for n in (5000, 20_001, 40_000):
        position = (n - 0.1 * sample_rate_hz) * (1 + 300e-6)
        terms = spectrum * np.exp(2j * np.pi * harmonics * position / n_samples)
        interpolated = (2 * terms.sum().real - terms[0].real) / n_samples
        assert scene.played[n] == pytest.approx(interpolated, abs=1e-6)


def test_a_seed_is_a_scene() -> None:
    np.testing.assert_array_equal(
        short_scene(1, offset_s=0.5).recording, short_scene(1, offset_s=0.5).recording
    )
    assert not np.allclose(short_scene(1, offset_s=0.5).reference, short_scene(2, offset_s=0.5).reference)
