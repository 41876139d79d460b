"""Semi-supervised non-negative matrix factorisation: a dictionary of the playback, and one of the rest.

A spectrogram X (n_bins, n_frames) is modelled as V = W H with non-negative W (n_bins, rank), the
dictionary, and H (rank, n_frames), the activations. First a dictionary W_p is learnt from the playback
alone. Then the recording is factorised with W = [W_p, W_s], where W_p is held and W_s and all of H are
learnt: W_s becomes what the playback doesn't explain. The near end is the recording times the Wiener
mask W_s H_s / V, with the recording's phase.

The updates minimise

    D(X, W H) + α Σ_k ‖W_k‖₁ ‖H_k‖₁

by majorisation (Févotte & Idier 2011, §4.1 and table 2; the penalty as in Le Roux, Weninger & Hershey 2015):
D is the Kullback-Leibler divergence of magnitudes ("kl") or the Itakura-Saito divergence of powers ("is"),

    D_KL = Σ X log(X/V) − X + V,        D_IS = Σ X/V − log(X/V) − 1,

and with P = X/V, Q = 1 (kl) or P = X/V², Q = 1/V (is), γ = 1 (kl) or ½ (is),

    H ← H ∘ [Wᵀ P / (Wᵀ Q + α Wᵀ 1)]^γ,        W ← W ∘ [P Hᵀ / (Q Hᵀ + α 1 Hᵀ)]^γ.

A column of W is scaled to the sum 1 and its activations by the inverse: neither V nor the penalty moves,
so the cost never rises. (A penalty on H alone would make W's scaling raise it.)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from unplay.errors import BadInputError
from unplay.removal.baselines import magnitude_gain
from unplay.removal.stft import Stft
from unplay.removal.threads import N_THREADS

FloatArray = NDArray[np.floating]
Divergence = Literal["kl", "is"]

FRAME_S = 0.064
"""Frame of the spectrograms, rounded to a power of two of samples."""

FLOOR = 1e-6
"""Added to a spectrogram, relative to its mean, so that digital silence has a logarithm."""

N_PIECES = 2
"""Of the bins, for as many threads at most; the same on any number of cores, so that results are."""

_TINY = 1e-30

_SMALLEST = {"float64": 1e-75, "float32": 1e-14}
"""Of a model's values: P with the least of them still is a number."""


