"""The post-filter against residual echo."""

from __future__ import annotations

import numpy as np
import pytest

from unplay.metrics import si_sdr_db
from unplay.removal.stft import Stft
from unplay.removal.suppression import (
    residual_echo_share,
    split_power,
    suppress_residual_echo,
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
    cleaned, share = suppress_residual_echo(residual, talk.echo, RATE_HZ)
    assert cleaned is residual
    assert share == 0


def test_a_talker_where_nothing_is_played_is_no_residual_echo(talk: Scene) -> None:
    # the first half without echo: its residual is the talker alone, soft echo or not
    played = np.where(np.arange(len(talk.echo)) < len(talk.echo) // 2, 0.0, talk.echo)
    cleaned, share = suppress_residual_echo(talk.true_near_end, played, RATE_HZ)
    assert cleaned is talk.true_near_end
    assert share == 0


def test_a_talker_who_never_pauses_is_no_residual_echo(talk: Scene) -> None:
    # he talks all the time, at a level that hardly changes: noise in his spectrum
    stft = Stft(1024, 256)
    rng = np.random.default_rng(7)
    noise = stft.forward(rng.standard_normal(len(talk.echo)))
    talker = stft.inverse(
        noise * np.sqrt(np.mean(np.abs(stft.forward(talk.true_near_end)) ** 2, axis=0)), len(talk.echo)
    )
    cleaned, _ = suppress_residual_echo(talker, talk.echo, RATE_HZ)
    # a mask that took the talker for residual echo took 17 dB; 0.2 dB is a chance bin or two
    assert 10 * np.log10(np.sum(talker**2) / np.sum(cleaned**2)) < 0.2


def test_it_takes_residual_echo_down(talk: Scene) -> None:
    residual = talk.true_near_end + late_copy(talk, -6.0)
    cleaned, share = suppress_residual_echo(residual, talk.echo, RATE_HZ)
    assert share > 0.5
    # measured 2.6 dB; a mask of 3 % can't do much more with a residual only 6 dB below the talker
    assert si_sdr_db(talk.true_near_end, cleaned) > si_sdr_db(talk.true_near_end, residual) + 1


def test_residual_echo_alone_is_taken_down_far(talk: Scene) -> None:
    residual = late_copy(talk, -20.0)
    cleaned, share = suppress_residual_echo(residual, talk.echo, RATE_HZ)
    assert share > 0.9
    # the mask's floor is 30 dB; powers far above their mean keep it from all of it (measured below)
    assert 10 * np.log10(np.sum(residual**2) / np.sum(cleaned**2)) > 8


def test_silence_stays_silence() -> None:
    silence = np.zeros(RATE_HZ)
    cleaned, _ = suppress_residual_echo(silence, np.random.default_rng(3).standard_normal(RATE_HZ), RATE_HZ)
    np.testing.assert_array_equal(cleaned, silence)


def test_the_parts_add_up_to_the_power_they_model() -> None:
    """Steady talker, residual echo in bursts: both parts are found, and bins without a share keep none."""
    rng = np.random.default_rng(4)
    echo = np.where(np.arange(400) % 40 < 20, 1.0, 1e-3)[:, None] * rng.chisquare(2, (400, 33))
    talker = np.outer(rng.uniform(0.2, 1.0, 400), rng.uniform(0.5, 1.0, 33))
    share = np.where(np.arange(33) < 20, 1.0, 0.0)
    power = (talker + 4.0 * share * echo) * rng.exponential(1.0, (400, 33))
    near_end, residual_echo = split_power(power, echo, share)
    assert near_end.min() > 0
    np.testing.assert_array_equal(residual_echo[:, 20:], 0)
    # a power is known to about √(2/400) in each bin; the largest of twenty errors is two to four times that
    scale = power.mean()
    np.testing.assert_allclose(residual_echo.mean(0)[:20] * scale, (4.0 * echo).mean(0)[:20], rtol=0.3)
    np.testing.assert_allclose(near_end.mean() * scale, talker.mean(), rtol=0.2)


def test_digital_silence_is_no_obstacle() -> None:
    rng = np.random.default_rng(5)
    power = rng.chisquare(2, (100, 17))
    power[40:60] = 0
    near_end, residual_echo = split_power(power, np.zeros((100, 17)), np.ones(17))
    assert np.all(np.isfinite(near_end))
    assert np.all(near_end > 0)
    np.testing.assert_array_equal(residual_echo, 0)


def test_the_share_of_echo_is_found_under_steady_noise() -> None:
    rng = np.random.default_rng(6)
    loudness = np.where(np.arange(600) % 60 < 30, 1.0, 0.01)[:, None]
    echo = loudness * rng.chisquare(2, (600, 65))
    residual = 0.1 * echo + 0.001 * rng.chisquare(2, (600, 65))
    share = residual_echo_share(residual, echo)
    # shares are tried in steps of 3 dB
    assert np.all((share > 0.06) & (share < 0.16))
