"""The weighted least squares of the echo path, and what else the echo goes through."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from unplay.metrics import energy_ratio_db, si_sdr_db
from unplay.removal.baselines import METHODS
from unplay.removal.echo_model import EchoModel, lead_samples
from unplay.removal.echo_path import Paths, weights_stft
from unplay.removal.echo_system import EchoSystem, fit_system, still_system
from unplay.removal.loudspeaker import hinge_basis
from unplay.removal.movement import MovingEchoModel, fit_gains
from unplay.removal.stft import Stft
from unplay.removal.trust import trusted_frames
from unplay.virtual.scene import Scene, make_scene

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def still() -> Scene:
    """Music 10 dB over a talker, on one clock; there is a little silence before it."""
    return make_scene(3, duration_s=7.0, reference_s=7.0, offset_s=0.2, drift_ppm=0.0)


def fitted(
    x: NDArray[np.floating],
    d: NDArray[np.floating],
    tail_s: float = 0.5,
    trust: NDArray[np.floating] | None = None,
) -> tuple[EchoSystem, NDArray[np.floating]]:
    """One still path and the residual (n_samples,)."""
    return fit_system(still_system(x, d, RATE_HZ, tail_s), d, RATE_HZ, trust=trust)


def inner(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.sum(a * b))


@pytest.mark.parametrize("with_gains", [False, True])
def test_the_adjoint_is_the_adjoint(with_gains: bool) -> None:
    rng = np.random.default_rng(0)
    gains = rng.standard_normal((2, 3001)) if with_gains else None
    model = EchoModel(rng.standard_normal((2, 3001)), 257, gains)
    taps, signal = rng.standard_normal((2, 257)), rng.standard_normal(3001)
    assert inner(model.echo(taps), signal) == pytest.approx(inner(taps, model.adjoint(signal)), rel=1e-9)


def test_the_adjoint_of_the_moving_model_is_the_adjoint() -> None:
    rng = np.random.default_rng(1)
    model = MovingEchoModel(rng.standard_normal(5003), 300, 700)
    taps, signal = rng.standard_normal((model.n_inputs, 300)), rng.standard_normal(5003)
    assert inner(model.echo(taps), signal) == pytest.approx(inner(taps, model.adjoint(signal)), rel=1e-9)


def test_a_moving_path_that_stands_still_is_a_still_path() -> None:
    rng = np.random.default_rng(2)
    x, taps = rng.standard_normal(5003), rng.standard_normal((1, 300))
    moving = MovingEchoModel(x, 300, 700)
    same = np.repeat(taps, moving.n_inputs, axis=0)
    np.testing.assert_allclose(moving.echo(same), EchoModel(x[None], 300).echo(taps), atol=1e-10)


def test_a_path_that_begins_before_lag_zero_is_found() -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([np.zeros(800), rng.standard_normal(24_000)])
    lead = lead_samples(RATE_HZ)
    early, late = np.zeros_like(x), np.zeros_like(x)
    early[: len(x) - lead + 10] = x[lead - 10 :]
    late[900:] = x[:-900]
    echo = 0.5 * early + 0.25 * late
    system, residual = fitted(x, echo, tail_s=0.1)
    # single-precision iterations refined in double precision: far below any microphone's noise
    assert energy_ratio_db(echo, residual) > 60
    assert int(np.argmax(np.abs(system.paths.taps[0]))) == 10
    np.testing.assert_allclose(system.echo() + residual, echo, atol=1e-12)


def test_silence_in_the_reference_leaves_the_recording() -> None:
    d = np.random.default_rng(4).standard_normal(16_000)
    np.testing.assert_array_equal(fitted(np.zeros(16_000), d)[1], d)


def test_weighting_beats_plain_least_squares(still: Scene) -> None:
    x, d = still.played, still.recording
    before = (x.copy(), d.copy())
    weighted = si_sdr_db(still.true_near_end, fitted(x, d)[1])
    plain = si_sdr_db(still.true_near_end, METHODS["fir"](x, d, RATE_HZ))
    # measured 19 dB: the talker counts where he talks only; 10 leaves room for other music
    assert weighted > plain + 10
    np.testing.assert_array_equal(before, (x, d))


def test_frames_that_are_not_trusted_do_not_matter(still: Scene) -> None:
    damaged = still.recording.copy()
    damaged[40_000:44_000] = np.random.default_rng(5).standard_normal(4_000)
    stft = weights_stft(RATE_HZ)
    start = np.arange(stft.n_frames(len(damaged))) * stft.hop - stft.hop
    trust = 1.0 - ((start < 44_000) & (start + stft.n_fft > 40_000))
    with_trust = fitted(still.played, damaged, trust=trust)[0].echo()
    other = damaged.copy()
    other[40_000:44_000] *= -3
    again = fitted(still.played, other, trust=trust)[0].echo()
    # the smoothed weights of the frames around see the damage, so "hardly": measured 24 dB
    assert energy_ratio_db(with_trust, with_trust - again) > 15


def test_the_basis_contains_the_reference_and_bends_at_zero() -> None:
    x = np.sin(2 * np.pi * 100 * np.arange(16_000) / RATE_HZ)
    basis = hinge_basis(x)
    np.testing.assert_allclose(basis[0], x, atol=1e-6)
    half_wave = np.maximum(x, 0)
    # soxr's pass band rounds the corner of the half-wave rectified sine: -40 dB of it
    assert energy_ratio_db(half_wave[500:-500], (basis[1] - half_wave)[500:-500]) > 40


def distorted(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """A loudspeaker that gives half a wave less than the other and saturates softly."""
    oversampled = scipy.signal.resample_poly(x / np.max(np.abs(x)), 4, 1)
    curve = np.tanh(1.5 * oversampled) + 0.2 * np.maximum(oversampled, 0)
    return scipy.signal.resample_poly(curve, 1, 4)[: len(x)]


def test_a_loudspeaker_curve_is_found(still: Scene) -> None:
    echo = scipy.signal.oaconvolve(distorted(still.played), still.echo_path)[: len(still.played)]
    echo *= np.std(still.echo) / np.std(echo)
    d = echo + still.true_near_end
    system = still_system(still.played, d, RATE_HZ, 0.5)
    _, straight = fit_system(system, d, RATE_HZ)
    _, curved = fit_system(system.with_curve(), d, RATE_HZ)
    # measured 20 dB
    assert si_sdr_db(still.true_near_end, curved) > si_sdr_db(still.true_near_end, straight) + 10


def test_a_gain_track_is_found() -> None:
    rng = np.random.default_rng(6)
    n = 4 * RATE_HZ
    x = rng.standard_normal((1, n))
    true_gain = 1 + 0.5 * np.sin(2 * np.pi * 0.5 * np.arange(n) / RATE_HZ)
    taps = np.zeros((1, 400))
    taps[0, 50], taps[0, 300] = 1.0, 0.5
    model = EchoModel(x, 400)
    d = true_gain * model.echo(taps) + 0.1 * rng.standard_normal(n)
    stft = weights_stft(RATE_HZ)
    weights = np.full((stft.n_frames(n), stft.n_bins), 1 / 0.1**2)
    gain = fit_gains(model, taps, d, weights, stft)[0]
    # noise of -20 dB under 512 values a frame leaves about 0.5 %; ends are held by one neighbour only
    assert np.max(np.abs(gain - true_gain)[1_000:-1_000]) < 0.05


def test_gains_are_normalised_without_changing_the_echo() -> None:
    rng = np.random.default_rng(7)
    paths = Paths(rng.standard_normal((2, 100)), rng.random((2, 3, 5)))
    gains = 7 * rng.random((2, 4_000)) + 1
    louder = paths.scaled(np.array([[2.0], [0.5]]))
    x = rng.standard_normal(4_000)
    before = EchoSystem(x, paths, gains).echo()
    after = EchoSystem(x, louder, gains / [[2.0], [0.5]]).echo()
    np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_allclose(louder.power, paths.power * np.array([4.0, 0.25])[:, None, None])


def codec_noise(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Noise 25 dB under the signal that comes and goes with it, as a lossy codec's does."""
    rng = np.random.default_rng(8)
    envelope = np.sqrt(scipy.signal.oaconvolve(x**2, np.ones(800) / 800, mode="same").clip(0))
    return 10 ** (-25 / 20) * envelope * rng.standard_normal(len(x))


