"""`unplay validate` on virtual devices: its figures are those of the scene, and what is wrong fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from unplay.board.link import DeviceLink
from unplay.board.references import push
from unplay.hil import floors, takes, validation
from unplay.hil.power_cycle import NAMES, power_cycle
from unplay.hil.validation import FIGURES, LEARNING_S, Plan, music_part
from unplay.metrics import echo_reduction_db
from unplay.virtual.device import FLASH_BYTES, VirtualDevice, fill
from unplay.virtual.setup import (
    CardSetup,
    DeviceSetup,
    LineSetup,
    NoiseSetup,
    RoomSetup,
    Setup,
    TalkerSetup,
)

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


IMAGES = {"lfs": ("flash.img", FLASH_BYTES), "fat": ("card.img", CARD.mb << 20)}


def change_at_restart(
    monkeypatch: pytest.MonkeyPatch, device: VirtualDevice, kind: str, files: Mapping[str, bytes]
) -> None:
    """While a device is without power these files take the place of those on its flash or card."""
    spawn, (image, n_bytes) = device._spawn, IMAGES[kind]

    def changing(runs_main: bool) -> None:
        folder = device.storage / "changed"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        fill(kind, device.storage / image, n_bytes, folder)
        spawn(runs_main)

    monkeypatch.setattr(device, "_spawn", changing)


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
    _selftest, _silence, music_offset, *start_offsets, _long, _cut = true
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
    brief: None,
    new_device: NewDevice,
    unplay_run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """It fails what it should and nothing else; the other passes; files for people and for programs."""
    quiet = TalkerSetup(level_db=None)
    well = Setup(card=CARD, talker=quiet)
    # an echo 28 dB louder clips; the only recording longer than 11 s meets two stalls; settings get lost
    ill = Setup(
        card=CardSetup(mb=16, stalls=[[11.0, 250], [13.0, 600]]),
        talker=quiet,
        room=RoomSetup(echo_db=12.0),
    )
    with new_device(well, name="well") as one, new_device(ill, name="ill") as other:
        change_at_restart(monkeypatch, other, "lfs", {"settings.json": b'{"board": "esp32"}'})
        with DeviceLink(other.port) as link:
            link.config_set({"volume_q15": 16_000})
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
    assert "settings_changed" in failed
    # what clips cannot be cancelled, what stalls shifts sound against recording
    assert failed <= {*FIGURES} - {
        *("noise_floor_dbfs", "start_offset_error_samples", "starts_without_marker", "residual_differences"),
        *("slowest_write_ms", "storage_errors", "load_percent"),
        *("restart_s", "files_damaged", "recording_lost_s"),
    }
    assert re.search(r"not as good as asked for: \w+: .*slips", run.err)
    suites = ElementTree.parse(tmp_path / "out.xml").getroot().findall("testsuite")
    assert [int(suite.attrib["failures"]) for suite in suites] == [len(well_failed), len(failed)]
    assert {case.attrib["name"] for case in suites[1] if case.find("failure") is not None} == failed
    lost = "settings unlike before the restart: 1; volume_q15 was 16000 and is 16384 (asked: ≤ 0)"
    assert lost in {case.findtext("system-out") for case in suites[1]}
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"{1 - len(well_failed)} of 2 devices are above all their floors" in page
    assert "Frequency response" in page
    assert lost in page
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", page)
    assert len(list((tmp_path / "library" / "validations").glob("*/*.json"))) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".part"))]


def test_a_device_without_room(new_device: NewDevice):
    from unplay.errors import BadInputError

    with new_device(Setup(card=None)) as device, DeviceLink(device.port) as link:
        link.config_set({"storage": "flash"})
        with pytest.raises(BadInputError, match=r"room for \d+ s: fetch"):
            validation.validate(link, SHIPPED, BRIEF)


@pytest.mark.parametrize("kind", ["uart", "usb"])
def test_a_restart_loses_at_most_a_second(new_device: NewDevice, tmp_path: Path, kind: str):
    """With a raised baud rate; and with a port that vanishes and comes back."""
    setup = Setup(card=CARD, line=LineSetup(kind=kind))
    with new_device(setup, link=tmp_path / "port") as device, DeviceLink(device.port) as link:
        push(link, song := takes.song(4))
        link.config_set({"name": "kitchen"})
        before = link.ls()
        found = power_cycle(link, song.name)
        assert link.ls() == before
        assert link.config_get()["name"] == "kitchen"
    assert found["settings_changed"] == found["files_damaged"] == (0, "")
    lost_s, of = found["recording_lost_s"]
    assert isinstance(lost_s, float)
    assert 0 <= lost_s < 1
    assert re.fullmatch(r"of \d+\.\d s", of)


def test_what_a_card_lost_is_named(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    """A file with another sample in it, one cut short, and all of the recording but a tenth of a second."""
    song = takes.song(4)
    other = song.pcm.copy()
    other[1000] += 1
    with new_device() as device, DeviceLink(device.port) as link:
        push(link, song)
        takes.record(link, "", 1)
        (id,) = {name.split("/")[1] for name in link.ls() if name.startswith("sessions/")}
        cut = f"sessions/{id[:-1]}{int(id[-1]) + 1}/mic.pcm"
        changed = {
            f"references/{song.name}.pcm": other.astype("<i2").tobytes(),
            f"sessions/{id}/session.json": b"{}",
            cut: bytes(3200),
        }
        change_at_restart(monkeypatch, device, "fat", changed)
        found = power_cycle(link, song.name)
    n_damaged, texts = found["files_damaged"]
    assert n_damaged == 2
    assert f"references/{song.name}.pcm has other content" in texts
    assert re.search(rf"sessions/{id}/session.json had \d+ bytes and has 2", texts)
    lost_s, of = found["recording_lost_s"]
    assert isinstance(lost_s, float)
    assert lost_s == pytest.approx(float(of.split()[1]) - 0.1, abs=0.05 + 1e-6)  # said to a tenth


def test_a_device_that_does_not_come_back(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DeviceLink, "restart", partialmethod(DeviceLink.restart, patience_s=0.2))
    with new_device() as device, DeviceLink(device.port) as link:
        monkeypatch.setattr(device, "_spawn", lambda runs_main: None)
        push(link, song := takes.song(4))
        found = power_cycle(link, song.name)
    assert set(found) == set(NAMES)
    assert all("the device did not come back: " in text for text in found.values())


def test_a_recording_that_ended_before(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unplay.hil.power_cycle.RECORDED_S", 1)
    with new_device() as device, DeviceLink(device.port) as link:
        push(link, song := takes.song(4))
        assert power_cycle(link, song.name)["recording_lost_s"] == "the recording had ended before"


def test_a_device_that_cannot_be_told(new_device: NewDevice):
    with new_device() as device, DeviceLink(device.port) as link:
        link.welcome["calls"].remove("restart")
        assert "this version" in power_cycle(link, "")["restart_s"]
