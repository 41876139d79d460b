"""Installing over the raw prompt of a virtual device: a real MicroPython, its files on a real file system."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from unplay.board import install as installing
from unplay.board.firmware import VIRTUAL, build
from unplay.board.install import Installed, board_name, install, processor, wait_for_prompt, wait_for_start
from unplay.board.link import DeviceLink
from unplay.board.repl import open_repl
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay.virtual.device import FLASH_BYTES, VirtualDevice, fill
from unplay.virtual.setup import CardSetup, Setup

NewDevice = Callable[..., VirtualDevice]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(folder, VIRTUAL)
    return folder


@pytest.fixture(autouse=True)
def _compile_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than what is tested here."""

    def copied(folder: Path, architecture: str) -> list[Path]:
        assert architecture == VIRTUAL
        shutil.copytree(built, folder, dirs_exist_ok=True)
        return [path for path in folder.rglob("*") if path.is_file()]

    monkeypatch.setattr(installing, "build", copied)


@pytest.fixture
def blank(micropython: str, tmp_path: Path) -> VirtualDevice:
    """A board that has MicroPython, and nothing else."""
    storage, empty = tmp_path / "blank", tmp_path / "empty"
    storage.mkdir()
    empty.mkdir()
    fill("lfs", storage / "flash.img", FLASH_BYTES, empty)
    fill("fat", storage / "card.img", 16 << 20, empty)
    return VirtualDevice(storage, Setup(card=CardSetup(mb=16)))


@contextmanager
def prompt(device: VirtualDevice) -> Iterator[Callable[[str], Any]]:
    """Runs code on the device, which is reset at the end."""
    with open_repl(device.port) as repl:
        yield repl.run
        repl.leave("import machine\nmachine.reset()")


def write(run: Callable[[str], Any], path: str, data: bytes) -> None:
    run(f"with open({path!r}, 'wb') as file:\n _ = file.write({data!r})")


def test_a_blank_board_is_set_up_at_once(blank: VirtualDevice):
    """The command's whole story, but for the flashing: wait for the prompt, install, record."""
    with blank as device:
        assert wait_for_prompt(device.port) == device.port
        done = install(device.port)
        assert done.started
        assert "/main.py" in done.written
        assert "/settings.json" in done.written
        assert (done.kept, done.removed) == (0, [])
        with DeviceLink(device.port) as link:
            assert link.call("info")["board"] == "esp32"
            name = link.record({"reference": "", "seconds": 1})["id"]
            for status in link.status():
                if status["state"] == "idle":
                    break
            assert f"sessions/{name}/mic.pcm" in link.ls()


def test_only_what_differs_is_written_and_settings_stay(new_device: NewDevice):
    with new_device() as device:
        with DeviceLink(device.port) as link:
            link.config_set({"volume_q15": 12345})
        with prompt(device) as run:
            write(run, "/lib/unplay_device/pace.mpy", b"damaged")
            write(run, "/lib/unplay_device/old_module.mpy", b"of an earlier version")
        done = install(device.port)
        assert done.written == ["/lib/unplay_device/pace.mpy"]
        assert done.removed == ["/lib/unplay_device/old_module.mpy"]
        assert done.started
        with DeviceLink(device.port) as link:
            assert link.config_get()["volume_q15"] == 12345
        again = install(device.port)
        assert (again.written, again.removed, again.started) == ([], [], True)


def test_dry_run_changes_nothing(blank: VirtualDevice):
    with blank as device:
        done = install(device.port, dry_run=True)
        assert len(done.written) > 20
        with prompt(device) as run:
            assert run("import os, json\nprint(json.dumps(os.listdir('/')))") == []


def test_a_stranger_s_main_is_kept(blank: VirtualDevice):
    with blank as device:
        with prompt(device) as run:
            write(run, "/main.py", b"print(12)")
        assert install(device.port).started
        with prompt(device) as run:
            assert run(f"print(open({installing.FOREIGN_MAIN!r}).read()[6:8])") == 12


