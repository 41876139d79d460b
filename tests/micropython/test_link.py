"""The device's end of the link under a real MicroPython, at the end of a modelled line."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from link_trials import BAD_LINE, GOOD_LINE, survive_faults, survive_garbage, survive_unplugging
from serial_device import ROOT, SerialDevice

from unplay.board.faults import NoAnswerError, OtherVersionError, PortError, RefusedError
from unplay.board.link import DeviceLink
from unplay.board.ports import open_port
from unplay.virtual.line import UART, USB, LineModel
from unplay_shared import faults, packets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines are modelled on Linux only")

NAME = "references/song.pcm"
ANSWERED_WITHIN_S = 1.0  # what the device promises after any garbage


def sound(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


@pytest.fixture
def device(micropython: str, tmp_path: Path) -> Iterator[SerialDevice]:
    with SerialDevice(micropython, tmp_path / "device") as device:
        yield device


def put(link: DeviceLink, folder: Path, data: bytes, name: str = NAME) -> bool:
    (folder / "up").write_bytes(data)
    return link.put(folder / "up", name)


def got(link: DeviceLink, folder: Path, name: str = NAME) -> bytes:
    link.get(name, folder / "down")
    return (folder / "down").read_bytes()


def test_shared_tests_pass_on_micropython(micropython: str) -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'shared')!r}, {str(ROOT / 'tests' / 'shared')!r}]\n"
        "import test_packets as tests\n"
        "for name in dir(tests):\n"
        "    if name.startswith('test_'):\n"
        "        getattr(tests, name)(); print(name)\n"
    )
    run = subprocess.run([micropython, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("test_") >= 7


@pytest.mark.parametrize("size", [0, 1, 1020, 1021, 50_000])
def test_files_arrive(device: SerialDevice, tmp_path: Path, size: int) -> None:
    data = sound(size)
    with DeviceLink(device.line.path) as link:
        assert put(link, tmp_path, data)
        assert (device.files / NAME).read_bytes() == data
        assert not put(link, tmp_path, data), "the device has it, so nothing is sent"
        assert got(link, tmp_path) == data
        assert link.ls() == {NAME: size}
        assert put(link, tmp_path, data[::-1] + b"!"), "another file under that name replaces it"
        assert got(link, tmp_path) == data[::-1] + b"!"
        link.rm(NAME)
        assert link.ls() == {}


@pytest.mark.parametrize(
    ("model", "options"),
    [(UART, {"bauds": [921600]}), (USB, {"packet_bytes": 4096, "credit_bytes": 8192})],
    ids=["uart", "usb"],
)
def test_a_good_line_loses_nothing(
    micropython: str, tmp_path: Path, model: LineModel, options: dict[str, Any]
) -> None:
    data = sound(40_000)
    with SerialDevice(micropython, tmp_path / "device", model, **options) as device:
        link = DeviceLink(device.line.path)
        assert link.port.baud == options.get("bauds", [packets.DEFAULT_BAUD])[0]
        assert put(link, tmp_path, data)
        assert got(link, tmp_path) == data
        link.close()
        deadline_s = time.monotonic() + 5
        while device.line.baud != model.baud:
            assert time.monotonic() < deadline_s, "at the end the line does not run as at the start"


def test_a_host_that_crashed_finds_the_device_again(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", UART, bauds=[921600]) as device:
        crashed = DeviceLink(device.line.path)
        crashed.port.close()
        with DeviceLink(device.line.path) as link:
            assert put(link, tmp_path, sound(2000))
        assert device.starts == 1


def test_a_rate_that_does_not_work_is_given_up(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", UART, bauds=[921600]) as device:
        device.follows_baud = False
        with DeviceLink(device.line.path) as link:
            assert link.port.baud == packets.DEFAULT_BAUD
            assert put(link, tmp_path, sound(2000))


@pytest.mark.parametrize("silent_s", [6.0, 12.0])
def test_a_device_that_went_back_to_its_first_rate_is_followed(
    micropython: str, tmp_path: Path, silent_s: float
) -> None:
    with SerialDevice(micropython, tmp_path / "device", UART, bauds=[921600]) as device:
        with DeviceLink(device.line.path) as link:
            device.process.kill()
            while device.starts == 1:
                time.sleep(0.01)
            link.channel.heard_s -= silent_s
            assert link.info()["board"] == "unix"
            assert link.port.baud == 921600
        assert device.starts == 2


def test_faults_cost_no_byte(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", BAD_LINE) as device:
        survive_faults(device, tmp_path, 100)


def test_an_unplugged_transfer_goes_on_where_it_was(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", GOOD_LINE, tmp_path / "port") as device:
        assert survive_unplugging(device, tmp_path, 6) <= 0, "what was acknowledged was sent again"


def test_an_upload_of_another_file_starts_anew(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", GOOD_LINE, tmp_path / "port") as device:
        (device.files / "references").mkdir()
        (device.files / f"{NAME}.part").write_bytes(sound(5000, seed=2))
        with DeviceLink(device.line.path) as link:
            assert put(link, tmp_path, sound(9000))
        assert (device.files / NAME).read_bytes() == sound(9000)


def test_a_download_of_another_file_starts_anew(device: SerialDevice, tmp_path: Path) -> None:
    (tmp_path / "down.part").write_bytes(sound(5000, seed=2))
    with DeviceLink(device.line.path) as link:
        put(link, tmp_path, sound(9000))
        assert got(link, tmp_path) == sound(9000)
    assert not (tmp_path / "down.part").exists()


def test_garbage_does_no_harm(device: SerialDevice) -> None:
    assert survive_garbage(device, 100_000) < ANSWERED_WITHIN_S


def test_names_are_confined(device: SerialDevice, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    names = [
        "", "/", "secret", "../secret", "references", "references/", "/references/a", "references/../secret",
        "references/a/b", "references//a", "references/.", "references/..", "sessions/a", "sessions/a/b/c",
        "sessions/../secret", "sessions/../../secret", "references/a\0b", "references/a\\b", "boot.py",
        "references/" + "a" * 200, "references/a.part",
    ]  # fmt: skip
    with DeviceLink(device.line.path) as link:
        for name in names:
            with pytest.raises(RefusedError) as put_refused:
                link.put(tmp_path / "secret", name)
            assert put_refused.value.code in (faults.BAD_NAME, faults.BAD_ARGUMENT), name
            if name != "references/a.part":
                with pytest.raises(RefusedError, match="is no name on the device"):
                    link.get(name, tmp_path / "down")
        with pytest.raises(RefusedError, match="is no name on the device"):
            link.rm("sessions")
    assert not (tmp_path / "down").exists()


def test_a_device_without_room_says_so(device: SerialDevice, tmp_path: Path) -> None:
    with DeviceLink(device.line.path) as link, pytest.raises(RefusedError, match="bytes free and") as refused:
        link.call("begin", name=NAME, size=1 << 60, sha256="0" * 64)
    assert refused.value.exit_code == 5


def test_calls(device: SerialDevice) -> None:
    with DeviceLink(device.line.path) as link:
        assert link.info()["board"] == "unix"
        assert link.config_get() == {"seconds": 60}
        assert link.config_set({"seconds": 1}) == {"seconds": 1}
        assert link.selftest() == {"ok": 1}
        link.set_time(1_800_000_000)
        assert link.log() == [f"line {i}, at 1800000000" for i in range(200)]
        with pytest.raises(RefusedError, match="not recording"):
            link.stop()
        link.config_set({"seconds": 0})
        with pytest.raises(RefusedError, match="ZeroDivisionError"):
            link.selftest()
        with pytest.raises(RefusedError, match=r"does not know 'dance'.*install"):
            link.call("dance")


def test_a_recording_device_refuses_files_and_tells_its_status(device: SerialDevice, tmp_path: Path) -> None:
    (device.files / "sessions" / "now").mkdir(parents=True)
    (device.files / "sessions" / "now" / "mic.pcm").write_bytes(b"sound")
    with DeviceLink(device.line.path) as link:
        put(link, tmp_path, sound(100))
        link.record({"seconds": 3})
        for refused in (
            lambda: put(link, tmp_path, sound(200)),
            lambda: got(link, tmp_path),
            lambda: link.rm("sessions/now"),
        ):
            with pytest.raises(RefusedError, match="busy recording"):
                refused()
        states = list(islice(link.status(), 4))
        assert states[0] == {"state": "recording"}
        assert all(state["level_db"] == -20 for state in states[1:])
        link.stop()
        link.rm("sessions/now")
        assert link.ls() == {NAME: 100}


def test_what_is_asked_twice_is_done_once(device: SerialDevice) -> None:
    with DeviceLink(device.line.path) as link:
        for _ in range(2):  # the first answer was lost
            link.channel.send(packets.CALL, b'{"do": "record"}', seq=200)
            answer = link.channel.answer_to(200, 1.0)
            assert answer is not None
            assert answer.json()["started"] == 1


def test_other_versions_are_refused(device: SerialDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MAJOR", 2)
    with pytest.raises(OtherVersionError, match=r"version 1\.\d of the link and this program 2\.\d.*install"):
        DeviceLink(device.line.path)
    monkeypatch.setattr(packets, "MAJOR", 0)
    with pytest.raises(OtherVersionError, match="update unplay on this computer"):
        DeviceLink(device.line.path)


def test_a_newer_minor_version_is_no_obstacle(
    device: SerialDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MINOR", 7)
    with DeviceLink(device.line.path) as link:
        assert put(link, tmp_path, sound(100))


def test_a_port_in_use_says_so(device: SerialDevice) -> None:
    with DeviceLink(device.line.path), pytest.raises(PortError, match="another program has"):
        DeviceLink(device.line.path)


def mpremote(port: str, program: str) -> str:
    command = [sys.executable, "-m", "mpremote", "connect", port, "resume", "exec", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.strip()


def restart(device: SerialDevice) -> None:
    """Ctrl-B, Ctrl-D: leaves the raw prompt and restarts, as mpremote's `soft-reset` does."""
    starts = device.starts
    port = open_port(device.line.path)
    port.write(b"\r\x02\x04")
    deadline_s = time.monotonic() + 10
    while device.starts == starts and time.monotonic() < deadline_s:
        port.read(0.05)
    port.close()


def test_the_prompt_is_reachable_before_and_after(device: SerialDevice, tmp_path: Path) -> None:
    assert mpremote(device.line.path, "print(6 * 7)") == "42"
    with pytest.raises(NoAnswerError, match="prompt answers"):
        DeviceLink(device.line.path, patience_s=0.5)
    restart(device)
    with DeviceLink(device.line.path) as link:
        assert put(link, tmp_path, sound(5000) + b"\x03" * 100)
    assert mpremote(device.line.path, "print(6 * 7)") == "42"
