"""The Kalman filters over the frames of a bin: what they follow, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from unplay.metrics import energy_ratio_db
from unplay.removal.baselines import fir
from unplay.removal.frame_filters import FrameFilters
from unplay.removal.neural import with_distortion
from unplay.removal.stft import Stft
from unplay.virtual.scene import make_scene

RATE_HZ = 16_000
STFT = Stft(512)
SCENE = make_scene(3, duration_s=8.0, reference_s=8.0, offset_s=0.0, drift_ppm=0.0)


def left_by_filters(
    residual: np.ndarray, echo: np.ndarray, reference: np.ndarray, curves: float = 1.0
) -> np.ndarray:
    """What either filter leaves of a residual (n_samples,): (2, n_samples). curves 0: it knows of none."""
    signals = with_distortion(residual, echo, reference)
    signals[3:] *= curves
    spectra = STFT.forward(signals).astype(np.complex64)
    filters = FrameFilters(1, STFT.n_bins)
    frames = [filters.step(frame[:, None])[:, 0] for frame in spectra.swapaxes(0, 1)]
    return STFT.inverse(np.stack(frames, axis=1), len(residual))


@pytest.fixture(scope="module")
def signals() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Talker 12 dB below, echo and reference of level 1: (n_samples,) each."""
    talker = SCENE.true_near_end / np.std(SCENE.true_near_end) * 10 ** (-12 / 20)
    return talker, SCENE.echo / np.std(SCENE.echo), SCENE.played / np.std(SCENE.played)


def test_an_error_of_the_estimate_is_followed(signals: tuple[np.ndarray, ...]) -> None:
    """The path swings in strength by a fifth and in time by half a sample, as a fixed one cannot."""
    talker, echo, reference = signals
    swing = np.sin(2 * np.pi * np.arange(len(echo)) / (3 * RATE_HZ))
    missed = 0.2 * swing * echo + 0.5 * swing * np.gradient(echo)
    second = slice(2 * RATE_HZ, None)  # they begin knowing nothing
    for left in left_by_filters(talker + missed, echo, reference):
        # measured 8.9 dB (cautious) and 9.3 dB (quick)
        assert energy_ratio_db(missed[second], (left - talker)[second]) > 5


@pytest.mark.parametrize(
    ("bent", "least_db"),
    [
        # measured 2.4 dB (cautious) and 4.1 dB (quick), without the curves 0.8 and 2.4 dB
        pytest.param(lambda x: np.tanh(0.5 * x) / 0.5, 0.8, id="limits"),
        # measured 7.6 and 7.2 dB, without the curves 1.1 and 2.2 dB
        pytest.param(lambda x: x + 0.1 * (x**2 - 1), 2.5, id="lopsided"),
    ],
)
def test_a_loudspeakers_curve_is_followed(
    signals: tuple[np.ndarray, ...], bent: Callable[[np.ndarray], np.ndarray], least_db: float
) -> None:
    talker, _, reference = signals
    echo = np.convolve(bent(reference), SCENE.echo_path)[: len(reference)]
    echo /= np.std(echo)
    left = fir(reference, echo, RATE_HZ)
    second = slice(2 * RATE_HZ, None)
    known, unknown = (left_by_filters(talker + left, echo - left, reference, share) for share in (1, 0))
    for with_curves, without in zip(known, unknown, strict=True):
        # half of the lesser gain that was measured
        assert energy_ratio_db((without - talker)[second], (with_curves - talker)[second]) > least_db


def test_a_talker_stays_where_the_estimate_is_right(signals: tuple[np.ndarray, ...]) -> None:
    talker, echo, reference = signals
    cautious, quick = left_by_filters(talker, echo, reference)
    # measured 16.2 and 12.4 dB: what is found by chance, and the cautious filter finds less
    assert energy_ratio_db(talker, cautious - talker) > 14
    assert energy_ratio_db(talker, cautious - talker) > energy_ratio_db(talker, quick - talker) > 9


def test_where_nothing_plays_nothing_changes(signals: tuple[np.ndarray, ...]) -> None:
    talker, echo, _ = signals
    for left in left_by_filters(talker, 0 * echo, 0 * echo):
        np.testing.assert_allclose(left, talker, atol=1e-5)


def test_streams_beside_each_other_do_not_meet(signals: tuple[np.ndarray, ...]) -> None:
    talker, echo, reference = signals
    pieces = with_distortion(talker + echo, echo, reference)[:, :RATE_HZ]
    spectra = STFT.forward(pieces).astype(np.complex64)
    alone, beside = FrameFilters(1, STFT.n_bins), FrameFilters(2, STFT.n_bins)
    for frame in spectra.swapaxes(0, 1):
        expected = alone.step(frame[:, None])[:, 0]
        both = beside.step(np.stack([frame[:, ::-1], frame], axis=1))
        np.testing.assert_allclose(both[:, 1], expected, rtol=1e-4, atol=1e-4)
