"""Print how fast matching pursuit, NMF and the network are, and NMF an iteration beside scikit-learn.

    python tests/host/benchmarks/methods_speed.py

Half a minute of music under a talker at 16 kHz, removal alone. The ratio to scikit-learn is of the best of
several runs taken in turns, from the same start on the same spectrogram: multiplicative updates of all of
W and H in either precision. The network, with its filters, after the linear stage; it needs a runtime:
`pip install 'unplay[neural]'`. unplay also works out the cost of every iteration, scikit-learn of none. Ends
with 1 when a target is missed.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import non_negative_factorization

from unplay.removal.neural import suppress
from unplay.removal.nmf import Divergence, Factors, Nmf, factorise
from unplay.removal.pursuit import Pursuit
from unplay.virtual.scene import make_scene

DURATION_S = 30.0


def network(x: np.ndarray, d: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """It takes as long whatever the signals are, as long as something is played."""
    return suppress(d, x, x, sample_rate_hz)


MOST_SECONDS = {
    "pursuit": (Pursuit(), 30.0),
    "pursuit --weighted": (Pursuit(weighted=True), 30.0),
    "nmf": (Nmf(), 15.0),
    "nmf --divergence is": (Nmf("is"), 15.0),
    "network": (network, 0.05 * DURATION_S),
}

N_BINS, N_FRAMES, RANK = 513, 939, 60
"""As of half a minute at 16 kHz in frames of 64 ms, and the default ranks."""

N_ITERATIONS, N_RUNS = 50, 8
PAUSE_S = 0.2
"""Threads of BLAS wait for more work by spinning, for a while after scikit-learn has ended."""


def main() -> None:
    passed = [*methods_are_quick(), *iterations_are_quick("kl"), *iterations_are_quick("is")]
    sys.exit(not all(passed))


def methods_are_quick() -> list[bool]:
    scene = make_scene(3, duration_s=DURATION_S, reference_s=DURATION_S + 10)
    passed = []
    for name, (method, most) in MOST_SECONDS.items():
        seconds = seconds_of(lambda method=method: method(scene.played, scene.recording, 16_000))
        passed.append(seconds <= most)
        print(
            f"{name:22} {seconds:6.1f} s for {DURATION_S:g} s (at most {most:g} s: {verdict(passed[-1])})",
            flush=True,
        )
    return passed


def iterations_are_quick(divergence: Divergence) -> list[bool]:
    passed = []
    for dtype in (np.float64, np.float32):
        spectrogram, start = random_problem(np.dtype(dtype))
        ours, theirs = best_in_turns(
            lambda X=spectrogram, start=start: factorise(X, start, divergence, N_ITERATIONS),
            lambda X=spectrogram, start=start: scikit_learn(X, start, divergence),
        )
        passed.append(ours <= theirs)
        ours_ms, theirs_ms = 1e3 * ours / N_ITERATIONS, 1e3 * theirs / N_ITERATIONS
        print(
            f"{divergence}, {np.dtype(dtype).name}: {ours_ms:.1f} ms an iteration, "
            f"scikit-learn {theirs_ms:.1f} ms, ratio {ours / theirs:.2f} (at most 1: {verdict(passed[-1])})",
            flush=True,
        )
    return passed


def random_problem(dtype: np.dtype[np.floating]) -> tuple[np.ndarray, Factors]:
    rng = np.random.default_rng(0)
    spectrogram = rng.exponential(size=(N_BINS, N_FRAMES)) + 1e-3
    dictionary, activations = rng.uniform(0.1, 1, (N_BINS, RANK)), rng.uniform(0.1, 1, (RANK, N_FRAMES))
    return spectrogram.astype(dtype), Factors(dictionary.astype(dtype), activations.astype(dtype))


def scikit_learn(X: np.ndarray, start: Factors, divergence: Divergence) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        non_negative_factorization(
            X,
            W=start.dictionary.copy(),
            H=start.activations.copy(),
            init="custom",
            solver="mu",
            beta_loss={"kl": "kullback-leibler", "is": "itakura-saito"}[divergence],
            tol=0,
            max_iter=N_ITERATIONS,
        )


def best_in_turns(*runs: Callable[[], object]) -> list[float]:
    """Seconds of each, the best of N_RUNS, so that whatever else the machine does hits all alike."""
    return [
        min(seconds) for seconds in zip(*([seconds_of(r) for r in runs] for _ in range(N_RUNS)), strict=True)
    ]


def seconds_of(run: Callable[[], object]) -> float:
    time.sleep(PAUSE_S)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"


if __name__ == "__main__":
    main()
