"""The post-filter against residual echo."""

from __future__ import annotations

import numpy as np
import pytest

from unplay.metrics import si_sdr_db
from unplay.removal.stft import Stft
from unplay.removal.suppression import (
    ABOVE_CHANCE_DB,
    MASK_FLOOR,
    residual_echo_share,
    suppress_residual_echo,
    wiener_mask,
)
from unplay.virtual.scene import Scene, make_scene

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def talk() -> Scene:
    return make_scene(5, duration_s=10.0, reference_s=10.0, offset_s=0.0, drift_ppm=0.0)


def late_copy(scene: Scene, level_db: float) -> np.ndarray:
    """Echo of another phase, as an unmodelled path leaves it."""
    phase = np.random.default_rng(1).standard_normal(400) * np.exp(-np.arange(400) / 80)
    echo = np.convolve(scene.echo, phase)[: len(scene.echo)]
    return echo * 10 ** (level_db / 20) * np.std(scene.true_near_end) / np.std(echo)


def test_it_stands_aside_where_nothing_is_left(talk: Scene) -> None:
    noise = 1e-3 * np.random.default_rng(2).standard_normal(len(talk.echo))
    residual = talk.true_near_end + noise
    cleaned, above_chance_db = suppress_residual_echo(residual, talk.echo, RATE_HZ)
    assert cleaned is residual
    assert above_chance_db < ABOVE_CHANCE_DB


def test_it_takes_residual_echo_down(talk: Scene) -> None:
    residual = talk.true_near_end + late_copy(talk, -6.0)
    cleaned, above_chance_db = suppress_residual_echo(residual, talk.echo, RATE_HZ)
    assert above_chance_db > ABOVE_CHANCE_DB
    # measured 2.6 dB; a mask of 5 % can't do much more with a residual only 6 dB below the talker
    assert si_sdr_db(talk.true_near_end, cleaned) > si_sdr_db(talk.true_near_end, residual) + 1


def test_silence_stays_silence() -> None:
    silence = np.zeros(RATE_HZ)
    cleaned, _ = suppress_residual_echo(silence, np.random.default_rng(3).standard_normal(RATE_HZ), RATE_HZ)
    np.testing.assert_array_equal(cleaned, silence)


def test_the_mask_lies_between_its_floor_and_one() -> None:
    rng = np.random.default_rng(4)
    spectrogram = Stft(512, 128).forward(rng.standard_normal(8_000))
    mask = wiener_mask(spectrogram, rng.random(spectrogram.shape) * 1e3)
    assert mask.min() >= MASK_FLOOR
    assert mask.max() <= 1


def test_no_noise_no_mask() -> None:
    spectrogram = Stft(512, 128).forward(np.random.default_rng(5).standard_normal(8_000))
    np.testing.assert_allclose(wiener_mask(spectrogram, np.zeros(spectrogram.shape)), 1, atol=1e-6)


def test_the_share_of_echo_is_found_under_steady_noise() -> None:
    rng = np.random.default_rng(6)
    loudness = np.where(np.arange(600) % 60 < 30, 1.0, 0.01)[:, None]
    echo = loudness * rng.chisquare(2, (600, 65))
    residual = 0.1 * echo + 0.001 * rng.chisquare(2, (600, 65))
    share = residual_echo_share(residual, echo)
    # shares are tried in steps of 1.5 dB
    assert np.all((share > 0.07) & (share < 0.14))
