"""The curves of a page, as SVG paths in boxes that are stretched to its width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay.removal.clock import Stretch
from unplay.report import pictures
from unplay.report.echo import EchoPath
from unplay.trends import Figure, known, usual

FloatArray = NDArray[np.floating]

SPARK_WIDTH, SPARK_HEIGHT = 120, 24


@dataclass(frozen=True)
class Chart:
    """Curves in a box of COLUMNS by 120: SVG paths of a line and a band around it, and the axis' texts.

    colour: of both, by its name in style.html.
    """

    title: str
    line: str
    band: str
    left: str
    middle: str
    right: str
    over_time: bool = False
    colour: str = "near_end"


def levels(recorded: FloatArray, left: FloatArray, removed: FloatArray, rate_hz: int) -> dict[str, Any]:
    """Level of each sound in each second, as paths in a box of 900 by 120."""
    levels_db = {
        key: pictures.level_per_second_db(sound, rate_hz)
        for key, sound in (("recording", recorded), ("near_end", left), ("removed", removed))
    }
    top_db = 10 * math.ceil(max(float(np.max(level)) for level in levels_db.values()) / 10)
    bottom_db = top_db - 80
    n_seconds = len(levels_db["recording"])
    x = (np.arange(n_seconds) + 0.5) * (pictures.COLUMNS / n_seconds)
    return {
        "top_db": top_db,
        "bottom_db": bottom_db,
        "paths": {
            key: pictures.path(x, (top_db - level.clip(bottom_db)) * (120 / 80))
            for key, level in levels_db.items()
        },
    }


def of_clock(stretches: Sequence[Stretch], sigma_ppm: float, rate_hz: int, duration_s: float) -> list[Chart]:
    """How drift and delay change over time, with one standard deviation; none where both stand still."""
    if all(np.all(stretch.rates == 1) for stretch in stretches):
        return []
    drifts, delays = [], []
    for stretch in stretches:
        time_s = stretch.knots / rate_hz
        ppm = np.repeat((stretch.rates - 1) * 1e6, 2)
        drifts.append((np.repeat(time_s, 2)[1:-1], ppm, np.full(len(ppm), sigma_ppm)))
        ahead_ms = (stretch.positions - stretch.knots) / rate_hz * 1000
        # where the reference begins is known best in the middle; the drift's doubt grows from there
        doubt_ms = np.abs(time_s - np.mean(time_s)) * sigma_ppm * 1e-3
        delays.append((time_s, ahead_ms[0] - ahead_ms, doubt_ms))
    return [
        _banded_chart("Drift of the clocks", "ppm", drifts, duration_s, least=0.2),
        _banded_chart("Delay, from where each stretch begins", "ms", delays, duration_s, least=0.02),
    ]


def _banded_chart(
    title: str,
    unit: str,
    lines: Sequence[tuple[FloatArray, FloatArray, FloatArray]],
    duration_s: float,
    least: float,
) -> Chart:
    """Lines of (time_s, value, doubt), each (K,), over the whole recording; at least `least` high."""
    low = min(float(np.min(value - doubt)) for _, value, doubt in lines)
    high = max(float(np.max(value + doubt)) for _, value, doubt in lines)
    margin = max(0.1 * (high - low), (least - (high - low)) / 2)
    low, high = low - margin, high + margin
    paths, bands = "", ""
    for time_s, value, doubt in lines:
        x = time_s / duration_s * pictures.COLUMNS
        up, down = (120 * (high - edge) / (high - low) for edge in (value + doubt, value - doubt))
        paths += pictures.path(x, 120 * (high - value) / (high - low))
        bands += pictures.path(np.concatenate([x, x[::-1]]), np.concatenate([up, down[::-1]])) + "Z"
    across = f"from {high:+.2f} down to {low:+.2f} {unit}; the band is ± one standard deviation"
    return Chart(title, paths, bands, "0:00", across, clock(duration_s), over_time=True)


def of_echo(path: EchoPath | None) -> dict[str, Any] | None:
    """The figures of an echo path and its three charts."""
    if path is None:
        return None
    milliseconds = (np.arange(len(path.taps)) / path.sample_rate_hz - path.lead_s) * 1000
    first_ms, last_ms = float(milliseconds[0]), float(milliseconds[-1])
    peak = float(np.max(np.abs(path.taps))) or 1.0
    taps = pictures.path(
        *_thinned((milliseconds - first_ms) / (last_ms - first_ms), 60 - 58 * path.taps / peak)
    )
    x = np.arange(len(path.decay_db)) / len(path.decay_db)
    decay = pictures.path(*_thinned(x, np.minimum(120.0, -path.decay_db * 2)))
    top_db = 5 * math.ceil(float(np.max(path.response_db)) / 5)
    octaves = np.log2(path.bands_hz / path.bands_hz[0])
    response = pictures.path(
        octaves / (octaves[-1] or 1) * pictures.COLUMNS, np.minimum(120.0, (top_db - path.response_db) * 3)
    )
    low_hz, high_hz = float(path.bands_hz[0]), float(path.bands_hz[-1])
    return {
        "path": path,
        "charts": [
            Chart(
                "Impulse response",
                taps,
                "",
                f"{first_ms:.0f} ms",
                "0 ms is the direct sound",
                f"{last_ms:.0f} ms",
            ),
            Chart(
                "Decay: energy that is yet to come",
                decay,
                "",
                "0 ms",
                "from 0 down to \N{MINUS SIGN}60 dB",
                f"{last_ms:.0f} ms",
            ),
            Chart(
                "Frequency response, loudspeaker and microphone included",
                response,
                "",
                f"{low_hz:.0f} Hz",
                f"logarithmic; from {top_db:+d} down to {top_db - 40:+d} dB",
                f"{high_hz:.0f} Hz",
            ),
        ],
    }


def _thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points of a curve over x from 0 to 1, in a box COLUMNS wide, two a column: its least and greatest."""
    edges = np.unique(np.linspace(0, len(y), pictures.COLUMNS, endpoint=False).astype(int))
    ends = np.stack([np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges)], axis=1)
    return np.repeat(x[edges], 2) * pictures.COLUMNS, ends.reshape(-1)


