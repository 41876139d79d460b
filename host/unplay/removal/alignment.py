"""Finding the reference in the recording, and its clock.

Positions are in samples, at the sample rate of the caller. Recording sample n carries reference sample
p(n); p advances by 1 + drift·10⁻⁶ a sample (positive: the player's clock is the faster one).

Both signals are whitened frame by frame, so that loud talk, loud notes and steady tones weigh no more
than the rest; then every window of the recording is correlated with the whole reference, coherently, for
every drift of a bank (the peak of the sum of short correlations that slide along each other).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray

from unplay.removal.clock import Stretch, on_recording_clock
from unplay.removal.drift import refine

ANALYSIS_RATE_HZ = 8000.0
MAX_DRIFT_PPM = 500.0

_FRAME = 1024
_BAND_HZ = (100.0, 3800.0)
_RECORDING_WHITENING = 1.0
_REFERENCE_WHITENING = 0.5
_SEGMENT_S = 0.5
_WINDOW_S = 8.0
_BLOCK = 1 << 18
_FOUND_SCORE = 9.0


@dataclass(frozen=True)
class Alignment:
    """Where the reference plays in the recording.

    drift_ppm: mean drift, exactly 0.0 where the recording gives no reason for another value;
    drift_sigma_ppm: its standard deviation. drift_track (K, 2): recording time in s, drift in ppm.
    delay_s: recording time at which reference sample 0 arrives, or would have, by the first stretch.
    evidence: the figures behind `found`; reason: a sentence that holds them.
    """

    found: bool
    reason: str
    stretches: tuple[Stretch, ...] = ()
    drift_ppm: float = 0.0
    drift_sigma_ppm: float = 0.0
    drift_track: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    delay_s: float = 0.0
    evidence: dict[str, float] = field(default_factory=dict)


def align(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    sample_rate_hz: float,
    *,
    follow_drift: bool = True,
) -> Alignment:
    """Find the reference (n,) in the recording (m,), both at `sample_rate_hz`.

    follow_drift=False leaves both clocks alone: one constant delay a stretch.
    """
    rate = min(ANALYSIS_RATE_HZ, sample_rate_hz)
    x = _resampled(reference, sample_rate_hz, rate)
    d = _resampled(recording, sample_rate_hz, rate)
    if min(len(x), len(d)) < _SEGMENT_S * rate or not np.any(x) or not np.any(d):
        return Alignment(False, _too_little(x, d, rate))
    best = _search(_whitened(x, rate, _REFERENCE_WHITENING), _whitened(d, rate, _RECORDING_WHITENING), rate)
    evidence = {"score": best.score, "runner_up": best.runner_up}
    if best.score < _FOUND_SCORE:
        return Alignment(
            False,
            f"the reference's best match in the recording scores {best.score:.1f} "
            f"where chance alone reaches 7 and a reference that plays reaches {_FOUND_SCORE:.0f} or more",
            evidence=evidence,
        )
    line = _Line(best.time, best.position, best.drift if follow_drift else 0.0)
    sigma_ppm = 0.0
    if follow_drift:
        line, sigma_ppm = _follow(x, d, rate, line)
    start, stop = _extent(line, len(x), len(d))
    scale = sample_rate_hz / rate
    ends = np.array([start, max(stop, start + 1)], np.float64) * scale
    stretch = Stretch(
        round(start * scale),
        min(round(stop * scale), len(recording)),
        ends,
        line.position_at(ends / scale) * scale,
    )
    drift_ppm = line.drift * 1e6
    delay_s = (line.time - line.position / (1 + line.drift)) / rate
    return Alignment(
        True,
        f"the reference was found {delay_s:+.3f} s into the recording (score {best.score:.1f})",
        (stretch,),
        drift_ppm,
        sigma_ppm,
        np.column_stack([ends / sample_rate_hz, [drift_ppm, drift_ppm]]),
        delay_s,
        evidence,
    )


def aligned_reference(
    reference: NDArray[np.floating], alignment: Alignment, start: int, stop: int
) -> NDArray[np.floating]:
    """The reference on the recording's clock for recording samples [start, stop): (stop − start,).

    Zero where it isn't playing. The echo path from here to the recording has its direct sound near lag 0.
    """
    return on_recording_clock(reference, alignment.stretches, start, stop)


@dataclass(frozen=True)
class _Line:
    """Reference position at one recording time (analysis samples), and the drift as a ratio."""

    time: float
    position: float
    drift: float

    def position_at(self, n: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.position + (n - self.time) * (1 + self.drift)


@dataclass(frozen=True)
class _Match:
    score: float
    runner_up: float
    time: float
    position: float
    drift: float


def _resampled(x: NDArray[np.floating], from_hz: float, to_hz: float) -> NDArray[np.float32]:
    x = np.asarray(x, np.float32)
    return x if from_hz == to_hz or not len(x) else soxr.resample(x, from_hz, to_hz)


def _too_little(x: NDArray[np.floating], d: NDArray[np.floating], rate: float) -> str:
    for name, signal in (("reference", x), ("recording", d)):
        if len(signal) < _SEGMENT_S * rate:
            return f"the {name} lasts {len(signal) / rate:.2f} s, too short to be found ({_SEGMENT_S} s at least)"
    return f"the {'recording' if np.any(x) else 'reference'} is silent: every sample is zero"


def _whitened(x: NDArray[np.float32], rate: float, exponent: float) -> NDArray[np.float32]:
    """x with every STFT magnitude raised to 1 − exponent, and mean power one."""
    hop = _FRAME // 4
    window = np.sin(np.pi * np.arange(_FRAME) / _FRAME).astype(np.float32)
    padded = np.pad(x, (_FRAME - hop, _FRAME + -len(x) % hop))
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::hop] * window, axis=1)
    magnitude = np.abs(spectrum)
    level = np.sqrt(np.mean(magnitude**2, axis=0))
    floor = 1e-2 * (level + 1e-3 * level.max()) + 1e-20
    frequency = np.arange(_FRAME // 2 + 1) * rate / _FRAME
    audible = (frequency > _BAND_HZ[0]) & (frequency < min(_BAND_HZ[1], 0.475 * rate))
    frames = np.fft.irfft(spectrum * audible / (magnitude + floor) ** exponent, axis=1) * window
    out = np.zeros((len(frames) + 3, hop), np.float32)
    for k in range(4):
        out[k : k + len(frames)] += frames[:, k * hop : (k + 1) * hop]
    white = out.ravel()[_FRAME - hop :][: len(x)]
    return white / np.sqrt(np.mean(white**2) + 1e-30)


def _search(x: NDArray[np.float32], d: NDArray[np.float32], rate: float) -> _Match:
    """The best match over windows of the recording, the whole reference and every drift."""
    window = min(int(_WINDOW_S * rate), len(d))
    starts = np.linspace(0, len(d) - window, max(1, min(12, round(1.5 * len(d) / window)))).astype(int)
    return max((_probe(x, d[s : s + window], s, rate) for s in starts), key=lambda m: m.score)


def _probe(x: NDArray[np.float32], d: NDArray[np.float32], start: int, rate: float) -> _Match:
    """The best match of one window of the recording, which starts at recording sample `start`."""
    sums, count = 0.0, 0
    tops: list[tuple[float, float, float]] = []
    for first, drift, score in _bank(x, d, rate):
        sums += float(np.sum(score**2))
        count += int(np.count_nonzero(score))
        k = int(np.argmax(np.abs(score)))
        tops.append((abs(float(score[k])), first + k, drift))
    deviation = np.sqrt(sums / max(count, 1)) + 1e-30
    tops.sort(reverse=True)
    peak, position, drift = tops[0]
    runner_up = max((t[0] for t in tops if abs(t[1] - position) > 0.05 * rate), default=0.0)
    return _Match(peak / deviation, runner_up / deviation, start + len(d) / 2, position + len(d) / 2, drift)


def _bank(
    x: NDArray[np.float32], d: NDArray[np.float32], rate: float
) -> Iterator[tuple[int, float, NDArray[np.float32]]]:
    """(first position, drift, scores): normalised correlation of d with x at every position of d's start.

    Positions run from −len(d) to len(x); the drift turns around the centre of d.
    """
    segment = int(_SEGMENT_S * rate)
    n_segments = len(d) // segment
    slack = int(np.ceil(MAX_DRIFT_PPM * 1e-6 * len(d) / 2)) + 1
    span = min(_BLOCK, len(x) + 3 * len(d))
    n_fft = 1 << int(np.ceil(np.log2(span)))
    n_positions = n_fft - len(d) - 2 * slack - segment
    spectra = np.fft.rfft(d[: n_segments * segment].reshape(n_segments, segment), n_fft, axis=1).conj()
    centres = (np.arange(n_segments) + 0.5) * segment - len(d) / 2
    step = 0.4 / (len(d) / rate * 1000.0)
    drifts = np.arange(-np.ceil(MAX_DRIFT_PPM * 1e-6 / step), np.ceil(MAX_DRIFT_PPM * 1e-6 / step) + 1) * step
    energy = np.concatenate([[0.0], np.cumsum(x.astype(np.float64) ** 2)])
    for first in range(-len(d), len(x), n_positions):
        origin = first - slack
        piece = np.zeros(n_fft, np.float32)
        lo, hi = max(0, origin), min(len(x), origin + n_fft)
        piece[lo - origin : hi - origin] = x[lo:hi]
        shorts = np.fft.irfft(np.fft.rfft(piece) * spectra, n_fft, axis=1).astype(np.float32)
        edges = np.clip(np.arange(first, first + n_positions), 0, len(x))
        overlap = energy[np.clip(edges + len(d), 0, len(x))] - energy[edges]
        # beyond the ends a short overlap of few samples must not weigh like a long one
        norm = (1 / np.sqrt(np.maximum(overlap, 0.5 * rate))).astype(np.float32)
        norm[np.arange(first, first + n_positions) >= len(x)] = 0
        for drift in drifts:
            score = np.zeros(n_positions, np.float32)
            for k, shift in enumerate(np.rint(drift * centres).astype(int)):
                at = slack + k * segment + shift
                score += shorts[k, at : at + n_positions]
            yield first, float(drift), score * norm


def _extent(line: _Line, n_reference: int, n_recording: int) -> tuple[int, int]:
    """Recording samples [start, stop) in which the line runs inside the reference."""
    at = line.time + (np.array([0.0, n_reference]) - line.position) / (1 + line.drift)
    start, stop = np.clip(np.ceil(at).astype(int), 0, n_recording)
    return int(start), int(stop)


def _follow(x: NDArray[np.float32], d: NDArray[np.float32], rate: float, line: _Line) -> tuple[_Line, float]:
    """The line with its drift refined over longer and longer spans around the match."""
    sigma_ppm = MAX_DRIFT_PPM
    span = _WINDOW_S * rate
    full = _extent(line, len(x), len(d))
    while True:
        span *= 2
        start, stop = max(full[0], int(line.time - span / 2)), min(full[1], int(line.time + span / 2))
        ends = np.array([start, stop], np.float64)
        track = refine(x, d, rate, [Stretch(start, stop, ends, line.position_at(ends))])
        line = _Line(float(start), float(track.stretches[0].positions[0]), track.drift_ppm * 1e-6)
        sigma_ppm = track.sigma_ppm
        if (start, stop) == full or stop - start < span / 2:
            break
    if abs(line.drift) * 1e6 < 2.5 * sigma_ppm + 0.005:
        line = _Line(line.time, line.position, 0.0)
    return line, sigma_ppm