def test_a_path_that_nothing_asks_for_fades_within_single_precision() -> None:
    """Its power falls with the square of its level, round after round: 1/power would be infinite."""
    paths = Paths(np.ones((2, 64)), np.ones((2, 3, 9)))
    for _ in range(4):
        paths = paths.scaled(np.array([[1.0], [1e-8]]))
    assert np.all(np.isfinite(1 / paths.power.astype(np.float32)))
    np.testing.assert_array_equal(paths.power[0], 1)


def test_a_tail_that_is_too_long_does_no_harm(still: Scene) -> None:
    """Seen where an MP3 was played: 1 s of tail for a room of 0.3 s took 14 dB."""
    played = still.played + codec_noise(still.played)
    d = scipy.signal.oaconvolve(played, still.echo_path)[: len(played)] + still.true_near_end
    fits, long = (
        si_sdr_db(still.true_near_end, fitted(still.played, d, tail_s=tail_s)[1]) for tail_s in (0.3, 1.2)
    )
    assert long > fits - 1.5


def test_frames_that_reach_beyond_the_recording_are_not_trusted() -> None:
    stft = Stft(512)
    damaged = np.zeros(5000, bool)
    damaged[2000] = True
    trusted = trusted_frames(damaged, stft)
    first = np.arange(len(trusted)) * stft.hop - (stft.n_fft - stft.hop)
    whole = (first >= 0) & (first + stft.n_fft <= len(damaged))
    over_damage = (first <= 2000) & (first + stft.n_fft > 2000)
    np.testing.assert_array_equal(trusted, whole & ~over_damage)
    assert not trusted[0]
    assert not trusted[-1]
