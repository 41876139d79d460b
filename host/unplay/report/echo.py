"""What the page says about the echo itself: the path it took, and what was taken along with it.

Both are measured on the sounds, not on the model that removed them, so they mean the same for every method:
the path is the one filter that makes what was removed out of what was played.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

LEAD_S = 0.01
TAIL_S = 0.4
"""From how long before the direct sound until how long after it."""

LOADING = 1e-6
"""Of the reference's power: where it plays nothing, nothing can be said of the path."""

NEAR_END_TAPS = 64
"""Of the filter by which the near end explains what was taken along: a gain that differs by frequency."""

HEARD_DB = 60.0
"""The response is shown where the reference plays within this of its loudest band."""

BANDS_PER_OCTAVE = 12
LOWEST_HZ = 40.0

DECAY_DB = (-5.0, -25.0)
"""Where the slope of the decay is read, as ISO 3382 does for T20."""

STRAIGHT = 0.98
"""Correlation of a decay with a straight line from which on it has a slope."""

_TINY = 1e-30


@dataclass(frozen=True)
class EchoPath:
    """The average path from reference to microphone.

    taps (n_taps,): the first is lead_s before the direct sound. decay_db (n_taps − lead,): energy that is yet
    to come, from the direct sound on. bands_hz, response_db (n_bands,): power of the response where the
    reference tells. reverberation_s: 60 dB at the slope of the decay; None without one. explained: the
    share of what was removed that this one path makes, 0 to 1. taken_along_db: how far below the near end
    lies what was removed of it, at most; chance_db: what chance alone would say.
    """

    sample_rate_hz: int
    lead_s: float
    taps: FloatArray
    decay_db: FloatArray
    bands_hz: FloatArray
    response_db: FloatArray
    reverberation_s: float | None
    explained: float
    taken_along_db: float
    chance_db: float


def measure(
    played: FloatArray, removed: FloatArray, near_end: FloatArray, sample_rate_hz: int
) -> EchoPath | None:
    """The echo path from signals (n_samples,): the reference on the recording's clock, what was removed, what
    is left. None where there is nothing to measure on."""
    n_lead, n_tail = round(LEAD_S * sample_rate_hz), round(TAIL_S * sample_rate_hz)
    if len(removed) < 4 * n_tail or not played.any() or not removed.any() or not near_end.any():
        return None
    ahead = np.append(played[n_lead:], np.zeros(n_lead))
    taps, explained = _filtered(ahead, removed, n_lead + n_tail, LOADING)
    unexplained = removed - explained
    _, taken_along = _filtered(near_end, unexplained, NEAR_END_TAPS, LOADING)
    chance = _energy(unexplained) * NEAR_END_TAPS / len(removed)
    decay_db = _decay_db(taps[n_lead:])
    bands_hz, response_db = _response(taps, played, sample_rate_hz)
    return EchoPath(
        sample_rate_hz,
        LEAD_S,
        taps,
        decay_db,
        bands_hz,
        response_db,
        _reverberation_s(decay_db, sample_rate_hz),
        1 - min(1.0, _energy(unexplained) / _energy(removed)),
        _db(_energy(taken_along) / _energy(near_end)),
        _db(chance / _energy(near_end)),
    )


def of_taps(taps: FloatArray, sample_rate_hz: int) -> EchoPath:
    """A path that is known (n_taps,), from LEAD_S before the direct sound on: all of it explained."""
    decay_db = _decay_db(taps[round(LEAD_S * sample_rate_hz) :])
    bands_hz, response_db = _response(taps, np.append(1.0, np.zeros(len(taps) - 1)), sample_rate_hz)
    reverberation_s = _reverberation_s(decay_db, sample_rate_hz)
    unknown = float("nan")
    return EchoPath(
        sample_rate_hz, LEAD_S, taps, decay_db, bands_hz, response_db, reverberation_s, 1.0, unknown, unknown
    )


def _filtered(
    source: FloatArray, signal: FloatArray, n_taps: int, loading: float
) -> tuple[FloatArray, FloatArray]:
    """The filter (n_taps,) that makes most of a signal out of the source; what it makes (n_samples,)."""
    n_samples = len(signal)
    n_fft = scipy.fft.next_fast_len(n_samples + n_taps, real=True)
    spectrum, heard = (scipy.fft.rfft(np.asarray(x, np.float64), n_fft) for x in (source, signal))
    autocorrelation = scipy.fft.irfft(np.abs(spectrum) ** 2, n_fft)[:n_taps]
    autocorrelation[0] *= 1 + loading
    correlation = scipy.fft.irfft(np.conj(spectrum) * heard, n_fft)[:n_taps]
    taps = scipy.linalg.solve_toeplitz(autocorrelation, correlation)
    return taps, scipy.fft.irfft(spectrum * scipy.fft.rfft(taps, n_fft), n_fft)[:n_samples]


def _decay_db(response: FloatArray) -> FloatArray:
    """Schroeder's backward integral, 0 dB at the beginning."""
    to_come = np.cumsum(response[::-1] ** 2)[::-1]
    return 10 * np.log10(to_come / to_come[0] + 1e-12)


def _reverberation_s(decay_db: FloatArray, sample_rate_hz: int) -> float | None:
    high_db, low_db = DECAY_DB
    part = np.flatnonzero((decay_db <= high_db) & (decay_db >= low_db))
    if len(part) < 0.01 * sample_rate_hz or np.corrcoef(part, decay_db[part])[0, 1] > -STRAIGHT:
        return None
    slope_db_per_sample = np.polyfit(part, decay_db[part], 1)[0]
    return float(-60 / slope_db_per_sample / sample_rate_hz)


def _response(taps: FloatArray, played: FloatArray, sample_rate_hz: int) -> tuple[FloatArray, FloatArray]:
    """Centres and mean power, in dB, of the bands in which the reference is heard."""
    n_bands = int(BANDS_PER_OCTAVE * np.log2(sample_rate_hz / 2 / LOWEST_HZ))
    edges_hz = LOWEST_HZ * 2 ** (np.arange(n_bands + 1) / BANDS_PER_OCTAVE)
    centres_hz = np.sqrt(edges_hz[:-1] * edges_hz[1:])
    n_fft = 1 << 15
    power = _band_means(np.abs(scipy.fft.rfft(taps, n_fft)) ** 2, edges_hz / sample_rate_hz * n_fft)
    spectrum = np.abs(scipy.fft.rfft(np.asarray(played, np.float64))) ** 2
    source = _band_means(spectrum, edges_hz / sample_rate_hz * len(played))
    heard = source > np.max(source) * 10 ** (-HEARD_DB / 10)
    return centres_hz[heard], 10 * np.log10(power[heard] + 1e-12)


def _band_means(power: FloatArray, edges_bins: FloatArray) -> FloatArray:
    """Means between edges, which are rounded outwards so that every band has a bin."""
    sums = np.append(0.0, np.cumsum(power))
    first = np.floor(edges_bins[:-1]).astype(int)
    last = np.minimum(np.ceil(edges_bins[1:]).astype(int) + 1, len(power))
    return (sums[last] - sums[first]) / (last - first)


def _energy(x: FloatArray) -> float:
    return float(np.dot(x, x))


def _db(ratio: float) -> float:
    return float(10 * np.log10(ratio + _TINY))
