"""What the room still held: the echo of sound played before the known reference begins.

A recording that starts while the reference is already sounding contains the reverberation of what was
played before; where the reference file begins at that very moment, that sound is on no file. Its power,
however, is known: with S(f) the reference's power spectrum and H_q(f) the echo path's short-time spectrum
around lag q,

    P(t, f) = S(f) · Σ_{q > t} |H_q(f)|²,

which dies with the room's reverberation. A Wiener mask with that power takes it out. Nothing is fitted to
the residual, so the prediction's level can be compared with what is there: a reference that began from
silence leaves far less, and the mask stands aside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.032
SPECTRUM_S = 2.0
"""Stretch of the reference from which the spectrum of its unknown past is taken."""

OVERSUBTRACTION = 6.0
"""Factor on the predicted power: single bins scatter around it (exponentially, for a Gaussian past) and
the true past was not quite as the reference's first seconds."""

MASK_FLOOR = 0.03
LEVEL_RANGE_DB = (-12.0, 6.0)
"""Observed over predicted energy of the head between which there was such a past."""


def past_echo_power(
    reference: FloatArray, taps: FloatArray, lead_samples: int, stft: Stft, sample_rate_hz: int
) -> FloatArray:
    """Expected power spectrogram (n_frames of the echo path, n_bins) of the unknown past's echo.

    reference (n_samples,) from its first known sample on; taps (n_taps,), tap 0 at lag −lead_samples.
    """
    path = np.abs(stft.forward(taps[lead_samples:])) ** 2
    # each lag lies in n_fft/hop frames whose squared windows add up to one
    remaining = np.cumsum(path[::-1], axis=0)[::-1]
    head = stft.forward(reference[: round(SPECTRUM_S * sample_rate_hz)])
    spectrum = np.mean(np.abs(head) ** 2, axis=0)
    # every lag lies in n_fft/hop frames; the window's energy is 2·hop/n_fft of a rectangle's half
    return remaining * spectrum * (2 * stft.hop / stft.n_fft)


def suppress_past_echo(
    residual: FloatArray, reference: FloatArray, taps: FloatArray, lead_samples: int, sample_rate_hz: int
) -> tuple[FloatArray, float]:
    """Take the echo of the unknown past out of the head of `residual`.

    residual, reference (n_samples,): from the reference's first known sample on. Returns the cleaned
    residual (n_samples,), the input itself where there was no such past, and the level of the head's
    energy over the predicted one, in dB.
    """
    n_fft = 1 << round(np.log2(FRAME_S * sample_rate_hz))
    stft = Stft(n_fft, n_fft // 4)
    power = past_echo_power(reference, taps, lead_samples, stft, sample_rate_hz)
    n_head = min(len(residual), len(taps))
    spectrogram = stft.forward(residual[:n_head])
    n_frames = min(len(power), len(spectrogram))
    power = power[:n_frames]
    observed = np.abs(spectrogram[:n_frames]) ** 2
    loud = slice(0, 2 * n_fft // stft.hop)
    level_db = 10 * float(np.log10((observed[loud].sum() + 1e-30) / (power[loud].sum() + 1e-30)))
    if not LEVEL_RANGE_DB[0] <= level_db <= LEVEL_RANGE_DB[1]:
        return residual, level_db
    mask = np.maximum(1 - OVERSUBTRACTION * power / (observed + 1e-30), MASK_FLOOR)
    mask[power < 1e-8 * power.max()] = 1.0
    spectrogram[:n_frames] *= mask
    cleaned = residual.copy()
    cleaned[:n_head] = stft.inverse(spectrogram, n_head)
    return cleaned, level_db