@dataclass
class Factors:
    """dictionary W (n_bins, rank); activations H (rank, n_frames); costs: at the start, then after each
    iteration."""

    dictionary: FloatArray
    activations: FloatArray
    costs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Nmf:
    """Semi-supervised NMF as a method: takes and returns what the functions of `baselines` do.

    divergence: "kl" (of magnitudes) or "is" (of powers). rank_playback, rank_rest: columns of W_p and
    W_s, at least 1. sparsity: α ≥ 0. n_iterations: of the training, and again of the separation.
    learnt: a dictionary W_p (n_bins, rank_playback) for the recording's sample rate, as `learnt_from`
    makes it of a recording of the playback alone; without one W_p is learnt from the reference, with the
    median colour that the room gives it. Raises BadInputError.
    """

    divergence: Divergence = "kl"
    rank_playback: int = 40
    rank_rest: int = 20
    sparsity: float = 0.0
    n_iterations: int = 100
    learnt: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.divergence not in ("kl", "is"):
            raise BadInputError(f"There is no divergence {self.divergence!r}; choose kl or is.")
        for what, value in (
            ("rank of the playback", self.rank_playback),
            ("rank of the rest", self.rank_rest),
            ("number of iterations", self.n_iterations),
        ):
            if value < 1:
                raise BadInputError(f"The {what} is {value}: choose 1 or more.")
        if not 0 <= self.sparsity < np.inf:
            raise BadInputError(f"The sparsity is {self.sparsity:g}: choose 0 or more, as a rule up to 1.")

    def __call__(self, x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
        return self.fitted(x, d, sample_rate_hz)[0]

    def learnt_from(self, playback_only: FloatArray, sample_rate_hz: int) -> Nmf:
        """The same with W_p from a recording (n_samples,) of the playback alone, in the same room."""
        spectrogram = _stft(sample_rate_hz).forward(np.asarray(playback_only, np.float64))
        return replace(self, learnt=self.trained(np.abs(spectrogram).T).dictionary)

    def fitted(
        self, x: FloatArray, d: FloatArray, sample_rate_hz: int
    ) -> tuple[FloatArray, dict[str, list[float]]]:
        """Near end (n_samples,), and the costs per cell of the spectrogram at the start and after each
        iteration: of the training on the reference, unless W_p was learnt before, and of the separation."""
        if not np.any(x) or not np.any(d):
            return d.copy(), {}
        costs = {}
        stft = _stft(sample_rate_hz)
        recording = stft.forward(np.asarray(d, np.float64))
        heard = np.abs(recording)
        dictionary = self.learnt
        if dictionary is None:
            played = np.abs(stft.forward(np.asarray(x, np.float64)))
            training = self.trained((magnitude_gain(played, heard) * played).T)
            dictionary = training.dictionary
            costs["training_costs"] = [cost / heard.size for cost in training.costs]
        factors = self.separated(heard.T, dictionary)
        costs["costs"] = [cost / heard.size for cost in factors.costs]
        playback_mask, _ = masks(factors, dictionary.shape[1])
        removed = stft.inverse(playback_mask.T * recording, len(d))
        return (d - removed).astype(d.dtype), costs

    def trained(self, magnitudes: FloatArray) -> Factors:
        """W_p (n_bins, rank_playback), and H, of the playback's magnitudes (n_bins, n_frames)."""
        spectrogram = self._spectrogram(magnitudes)
        start = _random_start(spectrogram.shape, self.rank_playback, np.random.default_rng(0))
        return self._factorise(spectrogram, start)

    def separated(self, magnitudes: FloatArray, dictionary: FloatArray) -> Factors:
        """[W_p, W_s] and H of the recording's magnitudes (n_bins, n_frames), with W_p = dictionary held."""
        spectrogram = self._spectrogram(magnitudes)
        n_held = dictionary.shape[1]
        start = _random_start(spectrogram.shape, n_held + self.rank_rest, np.random.default_rng(1))
        start.dictionary[:, :n_held] = dictionary
        return self._factorise(spectrogram, start, n_held)

    def _spectrogram(self, magnitudes: FloatArray) -> FloatArray:
        """What is factorised: magnitudes or powers, of mean 1, above 0; in single precision, for speed."""
        spectrogram = magnitudes if self.divergence == "kl" else magnitudes**2
        return (spectrogram / (np.mean(spectrogram) + _TINY) + FLOOR).astype(np.float32, order="C")

    def _factorise(self, spectrogram: FloatArray, start: Factors, n_held: int = 0) -> Factors:
        return factorise(
            spectrogram, start, self.divergence, self.n_iterations, sparsity=self.sparsity, n_held=n_held
        )


def masks(factors: Factors, rank_playback: int) -> tuple[FloatArray, FloatArray]:
    """Wiener masks of the playback, the first columns, and of the rest, (n_bins, n_frames), together 1."""
    W, H = factors.dictionary.astype(np.float64), factors.activations.astype(np.float64)
    playback, rest = W[:, :rank_playback] @ H[:rank_playback], W[:, rank_playback:] @ H[rank_playback:]
    # where both have died out there is nothing to take away
    share = np.divide(playback, playback + rest, out=np.zeros_like(rest), where=playback + rest > 0)
    return share, 1 - share


def factorise(
    spectrogram: FloatArray,
    start: Factors,
    divergence: Divergence,
    n_iterations: int,
    *,
    sparsity: float = 0.0,
    n_held: int = 0,
) -> Factors:
    """Multiplicative updates from `start`, H first, as in the module's description.

    spectrogram X (n_bins, n_frames) ≥ 0, for "is" > 0, in float64 or float32; start in the same. sparsity:
    α ≥ 0. The first n_held columns of the dictionary stay as they are.
    """
    W, H = start.dictionary.copy(), start.activations.copy()
    # threads of BLAS wait for each other by spinning, which on a busy machine takes ten times as long
    with ThreadPoolExecutor(N_THREADS) as pool, _blas().limit(limits=1):
        model = _Model(spectrogram, divergence, sparsity, pool)
        costs = []
        for _ in range(n_iterations):
            costs.append(model.update_activations(W, H))
            if n_held < W.shape[1]:
                model.update_dictionary(W, H, n_held)
                _normalise(W[:, n_held:], H[n_held:])
        costs.append(model.cost(W, H))
    return Factors(W, H, costs)


class _Model:
    """V = W H of a spectrogram X, and what the updates need of it.

    Threads take pieces of the bins from V to their share of the sums, which are added up in order. All in
    the precision of X and in buffers of its own; costs in double precision.
    """

    def __init__(
        self, X: FloatArray, divergence: Divergence, sparsity: float, pool: ThreadPoolExecutor
    ) -> None:
        self.X, self.sparsity, self._pool = X, sparsity, pool
        self._smallest = _SMALLEST[X.dtype.name]
        self.V, self.P, self._scratch = np.empty_like(X), np.empty_like(X), np.empty_like(X)
        self.Q = np.empty_like(X) if divergence == "is" else None
        borders = [len(X) * n // N_PIECES for n in range(N_PIECES + 1)]
        self._pieces = [slice(*piece) for piece in itertools.pairwise(borders)]
        exact = X.astype(np.float64)
        log_X = np.log(np.maximum(exact, _TINY))  # 0 log 0 = 0
        self._of_X = _sum(exact * log_X - exact if divergence == "kl" else -log_X - 1)
        """What X alone adds to the divergence."""

    def update_activations(self, W: FloatArray, H: FloatArray) -> float:
        """H, in place; the cost before that."""

        def shares(bins: slice) -> tuple[float, FloatArray, FloatArray | None]:
            P, Q = self._set(bins, W, H)
            A = W[bins].T
            return self._divergence(bins), A @ P, None if Q is None else A @ Q

        divergences, of_P, of_Q = zip(*self._pool.map(shares, self._pieces), strict=True)
        cost = self._of_X + sum(divergences) + self._of_sums(W, H)
        H *= self._gain(_total(of_P), None if self.Q is None else _total(of_Q), W.sum(axis=0)[:, None])
        return cost

    def update_dictionary(self, W: FloatArray, H: FloatArray, n_held: int) -> None:
        """The columns of W from n_held, in place."""
        B, sums = H[n_held:].T, H[n_held:].sum(axis=1)

        def update(bins: slice) -> None:
            P, Q = self._set(bins, W, H)
            W[bins, n_held:] *= self._gain(P @ B, None if Q is None else Q @ B, sums)

        list(self._pool.map(update, self._pieces))

    def cost(self, W: FloatArray, H: FloatArray) -> float:
        """D(X, V) + α Σ_k ‖W_k‖₁ ‖H_k‖₁."""

        def divergence(bins: slice) -> float:
            self._set(bins, W, H)
            return self._divergence(bins)

        return self._of_X + sum(self._pool.map(divergence, self._pieces)) + self._of_sums(W, H)

    def _of_sums(self, W: FloatArray, H: FloatArray) -> float:
        """What ΣV = Σ_k ‖W_k‖₁ ‖H_k‖₁ adds to the cost: the penalty, and for "kl" a term of its own."""
        sums = np.dot(W.sum(axis=0, dtype=np.float64), H.sum(axis=1, dtype=np.float64))
        return float((self.sparsity + (self.Q is None)) * sums)

    def _set(self, bins: slice, W: FloatArray, H: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """V in these bins; P and Q (None for 1)."""
        X, V, P = self.X[bins], self.V[bins], self.P[bins]
        np.matmul(W[bins], H, out=V)
        # kept from 0, by which it would be divided where both have died out
        np.maximum(V, self._smallest, out=V)
        if self.Q is None:
            return np.divide(X, V, out=P), None
        Q = np.reciprocal(V, out=self.Q[bins])
        np.multiply(X, Q, out=P)
        P *= Q
        return P, Q

    def _divergence(self, bins: slice) -> float:
        """What depends on V in these bins, but for ΣV."""
        X, V, P = self.X[bins], self.V[bins], self.P[bins]
        log_V = np.log(V, out=self._scratch[bins])
        if self.Q is None:
            return -_sum(np.einsum("ij,ij->i", X, log_V))
        return _sum(log_V) + _sum(np.einsum("ij,ij->i", P, V))

    def _gain(self, of_P: FloatArray, of_Q: FloatArray | None, of_1: FloatArray) -> FloatArray:
        """What multiplies a factor, from the products of the other one with P, with Q (None for 1), and 1."""
        if of_Q is None:
            return of_P / ((1 + self.sparsity) * of_1 + _TINY)
        return np.sqrt(of_P / (of_Q + (self.sparsity * of_1 + _TINY)))


def _total(shares: Sequence[FloatArray]) -> FloatArray:
    """Added up in order, so that the sum is the same on any number of threads."""
    total = shares[0]
    for share in shares[1:]:
        total += share
    return total


def _sum(values: FloatArray) -> float:
    return float(np.sum(values, dtype=np.float64))


@functools.cache
def _blas() -> ThreadpoolController:
    """To look for the libraries takes as long as an iteration or two."""
    return ThreadpoolController().select(user_api="blas")


def _normalise(W: FloatArray, H: FloatArray) -> None:
    """Columns of W to the sum 1, in place, with W H unchanged."""
    sums = W.sum(axis=0) + _TINY
    W /= sums
    H *= sums[:, None]


def _stft(sample_rate_hz: int) -> Stft:
    return Stft(1 << round(np.log2(FRAME_S * sample_rate_hz)))


def _random_start(shape: tuple[int, ...], rank: int, rng: np.random.Generator) -> Factors:
    """Uniform positive factors, in float32, of a spectrogram of mean 1 and this shape (n_bins, n_frames)."""
    n_bins, n_frames = shape
    W, H = rng.uniform(0.1, 1.0, (n_bins, rank)), rng.uniform(0.1, 1.0, (rank, n_frames))
    W /= W.sum(axis=0)
    return Factors(W.astype(np.float32), (H * (n_bins / rank)).astype(np.float32))
