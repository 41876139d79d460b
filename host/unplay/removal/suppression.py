"""The last step: a Wiener post-filter against residual echo, where there is any.

What stays after the echo path (the room changed, the loudspeaker distorted, the codec made noise) follows
the estimated echo in level but not in phase. Its power is modelled as ρ(f)·|Ẑ(t, f)|², Ẑ being the
estimated echo with its reverberation held. ρ is the likeliest one when in half of the frames nobody talks
(the residual's power is then exponentially distributed with the mean ρ|Ẑ|² + N, N the noise under soft
echo), and in the others a talker adds any power at all.

A talker who never pauses looks like residual echo, too, but as much so beside the echo of another time.
There is residual echo only in bins where the likelihood ratio of the best share to none is far above what
it is with the echo moved in time: a stage that hears nothing there stands aside.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.064
OVERSUBTRACTION = 3.0
"""Multiple of the residual echo's power that the mask takes for it: single powers are often above their
mean."""

TALKER_DB = np.arange(-10.0, 81.0, 2.5)
"""Power of a talker over residual echo and noise: all of these are as likely."""

SHARES_DB = np.arange(-75.0, 16.0, 3.0)
"""Shares of the echo that are tried."""

POOLED_BINS = 11
"""Bins whose likelihoods are added up."""

LEAST_EVIDENCE = 0.1
"""Log likelihood ratio of the best share to none, per frame and bin, below which there is none."""

TIMES_CHANCE = 2.0
"""How many times the evidence must be what it is with the echo of another time."""

OTHER_TIMES = (0.183, 0.419, 0.737)
"""Shifts of the echo, over the recording's length, that tell what chance reaches."""

CHANCE_BINS = 61
"""Bins over which chance is the largest found."""

HEARD = 1e-4
"""Power of the echo over its mean above which a frame counts: where nothing was played, a talker is no
residual echo."""

LEAST_FRAMES = 32
"""Fewer frames with echo say nothing."""

STEPS_PER_DECADE = 100
"""Of the table of likelihoods."""

MASK_FLOOR = 0.03
MEMORY = 0.9
"""Weight of the previous frame in the decision-directed a-priori ratio."""

REVERBERATION_S = 0.3
"""Time in which the held echo falls by 60 dB."""


def suppress_residual_echo(
    residual: FloatArray, echo: FloatArray, sample_rate_hz: int
) -> tuple[FloatArray, float]:
    """residual, echo (n_samples,) → the residual without its residual echo, and the share of the bins in
    which there was any (0 to 1). At 0 the residual itself is returned.

    Gain: decision-directed Wiener (Ephraim & Malah 1984, eq. 51) with the residual echo as the noise.
    """
    n_fft = 1 << round(np.log2(FRAME_S * sample_rate_hz))
    stft = Stft(n_fft, n_fft // 4)
    spectrogram = stft.forward(residual)
    power = _held(np.abs(stft.forward(echo)) ** 2, stft.hop / sample_rate_hz)
    share = residual_echo_share(np.abs(spectrogram) ** 2, power)
    if not share.any():
        return residual, 0.0
    mask = wiener_mask(spectrogram, OVERSUBTRACTION * share * power)
    return stft.inverse(mask * spectrogram, len(residual)), float(np.mean(share > 0))


def residual_echo_share(residual_power: FloatArray, echo_power: FloatArray) -> FloatArray:
    """ρ (n_bins,), the residual echo's power over the echo's; 0 in bins without residual echo.

    residual_power, echo_power (n_frames, n_bins).
    """
    loudness = echo_power.mean(axis=1)
    # frames overlap by three quarters: every other one says as much as all
    heard = np.flatnonzero(loudness > HEARD * loudness.mean())[::2]
    if len(heard) < LEAST_FRAMES:
        return np.zeros(echo_power.shape[1])
    residual, echo = residual_power[heard], echo_power[heard]
    share, evidence = _likeliest_share(residual, echo)
    by_chance = [
        _likeliest_share(residual, np.roll(echo, round(at * len(echo)), axis=0))[1] for at in OTHER_TIMES
    ]
    chance = maximum_filter1d(np.max(by_chance, axis=0), CHANCE_BINS)
    share[evidence < LEAST_EVIDENCE + TIMES_CHANCE * chance] = 0.0
    return uniform_filter1d(share, 5)


def _likeliest_share(residual: FloatArray, echo: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The likeliest ρ and its log likelihood ratio to ρ = 0, per frame and bin: (n_bins,) each."""
    soft = echo <= np.quantile(echo, 0.35, axis=0)
    # the 0.3-quantile of an exponential distribution is 0.357 times its mean
    noise = np.nanquantile(np.where(soft, residual, np.nan), 0.3, axis=0) / 0.357
    noise = uniform_filter1d(noise, 5)
    # the louder half of the frames, bin by bin
    loud = np.argpartition(echo, len(echo) // 2, axis=0)[len(echo) // 2 :]
    echo, residual = np.take_along_axis(echo, loud, 0), np.take_along_axis(residual, loud, 0)
    log_residual = np.log10(residual + 1e-30)
    none = _log_likelihood(log_residual, np.broadcast_to(noise, echo.shape))
    shares = 10 ** (SHARES_DB / 10)
    tried = np.stack([_log_likelihood(log_residual, share * echo + noise) for share in shares])
    return shares[np.argmax(tried, axis=0)], np.max(tried, axis=0) - none


def _log_likelihood(log_power: FloatArray, mean: FloatArray) -> FloatArray:
    """Of powers (n_frames, n_bins), given as logarithms to base 10, per frame; pooled over neighbouring
    bins, (n_bins,)."""
    log_mean = np.log10(mean + 1e-30)
    table = _talker_or_not()
    at = ((log_power - log_mean) * STEPS_PER_DECADE + 0.5).astype(np.intp) + len(table) // 2
    density = table[np.clip(at, 0, len(table) - 1)] - np.log(10) * log_mean
    return uniform_filter1d(np.mean(density, axis=0), POOLED_BINS)


@cache
def _talker_or_not() -> FloatArray:
    """Log density of a power z relative to its mean without talker, for log10(z) from −10 to 10."""
    z = 10 ** (np.arange(-10 * STEPS_PER_DECADE, 10 * STEPS_PER_DECADE + 1) / STEPS_PER_DECADE)
    louder = 1 + 10 ** (TALKER_DB / 10)
    talker = np.mean(np.exp(-z[:, None] / louder) / louder, axis=1)
    return np.log(0.5 * np.exp(-np.minimum(z, 700)) + 0.5 * talker + 1e-300)


def wiener_mask(spectrogram: NDArray[np.complexfloating], noise_power: FloatArray) -> FloatArray:
    """Decision-directed Wiener gain (n_frames, n_bins) in [MASK_FLOOR, 1]."""
    power = np.abs(spectrogram) ** 2
    mask = np.ones_like(power)
    kept = power[0]
    for t in range(len(power)):
        noise = noise_power[t] + 1e-30
        prior = MEMORY * kept / noise + (1 - MEMORY) * np.maximum(power[t] / noise - 1, 0)
        mask[t] = np.maximum(prior / (1 + prior), MASK_FLOOR)
        kept = mask[t] ** 2 * power[t]
    return mask


def _held(power: FloatArray, hop_s: float) -> FloatArray:
    """The power (n_frames, n_bins) with a decay of its own after each peak."""
    decay = 10 ** (-6 * hop_s / REVERBERATION_S)
    held = power.copy()
    for t in range(1, len(held)):
        held[t] = np.maximum(power[t], decay * held[t - 1])
    return held
