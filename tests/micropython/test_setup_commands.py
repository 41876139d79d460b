"""`unplay device install`, `doctor` and `setup` as a user runs them, on a virtual device."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unplay.board.flash import Flashed
from unplay.board.images import ESP_HEADER
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
        assert unplay_run("device", "info", "--port", device.port).code == 0, (
            "the board was not started again"
        )
    assert done.code == 0, done.err
    assert "would write 0 files" in done.out


@pytest.fixture
def full_port() -> Iterator[str]:
    """Something that hangs: its input is full, and it reads nothing."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(1024))
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("command", ["doctor", "install"])
def test_a_device_that_hangs(full_port: str, command: str, unplay_run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unplay.board.repl._WRITE_S", 0.1)
    monkeypatch.setattr("unplay.board.ports._WRITE_TIMEOUT_S", 0.1)
    done = unplay_run("device", command, "--port", full_port)
    assert (done.code, done.err.count("\n")) == (5, 1)
    assert "takes no bytes" in done.err


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        (".", r"\. is no serial port"),
        ("/dev/null", "/dev/null is no serial port"),
        ("no-port", "there is no port no-port"),
        ("tcp://127.0.0.1:1", r"tcp://127\.0\.0\.1:1 is no serial port, over which alone"),
    ],
)
@pytest.mark.parametrize("command", [["install"], ["flash", "firmware.bin"]])
def test_what_is_no_port(
    command: list[str],
    port: str,
    sentence: str,
    unplay_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unplay.board.repl._TRIES", 1)
    header = ESP_HEADER.pack(0xE9, 3, 2, 0x20, 0x40080000, 0xEE, 0, 0, 0, 65535)
    (tmp_path / "firmware.bin").write_bytes(header + bytes(100_000))
    done = unplay_run("device", *command, "--port", port)
    assert (done.code, done.err.count("\n")) == (5, 1)
    assert re.search(sentence, done.err)


def test_what_is_no_firmware(unplay_run: Run, tmp_path: Path):
    folder, absent = (unplay_run("device", "flash", path) for path in (tmp_path, tmp_path / "no.bin"))
    assert (folder.code, absent.code) == (2, 2)
    assert "is a folder: name the firmware file. The stock MicroPython" in folder.err
    assert "cannot be read (No such file or directory)" in absent.err


def test_no_board_and_bad_files(unplay_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unplay.board.repl._TRIES", 1)
    song = tmp_path / "song.wav"
    song.write_bytes(b"RIFF" + bytes(100))
    assert unplay_run("device", "flash", song).code == 2
    done = unplay_run("device", "install", "--port", tmp_path / "no-port")
    assert done.code == 5
    assert "Traceback" not in done.err
