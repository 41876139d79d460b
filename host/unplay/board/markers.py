"""What a marker says of the way from loudspeaker to microphone: by how much sound is late, and its response.

The circular correlation of a recording with a maximum-length sequence is the echo path (Borish and Angell
1983). Here in floating point, by FFT: another way than the device's, so that the two can be compared.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from unplay.board.syncing import marker_sound
from unplay_shared import marker

Signal = NDArray[np.float64]
PERIOD = marker.PERIOD


def chips(n_periods: int) -> Signal:
    """The marker, ±1, (n_periods · PERIOD,)."""
    return marker_sound(n_periods, 1).astype(np.float64)


def start_offset(microphone: NDArray[np.integer]) -> int:
    """Recording sample at which the first marker's first sample arrives by the first strong path."""
    heard = microphone[: marker.LISTENING_PERIODS * PERIOD].astype(np.float64)
    correlation = np.abs(scipy.signal.correlate(heard, chips(marker.PERIODS), "valid", "fft"))
    strongest = int(np.argmax(correlation))
    path = response(microphone, strongest, marker.PERIODS - 1)
    before = np.abs(np.roll(path, marker.DIRECT_SAMPLES)[: marker.DIRECT_SAMPLES + 1])
    return strongest - marker.DIRECT_SAMPLES + int(np.argmax(before >= before[-1] / 2))


def response(microphone: NDArray[np.integer], arrival: int, n_periods: int) -> Signal:
    """The echo path (PERIOD,), gain per sample of a marker of ±1 that arrives at sample `arrival`.

    The mean of n_periods periods, of which the first, in which the room fills with sound, is left out.
    """
    first = arrival + PERIOD
    heard = microphone[first : first + n_periods * PERIOD].astype(np.float64)
    period = heard.reshape(n_periods, PERIOD).mean(axis=0)
    spectrum = scipy.fft.fft(period) * np.conj(scipy.fft.fft(chips(1)))
    return np.real(scipy.fft.ifft(spectrum)) / (PERIOD + 1)


def shift_samples(before: Signal, after: Signal) -> float:
    """By how much a response (PERIOD,) is later than another, to a small fraction of a sample.

    The whole samples are the peak of their correlation, the rest is the slope of the phase that is left,
    weighted with the magnitude.
    """
    cross = np.conj(scipy.fft.rfft(before)) * scipy.fft.rfft(after)
    whole = int(np.argmax(scipy.fft.irfft(cross, PERIOD)))
    whole -= PERIOD * (whole > PERIOD // 2)
    omega = 2 * np.pi * np.arange(len(cross)) / PERIOD
    left = np.angle(cross * np.exp(1j * omega * whole))
    weight = np.abs(cross)
    return whole - float(np.sum(weight * omega * left) / np.sum(weight * omega**2))


def drift_ppm(
    microphone: NDArray[np.integer], start_offset_samples: int, end_marker_at_samples: int
) -> float:
    """How much faster sound was played than recorded, from the first marker to the second.

    Both responses are of the second period, in which the room holds the same of the first.
    """
    ends = (start_offset_samples, start_offset_samples + end_marker_at_samples)
    before, after = (response(microphone, arrival, 1) for arrival in ends)
    return -1e6 * shift_samples(before, after) / end_marker_at_samples
