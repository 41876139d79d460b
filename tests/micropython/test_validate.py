"""`unplay validate` on virtual devices: its figures are those of the scene, and what is wrong fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from unplay.board.link import DeviceLink
from unplay.hil import floors, takes, validation
from unplay.hil.validation import FIGURES, LEARNING_S, Plan, music_part
from unplay.metrics import echo_reduction_db
from unplay.virtual.device import VirtualDevice
from unplay.virtual.setup import CardSetup, DeviceSetup, NoiseSetup, RoomSetup, Setup, TalkerSetup

NewDevice = Callable[..., VirtualDevice]

CARD = CardSetup(mb=16)
BRIEF = Plan(song_s=6, starts=3, long_s=12, link_bytes=1 << 15)
MACHINE = {"link_errors_per_mb"}
"""May fail where this computer is so busy that answers come late: what is sent again is counted."""

SHIPPED = floors.read(floors.SHIPPED, FIGURES)

DIRECT_SAMPLES, PREFILL_SAMPLES = 80, 5120
MICROPHONE_GAIN = 4
"""32-bit samples are shifted down by 14 instead of 16."""


def note_offsets(device: VirtualDevice) -> list[int]:
    """The true start offset of every recording from now on."""
    room, noted = device.streams.room, []
    restart = room.restart

    def noting() -> None:
        restart()
        noted.append(room.offset_samples + DIRECT_SAMPLES + PREFILL_SAMPLES)

    room.restart = noting
    return noted


def keep_takes(
    monkeypatch: pytest.MonkeyPatch, device: VirtualDevice
) -> list[tuple[takes.Take, NDArray[np.float64]]]:
    """Every recording from now on, with the near end as the microphone's samples have it."""
    kept = []

    def fetch(*arguments: Any) -> takes.Take:
        take = takes.fetch(*arguments)
        kept.append((take, device.streams.truth(len(take.microphone)) * MICROPHONE_GAIN * 32768))
        return take

    monkeypatch.setattr(validation, "fetch", fetch)
    return kept


def test_figures_are_those_of_the_scene(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    setup = Setup(
        card=CARD,
        device=DeviceSetup(start_offset_samples="random", compute_ms=28.0),
        talker=TalkerSetup(level_db=-90.0),
        noise=NoiseSetup(level_db=-92.0),
    )
    with new_device(setup) as device, DeviceLink(device.port) as link:
        true, kept = note_offsets(device), keep_takes(monkeypatch, device)
        found = validation.validate(link, SHIPPED, BRIEF)
        echo_path = device.streams.room.echo_path
    value = {row.name: row.value or 0.0 for row in found.rows}
    assert {row.name for row in found.failed} <= MACHINE
    _selftest, _silence, music_offset, *start_offsets, _long = true
    assert found.start_offsets_samples == start_offsets
    assert value["start_offset_spread_samples"] == np.ptp([music_offset, *start_offsets]) > 0
    assert value["start_offset_error_samples"] == value["slip_samples"] == value["residual_differences"] == 0
    assert value["drift_ppm"] == pytest.approx(0.0, abs=0.05)
    # the quietest tenth of white noise in frames of 0.1 s is 0.2 dB below its mean
    assert value["noise_floor_dbfs"] == pytest.approx(-92 + 20 * np.log10(MICROPHONE_GAIN), abs=0.6)
    # of 64 ms; the card takes the rest
    assert 100 * 28 / 64 <= value["load_percent"] < 100 * 32 / 64
    # what the twin leaves, the near end taken away
    music, near_end = kept[1]
    heard = music_part(music, LEARNING_S)
    assert heard is not None
    twin = takes.expected_residual(music, takes.song(BRIEF.song_s).pcm)
    echo, left = (sound[heard] - near_end[heard] for sound in (music.microphone, twin))
    assert value["echo_reduction_db"] == pytest.approx(echo_reduction_db(echo, left), abs=1)
    # volume ½ and the microphone's gain double the path
    taps = found.taps[160 - DIRECT_SAMPLES :]
    n = min(len(taps), len(echo_path))
    assert np.corrcoef(taps[:n], echo_path[:n])[0, 1] > 0.99
    assert np.max(taps) == pytest.approx(2 * np.max(echo_path), rel=0.05)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "QUICK", Plan(song_s=5, starts=2, long_s=14, link_bytes=1 << 15))


def test_two_devices_of_which_one_is_ill(
    brief: None, new_device: NewDevice, unplay_run: Callable, tmp_path: Path
):
    """It fails what it should and nothing else; the other passes; files for people and for programs."""
    quiet = TalkerSetup(level_db=None)
    well = Setup(card=CARD, talker=quiet)
    # an echo 28 dB louder clips; the only recording longer than 11 s meets two stalls
    ill = Setup(
        card=CardSetup(mb=16, stalls=[[11.0, 250], [13.0, 600]]),
        talker=quiet,
        room=RoomSetup(echo_db=12.0),
    )
    with new_device(well, name="well") as one, new_device(ill, name="ill") as other:
        run = unplay_run(
            *("validate", "--quick", "--json", "--port", one.port, "--port", other.port),
            *("--library", tmp_path / "library", "--junit", tmp_path / "out.xml"),
            *("--report", tmp_path / "page.html"),
        )
    assert run.code == 6, run.err
    healthy, sick = json.loads(run.out)
    well_failed, failed = (
        {row["name"] for row in device["rows"] if not row["passed"]} for device in (healthy, sick)
    )
    assert well_failed <= MACHINE
    assert not sick["passed"]
    assert failed >= {"clipped_samples", "peak_dbfs", "slips", "dropped_frames", "late_blocks", "drift_ppm"}
    # what clips cannot be cancelled, what stalls shifts sound against recording
    assert failed <= {*FIGURES} - {
        *("noise_floor_dbfs", "start_offset_error_samples", "starts_without_marker", "residual_differences"),
        *("slowest_write_ms", "storage_errors", "load_percent"),
    }
    assert re.search(r"not as good as asked for: \w+: .*slips", run.err)
    suites = ElementTree.parse(tmp_path / "out.xml").getroot().findall("testsuite")
    assert [int(suite.attrib["failures"]) for suite in suites] == [len(well_failed), len(failed)]
    assert {case.attrib["name"] for case in suites[1] if case.find("failure") is not None} == failed
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"{1 - len(well_failed)} of 2 devices are above all their floors" in page
    assert "Frequency response" in page
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", page)
    assert len(list((tmp_path / "library" / "validations").glob("*/*.json"))) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".part"))]


def test_a_device_without_room(new_device: NewDevice):
    from unplay.errors import BadInputError

    with new_device(Setup(card=None)) as device, DeviceLink(device.port) as link:
        link.config_set({"storage": "flash"})
        with pytest.raises(BadInputError, match=r"room for \d+ s: fetch"):
            validation.validate(link, SHIPPED, BRIEF)
