"""The last step: a mask against residual echo, where there is any, by structured NMF.

What stays after the echo path (the room changed, the loudspeaker distorted, the codec made noise) follows
the estimated echo in level but not in phase. The residual's power spectrogram is modelled as

    |E(t, f)|² ≈ ρ(f)·|Ẑ(t, f)|² + Σ_r H(t, r) W(r, f),

the echo's part tied to the estimated echo Ẑ with its reverberation held, the near end's part anything of
low rank. With the Itakura-Saito divergence the factors are the likeliest variances (Févotte, Bertin &
Durrieu 2009), and the mask is the near end's part over the whole.

ρ may only differ from 0 in bins with evidence of residual echo. There, ρ is first the likeliest one when in
half of the frames nobody talks (the power is then exponentially distributed with the mean ρ|Ẑ|² + N, N the
noise under soft echo), and in the others a talker adds any power at all. A talker who never pauses looks
like residual echo, too, but as much so beside the echo of another time: the likelihood ratio of the best ρ
to none must be far above what it is with the echo moved in time. Without evidence the mask stands aside.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from unplay.removal.chance import at_other_times
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

FRAME_S = 0.064
RANK = 10
"""Spectra that make up the near end."""

N_UPDATES = 60
"""Multiplicative updates of the factors."""

OVERSUBTRACTION = 2.0
"""Multiple of the residual echo's power that the mask takes for it: single powers are often above their
mean."""

TALKER_DB = np.arange(-10.0, 81.0, 2.5)
"""Power of a talker over residual echo and noise: all of these are as likely."""

SHARES_DB = np.arange(-75.0, 16.0, 3.0)
"""Shares of the echo that are tried."""

POOLED_BINS = 11
"""Bins whose likelihoods are added up."""

LEAST_EVIDENCE = 0.05
"""Log likelihood ratio of the best share to none, per frame and bin, below which there is none."""

TIMES_CHANCE = 2.0
"""How many times the evidence must be what it is with the echo of another time."""

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

POWER_FLOOR = 1e-9
"""Of the mean: digital silence has no power to divide by."""
REVERBERATION_S = 0.3
"""Time in which the held echo falls by 60 dB."""


def suppress_residual_echo(
    residual: FloatArray, echo: FloatArray, sample_rate_hz: int
) -> tuple[FloatArray, float]:
    """residual, echo (n_samples,) → the residual without its residual echo, and the share of the bins in
    which there was any (0 to 1). At 0 the residual itself is returned."""
    n_fft = 1 << round(np.log2(FRAME_S * sample_rate_hz))
    stft = Stft(n_fft, n_fft // 4)
    spectrogram = stft.forward(residual)
    power = np.abs(spectrogram) ** 2
    played = _held(np.abs(stft.forward(echo)) ** 2, stft.hop / sample_rate_hz)
    share = residual_echo_share(power, played)
    if not share.any():
        return residual, 0.0
    near_end, residual_echo = split_power(power, played, share)
    mask = near_end / (near_end + OVERSUBTRACTION * residual_echo)
    cleaned = stft.inverse(np.maximum(mask, MASK_FLOOR) * spectrogram, len(residual))
    return cleaned, float(np.mean(share > 0))


def residual_echo_share(residual_power: FloatArray, echo_power: FloatArray) -> FloatArray:
    """ρ (n_bins,), the residual echo's power over the echo's; 0 in bins without residual echo.

    residual_power, echo_power (n_frames, n_bins).
    """
    loudness = echo_power.mean(axis=1)
    # frames overlap by three quarters: every other one says as much as all
    heard = np.flatnonzero(loudness > HEARD * loudness.mean())[::2]
    if len(heard) < LEAST_FRAMES or not residual_power.any():
        return np.zeros(echo_power.shape[1])
    residual, echo = residual_power[heard], echo_power[heard]
    share, evidence = _likeliest_share(residual, echo)
    by_chance = [_likeliest_share(residual, other)[1] for other in at_other_times(echo)]
    chance = maximum_filter1d(np.max(by_chance, axis=0), CHANCE_BINS)
    share[evidence < LEAST_EVIDENCE + TIMES_CHANCE * chance] = 0.0
    return uniform_filter1d(share, 5).clip(0) * (maximum_filter1d(share, 5) > 0)


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


def split_power(
    residual_power: FloatArray, echo_power: FloatArray, share: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The near end's and the residual echo's part of the residual's power, (n_frames, n_bins) each, > 0, ≥ 0.

    residual_power, echo_power (n_frames, n_bins); share (n_bins,): ρ to begin with; 0 stays 0.

    Itakura-Saito NMF by majorisation-minimisation, H ← H·√((V/Λ² · Wᵀ) / (1/Λ · Wᵀ)) with Λ the model, and
    alike for W and ρ (Févotte & Idier 2011, eq. 4.7): no update makes the divergence grow.
    """
    rng = np.random.default_rng(0)
    n_frames, n_bins = residual_power.shape
    scale = residual_power.mean() + 1e-30
    power = (residual_power / scale + POWER_FLOOR).astype(np.float32)
    played = (echo_power / scale).astype(np.float32)
    rho = share.astype(np.float32)
    spectra = rng.uniform(0.1, 1.1, (RANK, n_bins)).astype(np.float32)
    levels = rng.uniform(0.1, 1.1, (n_frames, RANK)).astype(np.float32)
    spectra *= power.mean(axis=0) / (levels @ spectra).mean(axis=0)

    tiny = np.finfo(np.float32).tiny  # a part that has died out stays so

    def ratios() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """V/Λ² and 1/Λ."""
        inverse = 1 / (rho * played + levels @ spectra + np.float32(POWER_FLOOR))
        return power * inverse * inverse, inverse

    for _ in range(N_UPDATES):
        up, down = ratios()
        levels *= np.sqrt((up @ spectra.T) / (down @ spectra.T + tiny))
        up, down = ratios()
        spectra *= np.sqrt((levels.T @ up) / (levels.T @ down + tiny))
        up, down = ratios()
        rho *= np.sqrt(np.sum(up * played, axis=0) / (np.sum(down * played, axis=0) + tiny))
    return levels @ spectra + np.float32(POWER_FLOOR), rho * played


def _held(power: FloatArray, hop_s: float) -> FloatArray:
    """The power (n_frames, n_bins) with a decay of its own after each peak."""
    decay = 10 ** (-6 * hop_s / REVERBERATION_S)
    held = power.copy()
    for t in range(1, len(held)):
        held[t] = np.maximum(power[t], decay * held[t - 1])
    return held
