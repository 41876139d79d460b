"""The loudspeaker's curve: what a small or driven loudspeaker does to the reference before the room.

A memoryless curve c, piecewise linear between knots (a first-order spline), is applied to the reference
ahead of the echo path (a Hammerstein model): u(n) = x(n) + Σ_k c_k·φ_k(x(n)), with hinges
φ_k(x) = max(±x − a_k, 0). A hinge at zero lets both half-waves have gains of their own, as the asymmetric
models of small loudspeakers have (Jung & Kim, "Nonlinear acoustic echo cancellation", 2013). Hinges are
applied at four times the sample rate so that the harmonics they make do not alias.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from unplay.removal.echo_model import EchoModel
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

KNOTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Knots of the curve on either side of zero, relative to the reference's largest absolute value."""

OVERSAMPLING = 4
KNOWN_RATIO = 0.5
RIDGE = 1e-6
"""Regularisation of the curve's coefficients relative to each one's own curvature."""


def hinge_basis(reference: FloatArray) -> NDArray[np.float32]:
    """The reference (n_samples,) and its hinges: (n_functions, n_samples), row 0 is the reference."""
    x = np.asarray(reference, np.float32)
    peak = float(np.max(np.abs(x), initial=0.0))
    oversampled = soxr.resample(x, 1, OVERSAMPLING, quality="HQ")
    rows = [x]
    for knot in KNOTS:
        for sign in (1, -1) if knot > 0 else (1,):
            hinge = np.maximum(sign * oversampled - knot * peak, 0)
            row = soxr.resample(hinge, OVERSAMPLING, 1, quality="HQ")
            # what the filter leaves of silence: denormal numbers, which are slow
            row[np.abs(row) < 1e-9 * peak] = 0
            rows.append(_of_length(row, len(x)))
    return np.stack(rows)


def fit_curve(
    basis: NDArray[np.float32],
    taps: FloatArray,
    gains: FloatArray | None,
    recording: FloatArray,
    weights: FloatArray,
    stft: Stft,
) -> NDArray[np.float64]:
    """Coefficients (n_functions,) that bring the basis through the echo paths closest to the recording.

    basis (n_functions, n_samples), advanced by the lead; taps (n_paths, n_taps); gains (n_paths, n_samples)
    or None; weights (n_frames, n_bins) of the squared error. Weighted least squares, linear in the
    coefficients.
    """
    signals = np.concatenate([_echoes(basis, taps, gains), recording[None].astype(np.float32)])
    gram = np.zeros((len(signals), len(signals)))
    root = np.sqrt(weights * _known_bins(basis, stft)).astype(np.float32)
    for frames, spectrogram in stft.forward_in_pieces(signals):
        flat = (spectrogram * root[frames]).reshape(len(signals), -1).view(np.float32)
        # not `@`: the threads of a BLAS wait for each other for seconds on a busy machine
        gram += np.einsum("if,jf->ij", flat, flat)
    curvature, correlation = gram[:-1, :-1], gram[:-1, -1]
    scale = np.sqrt(np.diag(curvature)) + 1e-30
    normal = curvature / scale / scale[:, None] + RIDGE * np.eye(len(scale))
    return np.linalg.solve(normal, correlation / scale) / scale


def _known_bins(basis: NDArray[np.float32], stft: Stft) -> NDArray[np.bool_]:
    """The bins (n_bins,) in which the reference itself is about as loud as any hinge.

    In the others (direct current above all) the echo path is not known from the reference, and an error of
    the path there would look like an error of the curve.
    """
    power = np.zeros((len(basis), stft.n_bins))
    for _, spectrogram in stft.forward_in_pieces(basis):
        power += np.sum(np.abs(spectrogram) ** 2, axis=1)
    return power[0] > KNOWN_RATIO * power[1:].max(axis=0)


def _echoes(basis: NDArray[np.float32], taps: FloatArray, gains: FloatArray | None) -> NDArray[np.float32]:
    """Each function's echo through all the paths, (n_functions, n_samples)."""
    model = EchoModel(basis, taps.shape[1])
    total = np.zeros_like(basis)
    for k, path in enumerate(taps.astype(np.float32)):
        echoes = model.echoes(np.broadcast_to(path, (len(basis), len(path))))
        total += echoes if gains is None else echoes * gains[k].astype(np.float32)
    return total


def _of_length(x: FloatArray, n_samples: int) -> FloatArray:
    out = np.zeros(n_samples, x.dtype)
    n = min(n_samples, len(x))
    out[:n] = x[:n]
    return out
