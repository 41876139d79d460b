"""The STFT is a Parseval tight frame: its inverse is its adjoint, and energy is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplay.removal.stft import Stft

frames = st.sampled_from([(64, 32), (64, 16), (256, 32), (48, 24), (1024, None)])
lengths = st.integers(1, 3000)


def two_sided_dot(a: np.ndarray, b: np.ndarray) -> float:
    """Re⟨a, b⟩ over the two-sided spectrum of one-sided ones (even frame length)."""
    products = np.real(np.conj(a) * b)
    return float(2 * products.sum() - products[..., 0].sum() - products[..., -1].sum())


def random_spectrum(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Of real frames: the first and last bins are real."""
    rng = np.random.default_rng(seed)
    spectrum = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    spectrum[..., [0, -1]] = spectrum[..., [0, -1]].real
    return spectrum


@settings(max_examples=40, deadline=None)
@given(frame=frames, n_samples=lengths, seed=st.integers(0, 1000))
def test_inverse_of_forward_is_the_signal(frame, n_samples, seed):
    stft = Stft(*frame)
    x = np.random.default_rng(seed).standard_normal(n_samples)
    # a few dozen roundings, each at most one part in 2⁵²
    np.testing.assert_allclose(stft.inverse(stft.forward(x), n_samples), x, atol=64 * np.finfo(float).eps)


@settings(max_examples=40, deadline=None)
@given(frame=frames, n_samples=lengths, seed=st.integers(0, 1000))
def test_energy_is_kept(frame, n_samples, seed):
    stft = Stft(*frame)
    x = np.random.default_rng(seed).standard_normal(n_samples)
    spectrum = stft.forward(x)
    assert two_sided_dot(spectrum, spectrum) == pytest.approx(stft.n_fft * np.dot(x, x), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(frame=frames, n_samples=lengths, seed=st.integers(0, 1000))
def test_inverse_is_the_adjoint_of_forward(frame, n_samples, seed):
    """⟨Sx, Y⟩ = n_fft·⟨x, S⁻¹Y⟩ for every Y, not only for one that is the transform of a signal."""
    stft = Stft(*frame)
    x = np.random.default_rng(seed).standard_normal(n_samples)
    spectrum = random_spectrum((stft.n_frames(n_samples), stft.n_bins), seed)
    there = two_sided_dot(stft.forward(x), spectrum)
    back = stft.n_fft * np.dot(x, stft.inverse(spectrum, n_samples))
    size = np.linalg.norm(spectrum) * np.linalg.norm(x) * np.sqrt(stft.n_fft)
    assert abs(there - back) < 1e-12 * size


def test_frames_lie_where_the_docstring_says():
    stft = Stft(64, 16)
    click = np.zeros(200)
    click[100] = 1.0
    energy = np.sum(np.abs(stft.forward(click)) ** 2, axis=-1)
    starts = np.arange(len(energy)) * 16 - (64 - 16)
    np.testing.assert_array_equal(energy > 1e-20, (starts < 100) & (starts + 64 > 100))


def test_channels_are_transformed_one_by_one():
    stft = Stft(64)
    x = np.random.default_rng(0).standard_normal((3, 2, 500))
    spectrum = stft.forward(x)
    assert spectrum.shape == (3, 2, stft.n_frames(500), stft.n_bins)
    np.testing.assert_array_equal(spectrum[2, 1], stft.forward(x[2, 1]))
    np.testing.assert_array_equal(stft.inverse(spectrum, 500)[2, 1], stft.inverse(spectrum[2, 1], 500))


def test_single_precision_stays_single_and_inputs_stay_untouched():
    stft = Stft(256)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    kept = x.copy()
    spectrum = stft.forward(x)
    kept_spectrum = spectrum.copy()
    back = stft.inverse(spectrum, 1000)
    assert spectrum.dtype == np.complex64
    assert back.dtype == np.float32
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(spectrum, kept_spectrum)
    np.testing.assert_allclose(back, x, atol=64 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(("n_fft", "hop"), [(63, 21), (64, 0), (64, 48), (64, 64), (64, 24)])
def test_impossible_hops_are_refused_by_their_values(n_fft, hop):
    with pytest.raises(ValueError, match=f"n_fft={n_fft}, hop={hop}: hop must divide"):
        Stft(n_fft, hop)
