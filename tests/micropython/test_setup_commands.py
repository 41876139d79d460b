"""`unplay device install`, `doctor` and `setup` as a user runs them, on a virtual device."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unplay.board.flash import Flashed
from unplay.virtual.device import VirtualDevice
from unplay.virtual.setup import CardSetup, Setup, TalkerSetup
from unplay.virtual.wiring import FaultSetup

Run = Callable[..., Any]

ROOM = Setup(talker=TalkerSetup(level_db=None), card=CardSetup(mb=16))


def test_setup_does_all_of_it(new_device: Callable[..., VirtualDevice], unplay_run: Run, monkeypatch):
    """Flash (on mocks in tests/host/test_flash.py), install, examine; one JSON document with all three."""
    flashed = Flashed("firmware.bin", "ESP32", "esp32", "a port", 1_600_000, 1_600_000, False)
    monkeypatch.setattr("unplay.board.flash.flash", lambda *_, **__: flashed)
    with new_device(ROOM) as device:
        done = unplay_run("device", "setup", "firmware.bin", "--port", device.port, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["flash"] == flashed.as_json()
    assert said["install"]["started"]
    assert said["doctor"]["findings"] == []


def test_a_fault_ends_with_code_6_and_names_the_wire(
    new_device: Callable[..., VirtualDevice], unplay_run: Run
):
    with new_device(replace(ROOM, fault=FaultSetup(slot="right"))) as device:
        done = unplay_run("device", "doctor", "--port", device.port)
    assert done.code == 6
    assert "slot=right" in done.out
    assert "L/R wire to GND" in done.out


def test_install_says_what_it_would_do(new_device: Callable[..., VirtualDevice], unplay_run: Run):
    with new_device(ROOM) as device:
        done = unplay_run("device", "install", "--dry-run", "--port", device.port)
    assert done.code == 0, done.err
    assert "would write 0 files" in done.out


def test_no_board_and_bad_files(unplay_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unplay.board.repl._TRIES", 1)
    song = tmp_path / "song.wav"
    song.write_bytes(b"RIFF" + bytes(100))
    assert unplay_run("device", "flash", song).code == 2
    done = unplay_run("device", "install", "--port", tmp_path / "no-port")
    assert done.code == 5
    assert "Traceback" not in done.err
