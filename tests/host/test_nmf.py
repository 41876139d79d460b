"""Semi-supervised NMF: the updates, against the theory and scikit-learn; the masks; what it takes out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import non_negative_factorization

from unplay.metrics import si_sdr_db
from unplay.removal.nmf import Divergence, Factors, Nmf, factorise, masks
from unplay.virtual.scene import Scene

BETA_LOSS = {"kl": "kullback-leibler", "is": "itakura-saito"}

both_divergences = pytest.mark.parametrize("divergence", ["kl", "is"])


def positive(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.1, 1.0, shape)


def random_problem(n_bins: int, n_frames: int, rank: int, seed: int) -> tuple[NDArray[np.float64], Factors]:
    """A spectrogram that no small rank fits, and a start; columns of the dictionary sum to 1."""
    spectrogram = np.random.default_rng(seed).exponential(size=(n_bins, n_frames)) + 1e-6
    dictionary = positive((n_bins, rank), seed + 1)
    return spectrogram, Factors(dictionary / dictionary.sum(axis=0), positive((rank, n_frames), seed + 2))


def divergence_of(X: NDArray[np.float64], V: NDArray[np.float64], name: str) -> float:
    """As the definitions have it, term by term."""
    if name == "kl":
        return float(np.sum(X * np.log(X / V) - X + V))
    return float(np.sum(X / V - np.log(X / V) - 1))


@both_divergences
@settings(max_examples=15, deadline=None)
@given(
    sparsity=st.sampled_from([0.0, 0.1, 1.0]),
    n_held=st.integers(0, 3),
    n_frames=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_the_cost_never_rises(
    divergence: Divergence, sparsity: float, n_held: int, n_frames: int, seed: int
) -> None:
    """Also with a part of the dictionary held, and with more columns than frames."""
    X, start = random_problem(20, n_frames, 6, seed)
    costs = np.array(factorise(X, start, divergence, 60, sparsity=sparsity, n_held=n_held).costs)
    assert len(costs) == 61
    # rounding of sums over 600 values
    assert np.all(np.diff(costs) <= 1e-11 * np.abs(costs).max())
    assert costs[-1] < costs[0]


@both_divergences
@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_the_cost_never_rises_in_single_precision(divergence: Divergence, sparsity: float) -> None:
    """As the method runs. 500 iterations, until most are below the rounding, which the sum averages:
    the same to 1e-6 as in double precision (7e-8 measured)."""
    X, start = random_problem(60, 80, 8, 6)
    X = X.astype(np.float32)
    single = Factors(start.dictionary.astype(np.float32), start.activations.astype(np.float32))
    fitted = factorise(X, single, divergence, 500, sparsity=sparsity, n_held=3)
    assert fitted.dictionary.dtype == fitted.activations.dtype == np.float32
    costs = np.array(fitted.costs)
    # of the sums that nearly cancel in the divergence, each near ΣX
    assert np.all(np.diff(costs) <= 1e-7 * np.sum(X))
    double = factorise(X.astype(np.float64), start, divergence, 500, sparsity=sparsity, n_held=3)
    np.testing.assert_allclose(costs, double.costs, rtol=1e-6)


@both_divergences
def test_the_cost_is_what_the_definition_says(divergence: Divergence) -> None:
    X, start = random_problem(20, 30, 5, 1)
    fitted = factorise(X, start, divergence, 7, sparsity=0.3)
    penalty = 0.3 * np.sum(fitted.dictionary.sum(axis=0) * fitted.activations.sum(axis=1))
    expected = divergence_of(X, fitted.dictionary @ fitted.activations, divergence) + penalty
    assert fitted.costs[-1] == pytest.approx(expected, rel=1e-12)


@both_divergences
def test_the_same_as_scikit_learn(divergence: Divergence) -> None:
    """Its solver "mu" from the same start, on the transposed problem since it updates W first.

    Only products W H are compared: scikit-learn leaves the columns at any scale.
    """
    X, start = random_problem(60, 80, 8, 3)
    ours = factorise(X, start, divergence, 50)
    theirs_H, theirs_W, _ = non_negative_factorization(
        X.T,
        W=start.activations.T.copy(),
        H=start.dictionary.T.copy(),
        init="custom",
        solver="mu",
        beta_loss=BETA_LOSS[divergence],
        tol=0,
        max_iter=50,
    )
    np.testing.assert_allclose(ours.dictionary @ ours.activations, (theirs_H @ theirs_W).T, rtol=1e-6)


@pytest.mark.parametrize(("divergence", "sparsity"), [("kl", 0.0), ("is", 0.0), ("is", 0.2)])
def test_the_same_as_scikit_learn_with_a_held_dictionary(divergence: Divergence, sparsity: float) -> None:
    """With columns that sum to 1 the penalty is its L1 penalty on the activations.

    Not so for "kl": there scikit-learn 1.9 adds the penalty to the same denominator in every iteration.
    """
    X, start = random_problem(60, 80, 8, 4)
    # where scikit-learn starts from when the other factor is held
    start.activations[:] = np.sqrt(X.mean() / 8)
    ours = factorise(X, start, divergence, 50, sparsity=sparsity, n_held=8)
    theirs, _, _ = non_negative_factorization(
        X.T,
        H=start.dictionary.T.copy(),
        update_H=False,
        solver="mu",
        beta_loss=BETA_LOSS[divergence],
        alpha_W=sparsity / 60,
        l1_ratio=1.0,
        tol=0,
        max_iter=50,
    )
    np.testing.assert_array_equal(ours.dictionary, start.dictionary)
    np.testing.assert_allclose(ours.activations, theirs.T, rtol=1e-6)


def test_sparsity_only_scales_the_kl_model() -> None:
    """Where every column sums to 1, so does not move a mask: seen in the derivation, true in numbers."""
    X, start = random_problem(30, 40, 5, 5)
    plain = factorise(X, start, "kl", 40)
    sparse = factorise(X, start, "kl", 40, sparsity=0.5)
    np.testing.assert_allclose(
        sparse.dictionary @ sparse.activations, plain.dictionary @ plain.activations / 1.5, rtol=1e-9
    )


@both_divergences
def test_a_factorisable_spectrogram_is_factorised(divergence: Divergence) -> None:
    """Of rank 2, from a random start: the divergence falls by a factor of more than 10⁴."""
    X = positive((25, 2), 7) @ positive((2, 40), 8)
    _, start = random_problem(25, 40, 2, 9)
    costs = factorise(X, start, divergence, 2000).costs
    assert costs[-1] < 1e-4 * costs[0]


def test_zeros_in_the_spectrogram() -> None:
    """Silent frames and bins: the KL model dies out there and stays finite."""
    X, start = random_problem(20, 30, 4, 10)
    X[:, 5:9] = 0
    X[3] = 0
    fitted = factorise(X, start, "kl", 30)
    model = fitted.dictionary @ fitted.activations
    assert np.all(np.isfinite(model))
    assert np.all(np.diff(fitted.costs) <= 1e-9 * fitted.costs[0])
    assert np.all(model[:, 5:9] < 1e-12)


@both_divergences
@pytest.mark.parametrize("n_frames", [1, 3, 50])
def test_masks_add_up_to_one(divergence: Divergence, n_frames: int) -> None:
    """Also with more columns than frames, and over digital silence."""
    method = Nmf(divergence, rank_playback=8, rank_rest=4, n_iterations=20)
    played = positive((40, n_frames), 11)
    heard = played + positive((40, n_frames), 12)
    heard[:, : n_frames // 3] = 0
    playback, rest = masks(method.separated(heard, method.trained(played).dictionary), 8)
    assert playback.shape == heard.shape
    np.testing.assert_allclose(playback + rest, 1, rtol=0, atol=1e-12)
    assert np.all((playback >= 0) & (rest >= 0))


@both_divergences
def test_it_takes_out_music_in_a_room(divergence: Divergence, scene: Scene) -> None:
    """With a dictionary of the reference. 20 iterations gain 12.7 dB (kl) and 13.5 dB (is); half is asked."""
    method = Nmf(divergence, n_iterations=20)
    near_end, figures = method.fitted(scene.played, scene.recording, scene.sample_rate_hz)
    for costs in (figures["training_costs"], figures["costs"]):
        assert len(costs) == 21
        assert np.all(np.diff(costs) <= 1e-6 * costs[0])
    before_db = si_sdr_db(scene.true_near_end, scene.recording)
    assert si_sdr_db(scene.true_near_end, near_end) > before_db + 6


def test_the_playback_recorded_alone_makes_the_dictionary(scene: Scene) -> None:
    """One of a hum takes out next to nothing: measured 13.7 and 0.8 dB."""

    def si_sdr_with_db(playback_only: NDArray[np.floating]) -> float:
        method = Nmf(n_iterations=20).learnt_from(playback_only, scene.sample_rate_hz)
        return si_sdr_db(scene.true_near_end, method(scene.played, scene.recording, scene.sample_rate_hz))

    hum = np.sin(0.05 * np.arange(4 * scene.sample_rate_hz))
    assert si_sdr_with_db(scene.echo) > si_sdr_with_db(hum) + 6