def over_sessions(figure: Figure, values: Sequence[float | None], first: str, last: str) -> Chart:
    """A figure that got worse, from session to session, and where it usually was before the newest.

    values: the oldest first, None where not measured. first, last: when those were recorded.
    """
    measured = known(values)
    median, deviation = usual(values) or (measured[-1], 0.0)
    low, high = min(*measured, median - deviation), max(*measured, median + deviation)
    margin = 0.1 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def y(value: float) -> float:
        return 120 * (high - value) / (high - low)

    at = [k for k, value in enumerate(values) if value is not None]
    x = [k * pictures.COLUMNS / max(1, len(values) - 1) for k in at]
    # at least as thick as the line
    up, down = y(median + deviation) - 0.75, y(median - deviation) + 0.75
    return Chart(
        figure.title,
        pictures.path(x, [y(value) for value in measured]),
        pictures.path([0, pictures.COLUMNS, pictures.COLUMNS, 0], [up, up, down, down]) + "Z",
        first,
        f"from {figure.amount(max(measured))} down to {figure.amount(min(measured))}; the band is usual",
        last,
        colour="removed",
    )


def sparkline(values: Sequence[float | None], step: float) -> str:
    """A path through the values that there are, in a box of SPARK_WIDTH by SPARK_HEIGHT.

    The box is at least a step high, so that what changes by less looks level.
    """
    points = [(k, value) for k, value in enumerate(values) if value is not None]
    if len(points) < 2:
        return ""
    low, high = min(value for _, value in points), max(value for _, value in points)
    last, span, middle = len(values) - 1, max(high - low, step) or 1.0, (low + high) / 2
    x = [2 + (SPARK_WIDTH - 4) * k / last for k, _ in points]
    y = [SPARK_HEIGHT / 2 + (SPARK_HEIGHT - 4) * (middle - value) / span for _, value in points]
    return pictures.path(x, y)


def clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes}:{seconds:02}"
