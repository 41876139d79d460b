"""Scores of what is left of a recording.

All signals are float arrays of shape (n_samples,) at one sample rate, aligned to the sample, and stay
untouched. No score fails on silence: ratios end at about ±300 dB.

    score                    needs                    range     source
    si_sdr_db                truth                    dB        Le Roux et al. 2019, ICASSP
    sdr_db                   truth                    dB        Vincent et al. 2006, IEEE TASLP 14(4)
    stoi                     truth                    0 to 1    Taal et al. 2011, IEEE TASLP 19(7)
    echo_reduction_db        nobody talking           dB        ITU-T G.168, echo return loss enhancement
    reference_correlation    the reference, aligned   0 to 1    multiple correlation, by the filter of sdr_db
    aecmos                   the reference, aligned   1 to 5    Purin et al. 2022, ICASSP

The tests hold the first two to `fast_bss_eval`, the second to `mir_eval`, and the third to `pystoi` within
1e-6.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg
import soxr
from numpy.typing import NDArray

from unplay.errors import BadInputError

FORGIVING_TAPS = 512
"""Length of the filter that BSS-eval does not count as distortion."""

AECMOS_RATE_HZ = 16_000
AECMOS_S = 20.0
"""AECMOS was trained on clips of this rate and about this length."""

_TINY = 1e-30


def si_sdr_db(true_near_end: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, eq. 5; means are not removed)."""
    scale = np.dot(estimate, true_near_end) / (np.dot(true_near_end, true_near_end) + _TINY)
    target = scale * true_near_end
    distortion = estimate - target
    return float(10 * np.log10((np.dot(target, target) + _TINY) / (np.dot(distortion, distortion) + _TINY)))


def energy_ratio_db(numerator: NDArray[np.floating], denominator: NDArray[np.floating]) -> float:
    """10·log10 of the ratio of two signals' energies."""
    return float(
        10 * np.log10((np.dot(numerator, numerator) + _TINY) / (np.dot(denominator, denominator) + _TINY))
    )


def echo_reduction_db(recording: NDArray[np.floating], residual: NDArray[np.floating]) -> float:
    """ERLE: recording over residual energy. Means something only where nobody talks."""
    return energy_ratio_db(recording, residual)


def sdr_db(true_near_end: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Signal-to-distortion ratio of BSS-eval (Vincent et al. 2006, eq. 8 and 12) for one source.

    What any filter of FORGIVING_TAPS makes of the truth is no distortion: the room may colour it.
    """
    target = _explained(true_near_end, estimate, FORGIVING_TAPS)
    return energy_ratio_db(target, np.pad(estimate, (0, FORGIVING_TAPS - 1)) - target)


def stoi(
    true_near_end: NDArray[np.floating], estimate: NDArray[np.floating], sample_rate_hz: int
) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1, by `pystoi`.

    None where the truth holds less than 0.4 s of speech, which is too little to tell.
    """
    from pystoi import stoi as of_pystoi

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(of_pystoi(true_near_end, estimate, sample_rate_hz))
        except RuntimeWarning:
            return None


def reference_correlation(
    reference: NDArray[np.floating], residual: NDArray[np.floating], n_lead: int = 0
) -> float:
    """Multiple correlation, 0 to 1, of the residual with the reference around their alignment.

    √(‖p‖²/‖e‖²), p being what the best filter of FORGIVING_TAPS, n_lead of them before lag 0, makes of the
    reference. By chance alone about √(FORGIVING_TAPS/n_samples), more where both are narrow-band.
    """
    explained = _explained(np.append(reference[n_lead:], np.zeros(n_lead)), residual, FORGIVING_TAPS)
    share = np.dot(explained, explained) / (np.dot(residual, residual) + _TINY)
    return float(np.sqrt(min(1.0, share)))


@dataclass(frozen=True)
class Aecmos:
    """Mean opinions, 1 to 5, the higher the better: of the echo that is heard, of all other damage."""

    echo: float
    degradation: float


def aecmos(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    estimate: NDArray[np.floating],
    sample_rate_hz: int,
) -> Aecmos:
    """Microsoft's AECMOS for double talk (Purin et al. 2022), of the first 20 s at 16 kHz.

    Needs no truth. reference: on the recording's clock. Raises BadInputError without the extra `bench`.
    """
    absent = why_no_aecmos()
    if absent is not None:
        raise BadInputError(absent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come from what speechmos imports
        model = importlib.import_module("speechmos.aecmos")
    clips = {
        name: soxr.resample(signal, sample_rate_hz, AECMOS_RATE_HZ)
        for name, signal in (("lpb", reference), ("mic", recording), ("enh", estimate))
    }
    n_samples = min(*map(len, clips.values()), round(AECMOS_S * AECMOS_RATE_HZ) - 1)
    clips = {name: np.clip(x[:n_samples], -1, 1).astype(np.float32) for name, x in clips.items()}
    scores = model.run(clips, sr=AECMOS_RATE_HZ, talk_type="dt")
    return Aecmos(float(scores["echo_mos"]), float(scores["deg_mos"]))


def why_no_aecmos() -> str | None:
    """What is missing for AECMOS, in a sentence; None where nothing is."""
    absent = [name for name in ("speechmos", "onnxruntime", "librosa") if not importlib.util.find_spec(name)]
    if not absent:
        return None
    return f"AECMOS needs {', '.join(absent)}: `pip install 'unplay[bench]'` brings all it needs."


def _explained(
    source: NDArray[np.floating], signal: NDArray[np.floating], n_taps: int
) -> NDArray[np.float64]:
    """The projection of the signal onto n_taps delayed copies of the source, (n_samples + n_taps − 1,)."""
    n_samples = len(signal)
    n_fft = scipy.fft.next_fast_len(n_samples + n_taps, real=True)
    spectrum = scipy.fft.rfft(np.asarray(source, np.float64), n_fft)
    heard = scipy.fft.rfft(np.asarray(signal, np.float64), n_fft)
    autocorrelation = scipy.fft.irfft(np.abs(spectrum) ** 2, n_fft)[:n_taps]
    correlation = scipy.fft.irfft(np.conj(spectrum) * heard, n_fft)[:n_taps]
    autocorrelation[0] += 1e-10 * autocorrelation[0] + _TINY
    taps = scipy.linalg.solve_toeplitz(autocorrelation, correlation)
    return scipy.fft.irfft(spectrum * scipy.fft.rfft(taps, n_fft), n_fft)[: n_samples + n_taps - 1]
