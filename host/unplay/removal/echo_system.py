"""Loudspeaker curve, echo paths and gain tracks fitted in turn: the echo's whole way to the microphone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unplay.removal.echo_path import (
    EchoModel,
    Prior,
    advanced,
    decay_precision,
    lead_samples,
    near_end_weights,
    solve_step,
    weights_stft,
)
from unplay.removal.loudspeaker import fit_curve, hinge_basis
from unplay.removal.movement import fit_gains, normalised
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

Refit = Callable[["EchoSystem", FloatArray, FloatArray, Stft], "EchoSystem"]


@dataclass(frozen=True)
class EchoSystem:
    """echo(n) = Σ_r g_r(n) · (h_r ∗ u)(n), u = the reference, or curve · basis.

    reference (n_samples,) and basis (n_functions, n_samples) are advanced by the lead; taps (n_paths,
    n_taps); gains (n_paths, n_samples) or None for one path that stands still.
    """

    reference: FloatArray
    taps: FloatArray
    gains: FloatArray | None = None
    basis: NDArray[np.float32] | None = None
    curve: FloatArray | None = None

    def driven(self) -> FloatArray:
        """What the loudspeaker gives off, (n_samples,)."""
        if self.basis is None or self.curve is None:
            return self.reference
        return np.einsum("k,kn->n", self.curve, self.basis)

    def model(self) -> EchoModel:
        """The linear map from the taps to the echo."""
        inputs = np.repeat(self.driven()[None], len(self.taps), axis=0)
        return EchoModel(inputs, self.taps.shape[1], self.gains)

    def echo(self) -> FloatArray:
        """(n_samples,)."""
        return self.model().echo(self.taps)

    def with_curve(self) -> EchoSystem:
        """The same with a loudspeaker curve that starts as a straight line."""
        basis = hinge_basis(self.reference)
        return replace(self, basis=basis, curve=np.eye(1, len(basis))[0])

    def with_taps(self, n_taps: int) -> EchoSystem:
        """The same with paths of another length."""
        taps = np.zeros((len(self.taps), n_taps))
        n = min(n_taps, self.taps.shape[1])
        taps[:, :n] = self.taps[:, :n]
        return replace(self, taps=taps)

    def with_gain(self) -> EchoSystem:
        """The same with a gain track that starts at 1."""
        return replace(self, gains=np.ones((len(self.taps), len(self.reference))))


def still_system(reference: FloatArray, sample_rate_hz: int, tail_s: float) -> EchoSystem:
    """One path of zeros for a reference (n_samples,) that is aligned but not advanced."""
    lead = lead_samples(sample_rate_hz)
    taps = np.zeros((1, lead + round(tail_s * sample_rate_hz)))
    return EchoSystem(advanced(np.asarray(reference, np.float64), lead), taps)


def fit_system(
    system: EchoSystem,
    recording: FloatArray,
    sample_rate_hz: int,
    schedule: Sequence[tuple[float, float]],
    n_iterations: int,
    trust: FloatArray | None = None,
) -> tuple[EchoSystem, FloatArray]:
    """Refine all that `system` has; returns it and the residual (n_samples,).

    schedule, trust: as in `echo_path.fit_echo_path`. Each step solves for the paths, then for the curve,
    then for the gains, the others held (each a weighted linear least-squares problem).
    """
    stft = weights_stft(sample_rate_hz)
    residual = recording - system.echo()
    for floor, strength in schedule:
        for refit in (_refit_taps(sample_rate_hz, strength, n_iterations), _refit_curve, _refit_gains):
            weights = near_end_weights(stft, residual, floor, trust)
            refitted = refit(system, recording, weights, stft)
            if refitted is not system:
                system, residual = refitted, recording - refitted.echo()
    return system, residual


def _refit_taps(sample_rate_hz: int, strength: float, n_iterations: int) -> Refit:
    def refit(system: EchoSystem, recording: FloatArray, weights: FloatArray, stft: Stft) -> EchoSystem:
        model = system.model()
        residual = recording - model.echo(system.taps)
        prior = Prior(strength * decay_precision(system.taps, sample_rate_hz) + 1e-9)
        step = solve_step(model, stft, weights, residual, system.taps, prior, n_iterations)
        return replace(system, taps=system.taps + step)

    return refit


def _refit_curve(system: EchoSystem, recording: FloatArray, weights: FloatArray, stft: Stft) -> EchoSystem:
    if system.basis is None:
        return system
    curve = fit_curve(system.basis, system.taps, system.gains, recording, weights, stft)
    # the level is the paths' to say: the loudspeaker gives off as much as the reference
    level = np.std(system.reference) / (np.std(np.einsum("k,kn->n", curve, system.basis)) + 1e-30)
    return replace(system, curve=curve * level, taps=system.taps / level)


def _refit_gains(system: EchoSystem, recording: FloatArray, weights: FloatArray, stft: Stft) -> EchoSystem:
    if system.gains is None:
        return system
    taps, gains = normalised(system.taps, fit_gains(system.model(), system.taps, recording, weights, stft))
    return replace(system, taps=taps, gains=gains)
