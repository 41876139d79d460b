"""Warp: band-limited interpolation, judged against signals whose value is known everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplay.removal.warp import HALF_WIDTH, warp

ERROR_DB = -120.0
MARGIN = 2 * HALF_WIDTH


def error_db(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.sum((estimate - truth) ** 2) / np.sum(truth**2)))


@settings(deadline=None, max_examples=60)
@given(
    frequency=st.floats(0.0005, 0.45),
    phase=st.floats(0, 2 * np.pi),
    drift_ppm=st.floats(-500, 500),
    offset=st.floats(-20, 20),
)
def test_a_sinusoid_is_interpolated_below_minus_120_db(
    frequency: float, phase: float, drift_ppm: float, offset: float
) -> None:
    # long enough that every fraction occurs; margins keep the ends of x out
    n = np.arange(4000)
    positions = n * (1 + drift_ppm * 1e-6) + offset + 100
    x = np.cos(2 * np.pi * frequency * np.arange(4300) + phase)
    truth = np.cos(2 * np.pi * frequency * positions + phase)
    assert error_db(warp(x, positions), truth) < ERROR_DB


def test_band_limited_noise_is_interpolated_below_minus_120_db() -> None:
    rng = np.random.default_rng(1)
    frequencies = rng.uniform(0, 0.45, 300)
    phases = rng.uniform(0, 2 * np.pi, 300)

    def noise(t: np.ndarray) -> np.ndarray:
        return np.sum(
            [np.cos(2 * np.pi * f * t + p) for f, p in zip(frequencies, phases, strict=True)], axis=0
        )

    positions = np.arange(20_000) * (1 + 123e-6) + 200.3
    assert error_db(warp(noise(np.arange(20_600.0)), positions), noise(positions)) < ERROR_DB


def test_whole_positions_give_the_samples_themselves() -> None:
    x = np.random.default_rng(2).standard_normal(70_000)
    np.testing.assert_allclose(warp(x, np.arange(70_000.0)), x, atol=1e-8)


def test_outside_the_signal_it_is_silent() -> None:
    x = np.ones(500)
    out = warp(x, np.arange(-1000.0, 2000.0))
    # zero but for the rounding of the FFT
    np.testing.assert_allclose(out[: 1000 - HALF_WIDTH - 1], 0, atol=1e-13)
    np.testing.assert_allclose(out[1500 + HALF_WIDTH + 1 :], 0, atol=1e-13)


def test_pieces_equal_the_whole() -> None:
    x = np.random.default_rng(3).standard_normal(90_000)
    positions = np.arange(90_000) * (1 - 300e-6) + 0.4
    whole = warp(x, positions)
    pieces = np.concatenate([warp(x, p) for p in np.array_split(positions, [10, 5_000, 47_001])])
    np.testing.assert_allclose(pieces, whole, atol=1e-9)


def test_positions_may_jump() -> None:
    x = np.random.default_rng(4).standard_normal(10_000)
    ahead, back = np.arange(5000, 6000) + 0.25, np.arange(200, 900) + 0.75
    np.testing.assert_allclose(
        warp(x, np.concatenate([ahead, back])), np.concatenate([warp(x, ahead), warp(x, back)]), atol=1e-9
    )


def test_float32_in_float32_out_and_the_input_is_untouched() -> None:
    x = np.random.default_rng(5).standard_normal(3000).astype(np.float32)
    kept = x.copy()
    out = warp(x, np.arange(2000) + 100.5)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(x, kept)
    # float32 rounding of the result is all that separates it from float64
    assert error_db(out.astype(float), warp(x.astype(float), np.arange(2000) + 100.5)) < -140


def test_nothing_in_nothing_out() -> None:
    assert warp(np.zeros(0), np.arange(5.0)).tolist() == [0.0] * 5
    assert len(warp(np.ones(10), np.zeros(0))) == 0


def test_positions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        warp(np.ones(10), np.array([1.0, np.nan]))
