"""The last step: a Wiener post-filter against residual echo, where there is any.

What stays after the echo path (the room changed, the loudspeaker distorted, the codec made noise) follows
the estimated echo in level but not in phase. Its power is modelled as ρ(f)·|Ẑ(t, f)|², Ẑ being the
estimated echo with its reverberation held. ρ is found where nobody talks: the quiet frames of the
residual (a low quantile, since the talker pauses) are louder when the echo is loud than when it is soft,
by ρ times the difference of the echoes. Where they are not louder, there is no residual echo and the
filter stands aside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter, uniform_filter1d

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.064
QUIET_QUANTILE = 0.2
QUIET_BIAS = 2.0
"""Mean over 0.2-quantile of the smoothed power of noise: what the low quantile is to be raised by."""

DETECTION_RATIO = 2.0
"""How much louder the quiet frames must be under loud echo than under soft echo (3 dB)."""

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
    mask = wiener_mask(spectrogram, leak * power)
    removed = _removed(spectrogram, mask)
    n_frames = len(power)
    by_chance = [
        _removed(spectrogram, wiener_mask(spectrogram, leak * np.roll(power, shift, axis=0)))
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
    smooth_residual = uniform_filter(residual_power, (3, 5), mode="nearest")
    smooth_echo = uniform_filter(echo_power, (3, 5), mode="nearest")
    low, high = np.quantile(smooth_echo, (0.35, 0.65), axis=0)
    quiet_soft = _quiet(smooth_residual, smooth_echo <= low)
    quiet_loud = _quiet(smooth_residual, smooth_echo >= high)
    mean_soft = _mean(smooth_echo, smooth_echo <= low)
    mean_loud = _mean(smooth_echo, smooth_echo >= high)
    share = QUIET_BIAS * (quiet_loud - quiet_soft) / (mean_loud - mean_soft + 1e-30)
    share[quiet_loud < DETECTION_RATIO * quiet_soft] = 0.0
    return np.maximum(uniform_filter1d(share, 5), 0.0)


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


def _quiet(power: FloatArray, chosen: NDArray[np.bool_]) -> FloatArray:
    """QUIET_QUANTILE over the chosen frames of each bin, (n_bins,)."""
    return np.nanquantile(np.where(chosen, power, np.nan), QUIET_QUANTILE, axis=0)


def _mean(power: FloatArray, chosen: NDArray[np.bool_]) -> FloatArray:
    return np.sum(power * chosen, axis=0) / np.maximum(np.sum(chosen, axis=0), 1)
