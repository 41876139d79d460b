"""Floors, trends and markers, without a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.fft

from unplay.board import markers
from unplay.errors import BadInputError, ValidationError
from unplay.hil import floors, history
from unplay.hil.floors import Floor
from unplay.hil.junit import junit
from unplay.hil.rack import Rack
from unplay.hil.validation import FIGURES, QUICK, Plan, Row, Validation
from unplay.report.charts import sparkline
from unplay.report.validation_page import validation_page
from unplay_shared import marker


def run(day: int, reduction_db: float | None, device: str = "kitchen") -> Validation:
    """A run of one figure."""
    return Validation(
        device=device,
        board="esp32",
        port="/dev/ttyUSB0",
        unplay="0.1.0",
        firmware="MicroPython 1.29.0",
        started=f"2026-11-{day:02}T10:00:00+00:00",
        took_s=60.0,
        plan=Plan(),
        rows=[Row("echo_reduction_db", reduction_db, Floor(least=10.0), "" if reduction_db else "no marker")],
        start_offsets_samples=[5700],
        long_s=600.0,
        taps=np.zeros(0),
    )


def test_a_device_that_gets_worse_stands_out(tmp_path: Path):
    """By more than 2 dB and three deviations of the runs before, though still above the floor."""
    for day, reduction_db in enumerate([24.0, 24.6, 23.7, 24.2], 1):
        history.save(run(day, reduction_db), tmp_path)
        history.save(run(day, 11.0, "cellar"), tmp_path)
        history.save(
            replace(run(day, 17.0), started=f"2026-11-{day:02}T12:00:00+00:00", plan=QUICK), tmp_path
        )
    damaged = tmp_path / "validations" / "kitchen" / "2026-11-05T100000.json"
    damaged.write_text("{")
    for reduction_db, worse in ((23.5, None), (20.1, 4.0), (30.0, None), (None, None)):
        today = run(9, reduction_db)
        trend = history.trends(today, history.earlier(today, tmp_path))["echo_reduction_db"]
        assert trend.values == [24.0, 24.6, 23.7, 24.2, reduction_db]
        assert trend.worse == worse
    page = validation_page(
        [(today := run(9, 20.1), history.trends(today, history.earlier(today, tmp_path)))], {}
    )
    assert "echo reduction is worse than it was: by 4 dB" in page


def test_two_runs_are_no_trend(tmp_path: Path):
    for day in (1, 2):
        history.save(run(day, 24.0), tmp_path)
    today = run(3, 12.0)
    assert history.trends(today, history.earlier(today, tmp_path))["echo_reduction_db"].worse is None


def test_the_command_ends_with_what_went_wrong():
    well, ill = run(1, 24.0), run(1, 9.0)
    Rack([(well, {})], {}).require()
    with pytest.raises(ValidationError, match=r"kitchen: echo reduction: 9 dB \(asked: ≥ 10\)") as failed:
        Rack([(well, {}), (ill, {})], {}).require()
    assert failed.value.exit_code == 6
    with pytest.raises(BadInputError, match="full"):
        Rack([(ill, {})], {"/dev/ttyUSB1": BadInputError("full")}).require()


def test_junit_has_a_case_a_figure():
    root = ElementTree.fromstring(junit([run(1, 9.0), run(1, None)], {"/dev/ttyUSB1": "silent"}))
    low, unknown, broken = root.findall("testsuite")
    failure = low.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "echo reduction: 9 dB (asked: ≥ 10)"
    failure = unknown.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "echo reduction: no marker (asked: ≥ 10)"
    error = broken.find("testcase/error")
    assert error is not None
    assert error.attrib["message"] == "silent"


def test_a_port_without_a_device(unplay_run: Callable, tmp_path: Path):
    done = unplay_run("validate", "--port", "/dev/no-such-port", "--junit", tmp_path / "out.xml", "--json")
    assert done.code == 5
    assert "no-such-port" in done.err
    assert '"passed": false' in done.out
    assert ElementTree.parse(tmp_path / "out.xml").getroot()[0].attrib["errors"] == "1"


def test_outputs_are_checked_before_anything_is_measured(unplay_run: Callable, tmp_path: Path):
    done = unplay_run(
        "validate", "--port", "/dev/no-such-port", "--report", tmp_path / "absent" / "page.html"
    )
    assert done.code == 2
    assert "name a file in a folder" in done.err


def test_a_lab_gets_the_floors_and_changes_them(unplay_run: Callable, tmp_path: Path):
    """What is printed is a file of floors; one line changed in it is what is asked."""
    printed = unplay_run("validate", "--print-floors").out
    path = tmp_path / "lab.toml"
    path.write_text(
        printed.replace("echo_reduction_db = { least = 10 }", "echo_reduction_db = { least = 30 }")
    )
    asked = dict(floors.read(path, FIGURES).of("kitchen", "esp32"))
    assert asked.pop("echo_reduction_db") == Floor(least=30)
    shipped = floors.read(floors.SHIPPED, FIGURES).of("kitchen", "esp32")
    assert asked == {name: floor for name, floor in shipped.items() if name != "echo_reduction_db"}


def test_a_library_that_is_a_file(unplay_run: Callable, tmp_path: Path):
    """It is said before anything is measured."""
    library = tmp_path / "library"
    library.write_text("")
    done = unplay_run("validate", "--port", "/dev/no-such-port", "--library", library)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "name a folder with --library" in done.err


def test_a_device_comes_before_its_board_before_all(tmp_path: Path):
    path = tmp_path / "floors.toml"
    path.write_text(
        "default = { slips = { most = 0 }, load_percent = { most = 90 } }\n"
        "[board.pico]\nload_percent = { most = 70 }\n"
        "[device.cellar]\nload_percent = { least = 1, most = 60 }\n"
    )
    read = floors.read(path, FIGURES)
    asked = [read.of(*names)["load_percent"] for names in (("x", "esp32"), ("x", "pico"), ("cellar", "pico"))]
    assert [str(floor) for floor in asked] == ["≤ 90", "≤ 70", "1 to 60"]
    assert read.of("cellar", "pico")["slips"].holds(0)
    assert not read.of("cellar", "pico")["load_percent"].holds(0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slips = ", "holds no floors"),
        ("[boards.pico]", r"write \[default\]"),
        ("[default]\nslip = { most = 0 }", "no figure slip: choose from"),
        ("[default]\nslips = 0", "slips is 0: write"),
        ("[default]\nslips = { max = 0 }", "write { least"),
        ("[board.pico]\nslips = { most = 'x' }", "write { least"),
        ("board = { pico = 3 }", "3 is no table"),
        ("board = 3", "3 is no table"),
    ],
)
def test_floors_that_cannot_be_read(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "floors.toml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=sentence):
        floors.read(path, FIGURES)


def test_the_shipped_floors_know_every_name():
    assert floors.read(floors.SHIPPED, FIGURES).of("x", "pico")["start_offset_spread_samples"] == Floor(
        most=0
    )


@pytest.mark.parametrize("shift", [-40.3, -0.5, 0.0, 0.004, 0.25, 7.75])
def test_a_shift_is_found_to_a_thousandth_of_a_sample(shift: float):
    """Of a response that fills the band, shifted by the phase of its spectrum."""
    rng = np.random.default_rng(1)
    response = rng.standard_normal(marker.PERIOD) * np.exp(-np.arange(marker.PERIOD) / 200)
    spectrum = scipy.fft.rfft(response)
    omega = 2 * np.pi * np.arange(len(spectrum)) / marker.PERIOD
    late = scipy.fft.irfft(spectrum * np.exp(-1j * omega * shift), marker.PERIOD)
    assert markers.shift_samples(response, late) == pytest.approx(shift, abs=1e-3)


@pytest.mark.parametrize("ppm", [-3.0, 0.0, 0.2])
def test_a_drift_is_measured(ppm: float):
    """Markers 20 s apart in a decaying room, noise 20 dB weaker; the second one is early by the drift."""
    rng = np.random.default_rng(2)
    path = rng.standard_normal(1500) * np.exp(-np.arange(1500) / 150)
    offset, end_at, n = 500, 320_000, 330_000
    spectrum = scipy.fft.rfft(np.convolve(markers.chips(2), path), 1 << 14)
    omega = 2 * np.pi * np.arange(len(spectrum)) / (1 << 14)
    heard = np.zeros(n)
    for at, early in ((offset, 0.0), (offset + end_at, end_at * ppm * 1e-6)):
        heard[at : at + 9000] += scipy.fft.irfft(spectrum * np.exp(1j * omega * early))[:9000]
    heard *= 3000 / np.max(np.abs(heard))
    heard += 0.1 * np.std(heard[offset : offset + 4000]) * rng.standard_normal(n)
    found = markers.drift_ppm(np.round(heard).astype(np.int16), offset, end_at)
    assert found == pytest.approx(ppm, abs=0.05)


def test_a_sparkline_of_what_is_known():
    assert sparkline([1.0], 1.0) == sparkline([None, 1.0], 1.0) == ""
    assert sparkline([1.0, None, 3.0], 2.0) == sparkline([1.0, None, 3.0], 0.0) == "M2.0,22.0 118.0,2.0"


def test_a_sparkline_of_little_change_is_level():
    """Two of a step of twenty: a tenth of the height."""
    assert sparkline([1.0, 3.0], 20.0) == "M2.0,13.0 118.0,11.0"
    assert sparkline([1.0, 1.0], 0.0) == "M2.0,12.0 118.0,12.0"


def test_rows_that_nobody_asked_about_pass():
    row = Row("echo_reduction_db", None, None, "nothing was heard")
    assert row.passed
    assert not replace(row, floor=Floor(least=1.0)).passed
