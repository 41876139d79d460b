"""Matching pursuit with shifted copies of short segments of the reference.

The reference is cut by overlapping triangular windows that add up to it, x = Σ_s x_s. The dictionary is
the family of the segments' shifted copies, a_{s,k}(n) = x_s(n − k), for every lag k at which an echo may
arrive. In every step the atom that explains most of the residual r is taken out of it (Mallat & Zhang
1993, eq. 13–16):

    (s, k) = argmax c_s(k)² / E_s,    c_s(k) = ⟨r, a_{s,k}⟩,  E_s = ‖x_s‖²,
    r ← r − (c_s(k)/E_s)·a_{s,k},     c_q(j) ← c_q(j) − (c_s(k)/E_s)·G_{s,q}(k − j).

G_{s,q}(l) = Σ_n x_s(n)·x_q(n + l), the correlation of two segments that meet, comes once from an FFT, so
that no inner product is worked out twice; as in Krstulovic & Gribonval 2006 only what a step changes is
searched again. The taps h_s(k) that add up are an echo path for every segment, the paths fade into each
other: short segments follow a path that changes, long ones reject the near end better.

A segment is done at its *incoherence level*, when no lag at which an echo may arrive stands out any
more: max |c_s(k)| over these is not above max |c_s(k)| over as many earlier lags, at which none can.
What is found there is chance likeness, of the near end and of the music with itself, and nothing else.

Beyond that (`weighted`): inner products ⟨a, b⟩_W = Σ W(t,f)·STFT(a)*·STFT(b) in which the near end's
spectrum, estimated from the residual, is the weight W as in `echo_path`. The near end is then noise of
variance E_s in every c_s(k), and an atom is worth its coefficient where c_s(k)² > 2 E_s (Akaike 1974). W
varies in time, so that G is no correlation any more; the search takes each segment's mean spectrum
instead, and the exact W comes in again by a line search and by the orthogonal step.

The orthogonal step refits all coefficients that were chosen (Pati, Rezaiifar & Krishnaprasad 1993), here
by conjugate gradients once a round and not after every atom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from unplay.errors import BadInputError
from unplay.removal.echo_model import LEAD_S
from unplay.removal.echo_path import NearEndWeights, weights_stft
from unplay.removal.stft import FFT_WORKERS, Stft

FloatArray = NDArray[np.floating]
Weighting = Callable[[FloatArray], FloatArray]

PSD_SMOOTHING = (11, 3)
"""Frames and bins over which the near end's power is averaged: more than for the echo path, since what a
pursuit takes of the near end is not known."""

SEGMENT_S = 6.0
TAIL_S, WEIGHTED_TAIL_S = 0.256, 0.5
"""The incoherence level of the described pursuit stops above what a longer tail would find."""


SHORTEST_SEGMENT_S = 0.1
"""A path from less than this is a fit to the near end, and the correlations between its many neighbours
fill the memory."""
LONGEST_TAIL_S = 2.0

WEIGHTED_FLOORS = (1e-2, 1e-2, 1e-3)
"""Floor of the near end's spectrogram in each weighted round, as in `echo_system.SCHEDULE`."""

AKAIKE = 2.0
"""Twice the log likelihood that a coefficient must gain."""

N_ORTHOGONAL_ITERATIONS = 15

ENERGY_FLOOR = 1e-9
"""Added to a segment's energy, relative to the loudest's: silent segments hold nothing but rounding."""


