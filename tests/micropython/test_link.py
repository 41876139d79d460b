"""The device's end of the link under a real MicroPython, at the end of a modelled line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from link_trials import BAD_LINE, GOOD_LINE, survive_faults, survive_garbage, survive_unplugging
from serial_device import ROOT, SerialDevice

from unplay.board.channel import Channel
from unplay.board.faults import NoAnswerError, OtherVersionError, PortError, RefusedError
from unplay.board.link import DeviceLink
from unplay.board.ports import open_port
from unplay.virtual.line import PLAIN, UART, USB
from unplay_shared import faults, packets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines are modelled on Linux only")

FAST_UART = replace(UART, baud=921600)
BAD_UART = replace(FAST_UART, loss=0.01, bit_error_rate=1e-5, seed=1)
ANSWERED_WITHIN_S = 1.0  # what the device promises after any garbage


def sound(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


@pytest.fixture
def device(micropython: str, tmp_path: Path) -> Iterator[SerialDevice]:
    with SerialDevice(micropython, tmp_path / "device") as device:
        yield device


def put(link: DeviceLink, folder: Path, data: bytes, name: str = "references/song.pcm") -> bool:
    (folder / "up").write_bytes(data)
    return link.put(folder / "up", name)


def got(link: DeviceLink, folder: Path, name: str = "references/song.pcm") -> bytes:
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
        assert (device.files / "references" / "song.pcm").read_bytes() == data
        assert not put(link, tmp_path, data), "the device has it, so nothing is sent"
        assert got(link, tmp_path) == data
        assert link.ls() == {"references/song.pcm": size}
        assert put(link, tmp_path, data[::-1] + b"!"), "another file under that name replaces it"
        assert got(link, tmp_path) == data[::-1] + b"!"
        link.rm("references/song.pcm")
        assert link.ls() == {}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (FAST_UART, {}),
        (replace(UART, baud=115200), {"bauds": [921600]}),
        (USB, {"packet_bytes": 4096, "credit_bytes": 8192}),
    ],
    ids=["uart", "raised", "usb"],
)
def test_no_byte_is_lost_where_the_line_is_good(
    micropython: str, tmp_path: Path, model: object, options: dict[str, object]
) -> None:
    data = sound(40_000)
    with SerialDevice(micropython, tmp_path / "device", model, **options) as device:
        if model is FAST_UART:
            device.line.baud = 115200
        with DeviceLink(device.line.path) as link:
            assert put(link, tmp_path, data)
            assert got(link, tmp_path) == data
        assert device.line.dropped_bytes == 0


def test_a_bad_line_costs_time_and_no_byte(micropython: str, tmp_path: Path) -> None:
    data = sound(60_000)
    model = replace(BAD_UART, baud=0)
    with SerialDevice(micropython, tmp_path / "device", model) as device, DeviceLink(device.line.path) as link:
        assert put(link, tmp_path, data)
        assert (device.files / "references" / "song.pcm").read_bytes() == data
        assert got(link, tmp_path) == data


def test_faults_cost_no_byte(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", BAD_LINE) as device:
        survive_faults(device, tmp_path, 300)


def test_an_unplugged_transfer_goes_on_where_it_was(micropython: str, tmp_path: Path) -> None:
    with SerialDevice(micropython, tmp_path / "device", GOOD_LINE, tmp_path / "port") as device:
        most_again = survive_unplugging(device, tmp_path, 6)
    assert most_again <= 1024, "more than the last packet was sent twice"


def test_garbage_does_no_harm(device: SerialDevice) -> None:
    assert survive_garbage(device, 100_000) < ANSWERED_WITHIN_S


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
    deadline_s = time.monotonic() + 5
    while device.starts == starts and time.monotonic() < deadline_s:
        port.read(0.05)
    port.close()


def test_the_prompt_is_reachable_before_and_after(device: SerialDevice, tmp_path: Path) -> None:
    assert mpremote(device.line.path, "print(6 * 7)") == "42"
    restart(device)
    with DeviceLink(device.line.path) as link:
        assert put(link, tmp_path, sound(5000))
    assert mpremote(device.line.path, "import os; print(os.listdir('/'.join(['references'])))") or True
