"""Loudspeaker curve, echo paths and gain tracks fitted in turn: the echo's whole way to the microphone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unplay.removal.echo_model import EchoModel, advanced, lead_samples
from unplay.removal.echo_path import NearEndWeights, Paths, refit, unknown_paths, weights_stft
from unplay.removal.loudspeaker import fit_curve, hinge_basis
from unplay.removal.movement import MovingEchoModel, fit_gains, moving_paths, path_switches

FloatArray = NDArray[np.floating]

TAIL_S = 1.0
"""Length of the echo path after the lead."""

SCHEDULE = ((1e-1, 20), (1e-2, 30), (1e-3, 50), (1e-4, 50), (1e-5, 50))
"""One pair a round: the floor of the near end's power spectrogram relative to its mean in the bin, and the
iterations of conjugate gradients."""


@dataclass(frozen=True)
class EchoSystem:
    """echo(n) = Σ_r g_r(n) · (h_r ∗ u)(n), u = the reference, or curve · basis.

    reference (n_samples,) and basis (n_functions, n_samples) are advanced by the lead; paths: n_paths of
    them; gains (n_paths, n_samples) or None for one path that stands still. If the paths take turns
    (switches), one gain is above 0 at a time. With knot_samples the paths are those at knots so far apart,
    and the path at a sample is interpolated between the two around it.
    """

    reference: FloatArray
    paths: Paths
    gains: FloatArray | None = None
    basis: NDArray[np.float32] | None = None
    curve: FloatArray | None = None
    knot_samples: int | None = None
    switches: bool = False

    def driven(self) -> FloatArray:
        """What the loudspeaker gives off, (n_samples,)."""
        if self.basis is None or self.curve is None:
            return self.reference
        return np.einsum("k,kn->n", self.curve, self.basis)

    def model(self) -> EchoModel:
        """The linear map from the taps to the echo."""
        n_paths, n_taps = self.paths.taps.shape
        if self.knot_samples is not None:
            return MovingEchoModel(self.driven(), n_taps, self.knot_samples)
        return EchoModel(np.repeat(self.driven()[None], n_paths, axis=0), n_taps, self.gains)

    def echo(self) -> FloatArray:
        """(n_samples,)."""
        return self.model().echo(self.paths.taps)

    def with_curve(self) -> EchoSystem:
        """The same with a loudspeaker curve that starts as a straight line."""
        basis = hinge_basis(self.reference)
        return replace(self, basis=basis, curve=np.eye(1, len(basis))[0])

    def with_gain(self) -> EchoSystem:
        """The same with a gain track that starts at 1."""
        return replace(self, gains=np.ones((len(self.paths.taps), len(self.reference))))

    def with_movement(self, knot_samples: int) -> EchoSystem:
        """The same with a path at every knot instead of one that stands still."""
        n_knots = -(-len(self.reference) // knot_samples) + 1
        return replace(self, paths=moving_paths(self.paths, n_knots), knot_samples=knot_samples)


def still_system(
    reference: FloatArray, recording: FloatArray, sample_rate_hz: int, tail_s: float = TAIL_S
) -> EchoSystem:
    """One unknown path for a reference that is aligned with the recording (n_samples,) but not advanced.

    reference (n_samples + n_next,): its n_next ≥ 0 samples of after the recording's end have been heard in
    it already where the path begins before lag 0. A reference that breaks off there is a click, which
    nothing in the recording explains, and the fit makes the loud low notes softer to hush it.
    """
    lead = lead_samples(sample_rate_hz)
    early = advanced(np.asarray(reference, np.float64), lead, len(recording))
    n_taps = lead + round(tail_s * sample_rate_hz)
    return EchoSystem(early, unknown_paths(early, recording, n_taps, sample_rate_hz))


def fit_system(
    system: EchoSystem,
    recording: FloatArray,
    sample_rate_hz: int,
    schedule: Sequence[tuple[float, int]] = SCHEDULE,
    trust: FloatArray | None = None,
) -> tuple[EchoSystem, FloatArray]:
    """Refine all that `system` has; returns it and the residual (n_samples,).

    schedule: floors and iterations as in SCHEDULE. trust (n_frames,) in [0, 1]: a factor on the weights of
    each frame of `weights_stft` (0 where the recording is clipped or held out). Each round fits the paths,
    then the curve, then the gains, the others held (each a weighted linear least-squares problem).
    """
    weights = NearEndWeights(weights_stft(sample_rate_hz), trust)
    residual = recording - system.echo()
    for floor, n_iterations in schedule:
        model = system.model()
        paths = refit(system.paths, model, residual, weights, floor, n_iterations, sample_rate_hz)
        system = replace(system, paths=paths)
        residual = recording - model.echo(paths.taps)
        for refit_other in (_refit_curve, _refit_gains):
            system, residual = refit_other(system, recording, residual, weights, floor)
    return system, residual


def _refit_curve(
    system: EchoSystem, recording: FloatArray, residual: FloatArray, weights: NearEndWeights, floor: float
) -> tuple[EchoSystem, FloatArray]:
    if system.basis is None or system.knot_samples is not None:
        return system, residual
    curve = fit_curve(
        system.basis, system.paths.taps, system.gains, recording, weights.of(residual, floor), weights.stft
    )
    # the level is the paths' to say: the loudspeaker gives off as much as the reference
    level = np.std(system.reference) / (np.std(np.einsum("k,kn->n", curve, system.basis)) + 1e-30)
    refitted = replace(system, curve=curve * level, paths=system.paths.scaled(1 / level))
    return refitted, recording - refitted.echo()


def _refit_gains(
    system: EchoSystem, recording: FloatArray, residual: FloatArray, weights: NearEndWeights, floor: float
) -> tuple[EchoSystem, FloatArray]:
    if system.gains is None:
        return system, residual
    fit = path_switches if system.switches else fit_gains
    gains = fit(system.model(), system.paths.taps, recording, weights.of(residual, floor), weights.stft)
    if not gains.any(axis=1).all():  # a path that is never heard would have no level: the turns stay
        return system, residual
    level = np.sqrt(np.mean(gains**2, axis=1, keepdims=True))
    refitted = replace(system, gains=gains / level, paths=system.paths.scaled(level))
    return refitted, recording - refitted.echo()