@dataclass(frozen=True)
class Pursuit:
    """Matching pursuit as a method: takes and returns what the functions of `baselines` do.

    segment_s: length of the triangular windows. tail_s: the last lag; None for TAIL_S, or WEIGHTED_TAIL_S.
    weighted: rounds with the near end's spectrum as weight follow, each with an orthogonal step.
    orthogonal: such a step without them. Raises BadInputError.
    """

    segment_s: float = SEGMENT_S
    tail_s: float | None = None
    weighted: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        if not SHORTEST_SEGMENT_S <= self.segment_s < np.inf:
            raise BadInputError(
                f"The segments are {self.segment_s:g} s long: choose {SHORTEST_SEGMENT_S:g} s or more."
            )
        if not 0 < self.chosen_tail_s <= LONGEST_TAIL_S:
            raise BadInputError(
                f"The tail is {self.chosen_tail_s:g} s long: choose more than 0, and {LONGEST_TAIL_S:g} s "
                "at most."
            )

    @property
    def chosen_tail_s(self) -> float:
        usual_s = WEIGHTED_TAIL_S if self.weighted else TAIL_S
        return usual_s if self.tail_s is None else self.tail_s

    def __call__(self, x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
        level, played_level = _level(d), _level(x)
        if level == 0 or played_level == 0:
            return d.copy()
        dictionary = Dictionary(
            np.asarray(x, np.float64) / played_level,
            half_segment=max(1, round(self.segment_s * sample_rate_hz / 2)),
            n_lead=round(LEAD_S * sample_rate_hz),
            n_tail=max(1, round(self.chosen_tail_s * sample_rate_hz)),
        )
        found = _Found(np.zeros(dictionary.shape), np.asarray(d, np.float64) / level)
        plain_round(dictionary, found, orthogonal=self.orthogonal or self.weighted)
        for floor in WEIGHTED_FLOORS if self.weighted else ():
            weighted_round(dictionary, found, weights_stft(sample_rate_hz), floor)
        return (found.residual * level).astype(d.dtype)


@dataclass
class _Found:
    """taps h (n_segments, n_lags), and what they leave: residual (n_samples,)."""

    taps: FloatArray
    residual: FloatArray


class Dictionary:
    """The shifted segments of a reference (n_samples,), their correlations and their sum.

    Lag index k stands for the lag k + first_lag. The first n_early lags are too early for any echo; as
    many follow, from −n_lead to n_tail.
    """

    def __init__(self, reference: FloatArray, half_segment: int, n_lead: int, n_tail: int) -> None:
        self.reference = reference
        self.n_samples = len(reference)
        self.half = half_segment
        self.n_early = n_lead + n_tail
        self.n_lags = 2 * self.n_early
        self.first_lag = -n_lead - self.n_early
        self.n_segments = -(-self.n_samples // half_segment) + 1
        self.n_fft = 2 * scipy.fft.next_fast_len(half_segment + max(half_segment, self.n_early), real=True)
        self.spectra = _spectra(self.segments(reference), self.n_fft)

    @property
    def shape(self) -> tuple[int, int]:
        """Of taps and correlations."""
        return self.n_segments, self.n_lags

    def segments(self, signal: FloatArray) -> FloatArray:
        """signal (n_samples,) → (n_segments, 2·half); segment s begins at sample (s − 1)·half."""
        window = 1 - np.abs(np.arange(2 * self.half) - self.half) / self.half
        return self._pieces(signal, 0, 2 * self.half) * window

    def correlations(self, signal: FloatArray) -> FloatArray:
        """c_s(k) of a signal (n_samples,), zero outside."""
        pieces = self._pieces(signal, self.first_lag, 2 * self.half + self.n_lags)
        product = np.conj(self.spectra) * _spectra(pieces, self.n_fft)
        return scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)[:, : self.n_lags]

    def echo(self, taps: FloatArray) -> FloatArray:
        """Σ h_s(k)·a_{s,k}, (n_samples,)."""
        product = self.spectra * _spectra(taps, self.n_fft)
        pieces = scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)
        # piece s begins at (s − 1)·half + first_lag, the sum one half earlier still
        total = np.zeros((self.n_segments - 1) * self.half + self.n_fft + self.n_samples)
        for s, piece in enumerate(pieces):
            total[s * self.half : s * self.half + self.n_fft] += piece
        begin = self.half - self.first_lag
        return total[begin : begin + self.n_samples]

    def cross_correlations(self, spectra: NDArray[np.complexfloating]) -> list[FloatArray]:
        """G of segments with these spectra: entry o holds G_{s,s+o}(l), (n_segments − o, 2·n_lags − 1).

        Column l + n_lags − 1 is the lag l between two atoms.
        """
        n_apart = min(self.n_segments - 1, 1 + -(-self.n_lags // self.half))
        found = []
        for apart in range(n_apart + 1):
            product = np.conj(spectra[: self.n_segments - apart]) * spectra[apart:]
            circular = scipy.fft.irfft(product, self.n_fft, workers=FFT_WORKERS)
            lag = np.arange(1 - self.n_lags, self.n_lags) - apart * self.half
            found.append(circular[:, lag % self.n_fft] * (np.abs(lag) < 2 * self.half))
        return found

    def _pieces(self, signal: FloatArray, shift: int, length: int) -> FloatArray:
        """(n_segments, length): piece s begins at sample (s − 1)·half + shift, zeros outside the signal."""
        before = self.half - shift
        after = self.n_segments * self.half + length
        padded = np.concatenate([np.zeros(before), signal, np.zeros(after)])
        return np.lib.stride_tricks.sliding_window_view(padded, length)[:: self.half][: self.n_segments]


def plain_round(dictionary: Dictionary, found: _Found, *, orthogonal: bool) -> None:
    """The pursuit as it was described, from found.residual on."""
    n_early = dictionary.n_early

    def incoherence(correlation: FloatArray, energy: float) -> float:
        return float(np.max(np.abs(correlation[:n_early])))

    correlations = dictionary.correlations(found.residual)
    step = pursue(dictionary, dictionary.spectra, correlations, incoherence)
    _take(dictionary, found, step, _unweighted)
    if orthogonal:
        _refit(dictionary, found, _unweighted, _energies(dictionary.spectra, dictionary.n_fft))


def weighted_round(dictionary: Dictionary, found: _Found, stft: Stft, floor: float) -> None:
    """One more pursuit, weighted with the spectrum of what found.residual says is the near end."""
    weights = NearEndWeights(stft, smoothing=PSD_SMOOTHING).of(found.residual, floor)

    def weighting(signal: FloatArray) -> FloatArray:
        return stft.inverse(weights * stft.forward(signal), dictionary.n_samples)

    def incoherence(correlation: FloatArray, energy: float) -> float:
        return float(np.sqrt(AKAIKE * energy))

    spectra = dictionary.spectra * np.sqrt(_mean_weights(dictionary, stft, weights))
    correlations = dictionary.correlations(weighting(found.residual))[:, dictionary.n_early :]
    step = pursue(dictionary, spectra, correlations, incoherence)
    _take(dictionary, found, step, weighting)
    _refit(dictionary, found, weighting, _energies(spectra, dictionary.n_fft))


def pursue(
    dictionary: Dictionary,
    spectra: NDArray[np.complexfloating],
    correlations: FloatArray,
    incoherence: Callable[[FloatArray, float], float],
) -> FloatArray:
    """Matching pursuit until every segment is at its incoherence level: taps (n_segments, n_lags).

    Or until there have been as many steps as there are atoms.

    spectra: of the segments, whitened if the inner products are weighted. correlations: c_s(k) of the last
    lags, (n_segments, n) with n ≥ dictionary.n_early, updated in place. incoherence: level of |c_s| (n,) at
    a segment's energy E_s.
    """
    n_segments, n_lags = correlations.shape
    first_lag, first_searched = dictionary.n_lags - n_lags, n_lags - dictionary.n_early
    lag_0 = dictionary.n_lags - 1
    between = dictionary.cross_correlations(spectra)
    n_apart = len(between) - 1
    energies = _energies(spectra, dictionary.n_fft)
    taps = np.zeros(dictionary.shape)
    lags, gains = np.zeros(n_segments, int), np.zeros(n_segments)

    def search(s: int) -> None:
        magnitudes = np.abs(correlations[s, first_searched:])
        k = int(np.argmax(magnitudes))
        lags[s] = first_searched + k
        above = magnitudes[k] > incoherence(correlations[s], energies[s])
        gains[s] = magnitudes[k] ** 2 / energies[s] if above else 0.0

    for s in range(n_segments):
        search(s)
    for _ in range(n_segments * dictionary.n_early):
        s = int(np.argmax(gains))
        if gains[s] == 0:
            break
        k = lags[s]
        coefficient = correlations[s, k] / energies[s]
        taps[s, first_lag + k] += coefficient
        for q in range(max(0, s - n_apart), min(n_segments, s + n_apart + 1)):
            # G_{s,q}(k − j) over j; for q < s it is G_{q,s}(j − k)
            row = between[q - s][s, ::-1] if q >= s else between[s - q][q]
            correlations[q] -= coefficient * row[lag_0 - k : lag_0 - k + n_lags]
            search(q)
    return taps


def _take(dictionary: Dictionary, found: _Found, step: FloatArray, weighting: Weighting) -> None:
    """Go along `step` as far as the weighted residual falls.

    Nearly all the way; less where the mean weights of the search were wrong or the recording ends.
    """
    echo = dictionary.echo(step)
    weighted = weighting(echo)
    energy = float(np.dot(echo, weighted))
    length = float(np.dot(weighted, found.residual)) / energy if energy > 0 else 0.0
    found.taps += length * step
    found.residual = found.residual - length * echo


def _refit(dictionary: Dictionary, found: _Found, weighting: Weighting, energies: FloatArray) -> None:
    """The orthogonal step: preconditioned conjugate gradients on the atoms chosen so far."""
    chosen = found.taps != 0
    if not chosen.any():
        return
    gradient = dictionary.correlations(weighting(found.residual)) * chosen
    preconditioned = gradient / energies[:, None]
    direction = preconditioned
    slope = float(np.vdot(gradient, preconditioned))
    for _ in range(N_ORTHOGONAL_ITERATIONS):
        echo = dictionary.echo(direction)
        curved = dictionary.correlations(weighting(echo)) * chosen
        curvature = float(np.vdot(direction, curved))
        if slope <= 0 or curvature <= 0:
            return
        found.taps += slope / curvature * direction
        found.residual = found.residual - slope / curvature * echo
        gradient = gradient - slope / curvature * curved
        preconditioned = gradient / energies[:, None]
        previous, slope = slope, float(np.vdot(gradient, preconditioned))
        direction = preconditioned + slope / previous * direction


def _mean_weights(dictionary: Dictionary, stft: Stft, weights: FloatArray) -> FloatArray:
    """W (n_frames, n_bins) averaged over each segment: (n_segments, n_fft/2 + 1).

    Over the frames within a segment, by its squared window and by the power of the reference there.
    """
    power = np.abs(stft.forward(dictionary.reference)) ** 2
    power += 1e-3 * power.mean(axis=0) + 1e-30
    middle = np.arange(len(weights)) * stft.hop - (stft.n_fft / 2 - stft.hop)
    fine = np.arange(dictionary.n_fft // 2 + 1) * (stft.n_fft / dictionary.n_fft)
    means = np.empty((dictionary.n_segments, len(fine)))
    for s in range(dictionary.n_segments):
        window = np.maximum(0, 1 - np.abs(middle / dictionary.half - s)) ** 2
        share = window[:, None] * power
        mean = np.sum(share * weights, axis=0) / (np.sum(share, axis=0) + 1e-30)
        means[s] = np.interp(fine, np.arange(stft.n_bins), mean)
    return means


def _energies(spectra: NDArray[np.complexfloating], n_fft: int) -> FloatArray:
    """E_s, (n_segments,), kept from 0."""
    power = np.abs(spectra) ** 2
    energies = (2 * np.sum(power, axis=1) - power[:, 0] - power[:, -1]) / n_fft
    return energies + ENERGY_FLOOR * np.max(energies) + 1e-30


def _spectra(pieces: FloatArray, n_fft: int) -> NDArray[np.complexfloating]:
    return scipy.fft.rfft(pieces, n_fft, workers=FFT_WORKERS)


def _unweighted(signal: FloatArray) -> FloatArray:
    return signal


def _level(signal: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
