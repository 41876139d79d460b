"""The last step: a Wiener post-filter against residual echo, where there is any.

What stays after the echo path (the room changed, the loudspeaker distorted, the codec made noise) follows
the estimated echo in level but not in phase. Its power is modelled as ρ(f)·|Ẑ(t, f)|², Ẑ being the
estimated echo with its reverberation held. ρ is the likeliest one when in half of the frames nobody talks
(the residual's power is then exponentially distributed with the mean ρ|Ẑ|² + N, N the noise under soft
echo), and in the others a talker adds any power at all. Where it is hardly likelier than none, there is no
residual echo.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.064
OVERSUBTRACTION = 2.0
"""Multiple of the residual echo's power that the mask takes for it: single powers are often above their
mean."""

TALKER_DB = np.arange(-10.0, 81.0, 2.5)
"""Power of a talker over residual echo and noise: all of these are as likely."""

SHARES_DB = np.arange(-75.0, 16.0, 1.5)
"""Shares of the echo that are tried."""

POOLED_BINS = 11
"""Bins whose likelihoods are added up."""

LEAST_LOG_ODDS = 5.0
"""Log likelihood ratio of the best share to none, below which there is none."""

ABOVE_CHANCE_DB = 2.0
"""How much more the mask must take than it takes with the echo of another time."""

MASK_FLOOR = 0.05
MEMORY = 0.9
"""Weight of the previous frame in the decision-directed a-priori ratio."""

REVERBERATION_S = 0.3
"""Time in which the held echo falls by 60 dB."""


def suppress_residual_echo(
    residual: FloatArray, echo: FloatArray, sample_rate_hz: int
) -> tuple[FloatArray, float]:
    """residual, echo (n_samples,) → the residual without its residual echo, and why or why not:

    the energy that the mask takes over what it takes with the echo moved to another time, in dB. What it
    takes then can only be the near end's; it has to take ABOVE_CHANCE_DB more to be used.

    Gain: decision-directed Wiener (Ephraim & Malah 1984, eq. 51) with the residual echo as the noise.
    """
    n_fft = 1 << round(np.log2(FRAME_S * sample_rate_hz))
    stft = Stft(n_fft, n_fft // 4)
    spectrogram = stft.forward(residual)
    power = _held(np.abs(stft.forward(echo)) ** 2, stft.hop / sample_rate_hz)
    leak = residual_echo_share(np.abs(spectrogram) ** 2, power)
    expected = OVERSUBTRACTION * leak * power
    mask = wiener_mask(spectrogram, expected)
    removed = _removed(spectrogram, mask)
    n_frames = len(power)
    by_chance = [
        _removed(spectrogram, wiener_mask(spectrogram, np.roll(expected, shift, axis=0)))
        for shift in (n_frames // 5, n_frames // 2, 4 * n_frames // 5)
    ]
    above_chance_db = 10 * float(np.log10((removed + 1e-30) / (np.median(by_chance) + 1e-30)))
    if above_chance_db < ABOVE_CHANCE_DB:
        return residual, above_chance_db
    return stft.inverse(mask * spectrogram, len(residual)), above_chance_db


def residual_echo_share(residual_power: FloatArray, echo_power: FloatArray) -> FloatArray:
    """ρ (n_bins,), the residual echo's power over the echo's; 0 in bins without residual echo.

    residual_power, echo_power (n_frames, n_bins).
    """
    soft = echo_power <= np.quantile(echo_power, 0.35, axis=0)
    # the 0.3-quantile of an exponential distribution is 0.357 times its mean
    noise = np.nanquantile(np.where(soft, residual_power, np.nan), 0.3, axis=0) / 0.357
    noise = uniform_filter1d(noise, 5)
    loud = echo_power >= np.median(echo_power, axis=0)
    none = _log_likelihood(residual_power, np.broadcast_to(noise, residual_power.shape), loud)
    shares = 10 ** (SHARES_DB / 10)
    tried = np.stack([_log_likelihood(residual_power, share * echo_power + noise, loud) for share in shares])
    share = shares[np.argmax(tried, axis=0)]
    share[np.max(tried, axis=0) - none < LEAST_LOG_ODDS] = 0.0
    return uniform_filter1d(share, 5)


def _log_likelihood(power: FloatArray, mean: FloatArray, frames: NDArray[np.bool_]) -> FloatArray:
    """Of the power (n_frames, n_bins) in the chosen frames, pooled over neighbouring bins, (n_bins,)."""
    log_mean = np.log10(mean + 1e-30)
    log_ratio = np.log10(power + 1e-30) - log_mean
    density = np.interp(log_ratio, *_talker_or_not()) - np.log(10) * log_mean
    return POOLED_BINS * uniform_filter1d(np.sum(density * frames, axis=0), POOLED_BINS)


@cache
def _talker_or_not() -> tuple[FloatArray, FloatArray]:
    """Log density of a power z relative to its mean without talker, by log10(z)."""
    log_ratio = np.linspace(-8, 10, 721)
    z = 10**log_ratio
    louder = 1 + 10 ** (TALKER_DB / 10)
    talker = np.mean(np.exp(-z[:, None] / louder) / louder, axis=1)
    return log_ratio, np.log(0.5 * np.exp(-np.minimum(z, 700)) + 0.5 * talker + 1e-300)


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


def _removed(spectrogram: NDArray[np.complexfloating], mask: FloatArray) -> float:
    """Energy that a mask takes away."""
    return float(np.sum(((1 - mask) * np.abs(spectrogram)) ** 2))


def _held(power: FloatArray, hop_s: float) -> FloatArray:
    """The power (n_frames, n_bins) with a decay of its own after each peak."""
    decay = 10 ** (-6 * hop_s / REVERBERATION_S)
    held = power.copy()
    for t in range(1, len(held)):
        held[t] = np.maximum(power[t], decay * held[t - 1])
    return held
