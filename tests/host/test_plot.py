"""The figures of `unplay.plot` show what they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest

from unplay import plot
from unplay.report.echo import measure
from unplay.virtual.scene import Scene

RATE_HZ = 8000
SIGNALS = {
    "recording": np.sin(2 * np.pi * 1000 * np.arange(3 * RATE_HZ) / RATE_HZ),
    "near end": 0.1 * np.sin(2 * np.pi * 2000 * np.arange(3 * RATE_HZ) / RATE_HZ),
}
LOG = {
    "found": True,
    "drift_track": [{"time_s": 1.0, "drift_ppm": 79.5}, {"time_s": 2.0, "drift_ppm": 80.5}],
    "drift_sigma_ppm": 0.1,
    "removed_dbfs_per_s": [-20.0, None, -30.0],
}


def is_drawn(figure: plot.Figure) -> bool:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return len(file.getvalue()) > 5_000


def test_spectrograms_share_time_and_scale() -> None:
    figure = plot.spectrograms(SIGNALS, RATE_HZ)
    first, second = figure.axes[:2]
    assert [axes.get_title() for axes in (first, second)] == list(SIGNALS)
    assert first.get_xlim() == second.get_xlim() == (0, 3)
    loudest = [np.max(np.asarray(axes.images[0].get_array())) for axes in (first, second)]
    assert loudest[0] == 0
    # 20 dB quieter
    assert loudest[1] == pytest.approx(-20, abs=0.5)
    assert is_drawn(figure)


def test_levels_are_those_of_the_signals() -> None:
    axes = plot.levels(SIGNALS, RATE_HZ).axes[0]
    levels = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(levels["recording"], 10 * np.log10(0.5), atol=0.01)
    np.testing.assert_allclose(levels["near end"], 10 * np.log10(0.005), atol=0.01)


def test_waveforms_share_a_scale() -> None:
    first, second = plot.waveforms(SIGNALS, RATE_HZ).axes
    assert first.get_ylim() == second.get_ylim()


def test_the_drift_has_its_uncertainty() -> None:
    figure = plot.drift(LOG)
    axes = figure.axes[0]
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), [79.5, 80.5])
    bars = np.asarray(axes.collections[0].get_paths()[0].vertices)
    np.testing.assert_allclose(bars[:, 1], [79.3, 79.7])
    assert is_drawn(figure)


def test_no_drift_where_nothing_was_found() -> None:
    with pytest.raises(ValueError, match="not found"):
        plot.drift({"found": False})


def test_seconds_without_removal_are_gaps() -> None:
    axes = plot.removal(LOG).axes[0]
    np.testing.assert_array_equal(np.asarray(axes.lines[0].get_ydata()), [-20.0, np.nan, -30.0])


def test_the_echo_path_is_drawn_in_its_units(scene: Scene) -> None:
    path = measure(scene.played, scene.echo, scene.true_near_end, scene.sample_rate_hz)
    assert path is not None
    figure = plot.echo_path(path)
    response, decay, spectrum = (axes.lines[0] for axes in figure.axes)
    time_ms, taps = np.asarray(response.get_xdata()), np.asarray(response.get_ydata())
    # the direct sound of the scene comes 5 ms after it is played
    assert time_ms[np.argmax(np.abs(taps))] == pytest.approx(5, abs=0.1)
    assert np.asarray(decay.get_ydata())[0] == pytest.approx(0, abs=1e-6)
    assert np.asarray(spectrum.get_xdata())[-1] < scene.sample_rate_hz / 2
    assert is_drawn(figure)
