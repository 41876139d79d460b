"""Echo paths that change: automatic gain, somebody walking by, a loudspeaker or a phone being moved.

Two models. Of low rank: the echo is Σ_r g_r(n) · (h_r ∗ x)(n), a few paths with gain tracks; one path
with a gain is automatic gain control, two paths are any passage from one place to another. Of full rank:
a path of its own at every knot in time and linear interpolation between them, held together by a
random-walk prior. The second is found first (it is linear) and gives the first its start.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import NDArray

from unplay.removal.echo_model import EchoModel
from unplay.removal.echo_path import NearEndWeights, Paths
from unplay.removal.stft import FFT_WORKERS, Stft

FloatArray = NDArray[np.floating]

GAIN_STEP = 0.1
"""Standard deviation of a gain's change from one frame to the next (a gain's mean square is 1)."""

FIRST_CHANGE = 0.02
"""Power of a path's change from one knot to the next that is expected first, relative to the path's."""


class MovingEchoModel(EchoModel):
    """The linear map from the paths at the knots to the echo, and its adjoint.

    reference (n_samples,), already advanced by the lead; taps are (n_knots, n_taps); the path at a sample is
    interpolated linearly between the two knots around it. Blocks of two knots' distance are convolved apart.
    """

    def __init__(self, reference: FloatArray, n_taps: int, hop: int) -> None:
        n_samples = len(reference)
        n_knots = -(-n_samples // hop) + 1
        self.reference, self.hop = reference, hop
        self.inputs, self.gains = reference[None], None
        self.n_inputs, self.n_samples, self.n_taps = n_knots, n_samples, n_taps
        self.n_fft = scipy.fft.next_fast_len(2 * hop + n_taps, real=True)
        padded = np.zeros(n_taps + hop + n_samples + 2 * hop, reference.dtype)
        padded[n_taps + hop : n_taps + hop + n_samples] = reference
        blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop + n_taps)[::hop][:n_knots]
        self.spectra = scipy.fft.rfft(blocks, self.n_fft, workers=FFT_WORKERS)
        self.hat = (1 - np.abs(np.arange(2 * hop) - hop) / hop).astype(reference.dtype)

    def astype(self, dtype: type[np.floating]) -> MovingEchoModel:
        return MovingEchoModel(self.reference.astype(dtype), self.n_taps, self.hop)

    def echo(self, taps: FloatArray) -> FloatArray:
        """taps (n_knots, n_taps) → echo (n_samples,)."""
        product = self.spectra * scipy.fft.rfft(taps, self.n_fft, workers=FFT_WORKERS)
        pieces = scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)
        pieces = pieces[:, self.n_taps : self.n_taps + 2 * self.hop] * self.hat
        out = np.zeros((self.n_inputs + 1, self.hop), pieces.dtype)
        out[:-1] += pieces[:, : self.hop]
        out[1:] += pieces[:, self.hop :]
        return out.reshape(-1)[self.hop : self.hop + self.n_samples]

    def adjoint(self, signal: FloatArray) -> FloatArray:
        """signal (n_samples,) → (n_knots, n_taps)."""
        padded = np.zeros((self.n_inputs + 1) * self.hop, signal.dtype)
        padded[self.hop : self.hop + self.n_samples] = signal
        halves = padded.reshape(-1, self.hop)
        pieces = np.zeros((self.n_inputs, self.n_taps + 2 * self.hop), signal.dtype)
        pieces[:, self.n_taps :] = np.concatenate([halves[:-1], halves[1:]], axis=1) * self.hat
        product = np.conj(self.spectra) * scipy.fft.rfft(pieces, self.n_fft, workers=FFT_WORKERS)
        return scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)[:, : self.n_taps]


def fit_gains(
    model: EchoModel, taps: FloatArray, recording: FloatArray, weights: FloatArray, stft: Stft
) -> NDArray[np.float64]:
    """Gain tracks (n_inputs, n_samples) of the paths' echoes that bring them closest to the recording.

    One gain a frame, by weighted least squares with a random walk as prior (a tridiagonal system),
    linear between the frames' centres. taps (n_inputs, n_taps); weights (n_frames, n_bins).
    """
    echoes = model.echoes(taps)
    signals = np.concatenate([echoes, recording[None].astype(echoes.dtype)])
    n_paths = len(echoes)
    products = np.zeros((len(weights), n_paths, n_paths + 1))
    for frames, spectrogram in stft.forward_in_pieces(signals):
        weighted = spectrogram[:n_paths] * (weights[frames] * (2 / stft.n_fft))
        products[frames] = np.einsum("rtf,stf->trs", np.conj(weighted), spectrogram, optimize=True).real
    gains = _smooth_gains(products[:, :, :n_paths], products[:, :, n_paths], GAIN_STEP**-2)
    centres = np.arange(len(gains)) * stft.hop + stft.hop - stft.n_fft / 2
    at = np.arange(model.n_samples)
    return np.stack([np.interp(at, centres, track) for track in gains.T])


def _smooth_gains(curvature: FloatArray, correlation: FloatArray, stiffness: float) -> NDArray[np.float64]:
    """Minimise Σ_t (gᵀC_t g − 2gᵀb_t) + stiffness·Σ_t |g_t − g_{t−1}|²: (n_frames, n_paths).

    curvature C (n_frames, n_paths, n_paths); correlation b (n_frames, n_paths).
    """
    n_frames, n_paths = correlation.shape
    n = n_frames * n_paths
    banded = np.zeros((n_paths + 1, n))  # lower diagonals
    ends = np.full(n_frames, 2.0)
    ends[[0, -1]] = 1.0
    for i in range(n_paths):
        banded[0, i::n_paths] = curvature[:, i, i] + stiffness * (ends + 1e-6)
        for j in range(i + 1, n_paths):
            banded[j - i, i::n_paths] = curvature[:, i, j]
    banded[n_paths, : n - n_paths] = -stiffness
    solution = scipy.linalg.solveh_banded(banded, correlation.reshape(-1), lower=True)
    return solution.reshape(n_frames, n_paths)


def moving_paths(still: Paths, n_knots: int) -> Paths:
    """A path at every knot, from one that stands still (n_paths = 1)."""
    return Paths(np.repeat(still.taps, n_knots, axis=0), still.power, FIRST_CHANGE * still.power)


def low_rank_start(
    moving: Paths, rank: int, reference: FloatArray, residual: FloatArray, stft: Stft, hop: int
) -> tuple[Paths, FloatArray]:
    """`rank` paths, and their gain tracks (rank, n_samples), nearest to the paths at the knots.

    By singular values, each frequency counted as much as it is heard: by the reference's power over the
    near end's (from the residual of the moving fit). hop: distance of the knots in samples.
    """
    power = np.abs(stft.forward(reference)) ** 2
    heard = np.mean(power * NearEndWeights(stft).of(residual, 1e-2), axis=0)
    n_fft = scipy.fft.next_fast_len(2 * moving.taps.shape[1], real=True)
    bins = np.arange(n_fft // 2 + 1) * (stft.n_fft / n_fft)
    root = np.sqrt(np.interp(bins, np.arange(stft.n_bins), heard))
    shaped = scipy.fft.irfft(scipy.fft.rfft(moving.taps, n_fft) * root, n_fft)
    vectors = np.linalg.svd(shaped, full_matrices=False)[0][:, :rank]
    at = np.arange(len(reference)) / hop
    gains = np.stack([np.interp(at, np.arange(len(vectors)), vector) for vector in vectors.T])
    level = np.sqrt(np.mean(gains**2, axis=1, keepdims=True)) + 1e-30
    paths = Paths(np.linalg.pinv(vectors) @ moving.taps, np.repeat(moving.power, rank, axis=0))
    return paths.scaled(level), gains / level
