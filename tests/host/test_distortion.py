"""What a loudspeaker's curve would add: nothing of the reference's own, and most of what one really adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from unplay.removal.baselines import fir
from unplay.removal.distortion import N_CURVES, distortion
from unplay.removal.stft import Stft

RATE_HZ = 16_000
STFT = Stft(512, 256)


@pytest.fixture(scope="module")
def played() -> np.ndarray:
    """Noise of level 1 (n_samples,): of a music's harmonics the path of `fir` takes some for the music."""
    return np.random.default_rng(0).standard_normal(6 * RATE_HZ)


@pytest.mark.parametrize(
    "bent",
    [
        pytest.param(lambda x: np.tanh(0.4 * x) / 0.4, id="limits"),
        pytest.param(lambda x: x + 0.05 * (x**2 - 1), id="lopsided"),
    ],
)
def test_what_a_curve_adds_is_a_mixture_of_both(
    played: np.ndarray, bent: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = np.random.default_rng(1).standard_normal(800) * 0.99 ** np.arange(800)
    echo = np.convolve(bent(played), path)[: len(played)]
    left = fir(played, echo, RATE_HZ)
    curves = STFT.forward(distortion(played, echo - left, RATE_HZ)).transpose(2, 1, 0)
    spectrogram = STFT.forward(left).T
    before = after = 0.0
    for frames, observed in zip(curves, spectrogram, strict=True):
        shares, *_ = np.linalg.lstsq(frames, observed, rcond=None)
        before += np.sum(np.abs(observed) ** 2)
        after += np.sum(np.abs(observed - frames @ shares) ** 2)
    # measured 13.1 dB (limits) and 13.2 dB (lopsided): the rest is what `fir` has taken of it by chance
    assert 10 * np.log10(before / after) > 10


def test_none_resembles_the_reference(played: np.ndarray) -> None:
    # through a path that is one tap the curves are what they were
    for curve in distortion(played, played, RATE_HZ):
        level = np.std(curve) * np.std(played)
        assert abs(np.mean(curve * played)) < 0.02 * level


@pytest.mark.parametrize("n", [0, 1, 100])
def test_silence_adds_nothing(n: int) -> None:
    np.testing.assert_array_equal(distortion(np.zeros(n), np.zeros(n), RATE_HZ), np.zeros((N_CURVES, n)))