def test_power_lost_while_files_are_sent(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    """Until all new files are there the old ones count: the application runs; the next try succeeds."""

    def with_another_file(folder: Path, architecture: str) -> list[Path]:
        paths = copied(folder, architecture)
        more = folder / "lib" / "unplay_device" / "more.mpy"
        more.write_bytes(random.Random(0).randbytes(20_000))
        return [*paths, more]

    copied = installing.build
    monkeypatch.setattr(installing, "build", with_another_file)
    with new_device() as device:
        for share in random.Random(1).choices(range(5, 95), k=3):

            def cut(doing: str, done: float, at: float = share / 100) -> None:
                if doing.startswith("writing") and done >= at:
                    device.cut_power()
                    raise DeviceUnreachableError("the power is gone")

            with pytest.raises(DeviceUnreachableError):
                install(device.port, progress=cut)
            device.start()
            assert wait_for_start(device.port)
        assert install(device.port).written == ["/lib/unplay_device/more.mpy"]


def test_a_damaged_transfer_is_found(new_device: NewDevice, monkeypatch: pytest.MonkeyPatch):
    """What the board holds is compared by its hash before it counts."""
    send = installing.Repl.write
    monkeypatch.setattr(
        installing.Repl, "write", lambda repl, path, data, progress: send(repl, path, data[:-1], progress)
    )
    with new_device() as device:
        with prompt(device) as run:
            write(run, "/lib/unplay_device/old_module.mpy", b"to be removed")
            write(run, "/lib/unplay_device/pace.mpy", b"damaged")
        with pytest.raises(DeviceUnreachableError, match=r"pace\.mpy did not arrive as it was sent"):
            install(device.port)


def test_a_recording_is_not_interrupted(new_device: NewDevice):
    with new_device(speed=1.0) as device:
        with DeviceLink(device.port) as link:
            link.record({"reference": "", "seconds": 60})
        with pytest.raises(BadInputError, match="is recording"):
            install(device.port)
        with DeviceLink(device.port) as link:
            link.stop()


def test_a_host_that_was_killed_does_not_keep_the_prompt(new_device: NewDevice):
    """In a session Ctrl-C is data; the device ends the session when it has heard nothing for a while."""
    with new_device() as device:
        DeviceLink(device.port).port.close()
        with prompt(device) as run:
            assert run("print(1 + 1)") == 2


def test_no_micropython_answers(monkeypatch: pytest.MonkeyPatch):
    """A port that is silent."""
    monkeypatch.setattr("unplay.board.repl._PATIENCE_S", 0.1)
    ours, theirs = pty.openpty()
    try:
        with (
            pytest.raises(DeviceUnreachableError, match="unplay device flash"),
            open_repl(os.ttyname(theirs)),
        ):
            pass
    finally:
        os.close(ours)
        os.close(theirs)


def said(**changes: Any) -> dict[str, Any]:
    """What a board says of itself."""
    usual = {"platform": "rp2", "machine": "Raspberry Pi Pico with RP2040", "firmware": [1, 29, 0]}
    return {**usual, "mpy": 6 | 3 << 8 | 4 << 10, **changes}


@pytest.mark.parametrize(
    ("platform", "machine", "architecture", "expected"),
    [
        ("rp2", "Raspberry Pi Pico with RP2040", 4, ("pico", "armv6m")),
        ("rp2", "Raspberry Pi Pico2 with RP2350", 7, ("pico2", "armv7emsp")),
        ("esp32", "Generic ESP32 module with ESP32", 10, ("esp32", "xtensawin")),
        ("esp32", "Generic ESP32S3 module with ESP32S3", 10, ("esp32s3", "xtensawin")),
    ],
)
def test_boards_are_told_apart(platform: str, machine: str, architecture: int, expected: tuple[str, str]):
    found = said(platform=platform, machine=machine, mpy=6 | 3 << 8 | architecture << 10)
    assert (board_name(found), processor(found)) == expected


@pytest.mark.parametrize("chip", ["ESP32C3", "ESP32C6", "ESP32S2", "ESP32-H2"])
def test_boards_with_one_i2s_are_refused(chip: str):
    with pytest.raises(BadInputError, match="cannot play and record at once"):
        board_name(said(platform="esp32", machine=f"Generic module with {chip}"))


def test_other_boards_and_versions_are_refused():
    with pytest.raises(BadInputError, match=r"reads compiled files of version 5\.0.*unplay device flash"):
        processor(said(mpy=5))
    with pytest.raises(BadInputError, match="no ESP32, ESP32-S3, Pico or Pico 2"):
        processor(said(mpy=6 | 3 << 8 | 11 << 10))
    with pytest.raises(BadInputError, match="no ESP32, ESP32-S3, Pico or Pico 2"):
        board_name(said(platform="stm32"))


def test_what_was_done_is_json(new_device: NewDevice):
    with new_device() as device:
        done = install(device.port, dry_run=True)
    assert Installed(**json.loads(json.dumps(done.as_json()))) == done
