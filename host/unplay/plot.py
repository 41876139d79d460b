"""Pictures of signals and runs for people who script: matplotlib figures, to show or to save.

    from unplay import plot

    plot.spectrograms({"recording": d, "near end": e}, 16_000).savefig("before_after.png")
    plot.drift(result.log).savefig("drift.svg")

Every function returns a `matplotlib.figure.Figure` of its own and leaves pyplot's state alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unplay.report import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unplay.report.echo import EchoPath

FloatArray = NDArray[np.floating]

INCHES = (9.0, 2.4)
"""Width of a figure, and height of each of its parts."""


def spectrograms(signals: Mapping[str, FloatArray], sample_rate_hz: int) -> Figure:
    """Level by time and frequency of signals (n_samples,), below each other, on one scale in dB."""
    levels_db = {name: pictures.spectrogram_db(signal, sample_rate_hz) for name, signal in signals.items()}
    top_db = max(float(np.max(levels)) for levels in levels_db.values())
    figure, parts = _figure(len(signals))
    for axes, (name, levels) in zip(parts, levels_db.items(), strict=True):
        axes.imshow(
            levels - top_db,
            vmin=-pictures.RANGE_DB,
            vmax=0,
            cmap="magma",
            aspect="auto",
            extent=(0, len(signals[name]) / sample_rate_hz, 0, sample_rate_hz / 2000),
        )
        axes.set(title=name, ylabel="frequency, kHz")
    figure.colorbar(parts[0].images[0], ax=parts, label="dB below the loudest")
    parts[-1].set_xlabel("time, s")
    return figure


def waveforms(signals: Mapping[str, FloatArray], sample_rate_hz: int) -> Figure:
    """Signals (n_samples,) over time, below each other, on one scale."""
    figure, parts = _figure(len(signals))
    for axes, (name, signal) in zip(parts, signals.items(), strict=True):
        axes.plot(np.arange(len(signal)) / sample_rate_hz, signal, linewidth=0.5)
        axes.set(title=name, ylabel="of full scale")
        axes.sharey(parts[0])
    parts[-1].set_xlabel("time, s")
    return figure


def levels(signals: Mapping[str, FloatArray], sample_rate_hz: int) -> Figure:
    """Level of signals (n_samples,) in each second, in one picture."""
    figure, (axes,) = _figure(1)
    for name, signal in signals.items():
        level_db = pictures.level_per_second_db(signal, sample_rate_hz)
        axes.plot(np.arange(len(level_db)) + 0.5, level_db, label=name)
    axes.set(xlabel="time, s", ylabel="level, dBFS")
    axes.legend()
    return figure


def drift(log: Mapping[str, Any]) -> Figure:
    """Drift over time with two standard deviations to either side, from the log of a run of `clean`.

    Raises ValueError where the log holds no drift since the reference was not found.
    """
    if not log["found"]:
        raise ValueError("the reference was not found in this recording, so there is no drift to draw")
    time_s = np.array([point["time_s"] for point in log["drift_track"]])
    drift_ppm = np.array([point["drift_ppm"] for point in log["drift_track"]])
    sigma_ppm = log["drift_sigma_ppm"] or 0.0
    figure, (axes,) = _figure(1)
    axes.errorbar(time_s, drift_ppm, yerr=2 * sigma_ppm, marker="o", capsize=4)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set(xlabel="time in the recording, s", ylabel="drift, ppm")
    return figure


def echo_path(path: EchoPath) -> Figure:
    """Impulse response, decay and frequency response of a path that `unplay.report.echo.measure` found."""
    figure = Figure(figsize=(INCHES[0], INCHES[1] * 3), layout="constrained")
    response, decay, spectrum = figure.subplots(3, 1)
    time_ms = (np.arange(len(path.taps)) / path.sample_rate_hz - path.lead_s) * 1000
    response.plot(time_ms, path.taps, linewidth=0.7)
    response.set(title="impulse response", xlabel="time after the direct sound, ms")
    decay.plot(time_ms[len(time_ms) - len(path.decay_db) :], path.decay_db)
    decay.set(title="energy that is yet to come", xlabel="time after the direct sound, ms", ylabel="dB")
    spectrum.semilogx(path.bands_hz, path.response_db)
    spectrum.set(title="frequency response", xlabel="frequency, Hz", ylabel="dB")
    return figure


def removal(log: Mapping[str, Any]) -> Figure:
    """Level of what was removed in each second, from the log of a run of `clean`."""
    level_dbfs = [np.nan if level is None else level for level in log["removed_dbfs_per_s"]]
    figure, (axes,) = _figure(1)
    axes.step(np.arange(len(level_dbfs)), level_dbfs, where="post")
    axes.set(xlabel="time, s", ylabel="removed, dBFS")
    return figure


def _figure(n_parts: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(INCHES[0], INCHES[1] * n_parts), layout="constrained")
    return figure, list(figure.subplots(n_parts, 1, sharex=True, squeeze=False)[:, 0])
