"""How fast files go up to a device and down from it, on modelled lines, with mpremote beside it.

    python tests/host/benchmarks/link_speed.py

Prints a table and exits with 1 where a target is missed. A real MicroPython is at the other end of the line,
as fast as this computer is; so what is measured is the protocol and the host. Where it may (as root), it asks
for real-time priority: other programs on the computer would be measured else. mpremote is made to run at the
line's rate, for which it has no option.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "micropython"))

import numpy as np
from serial_device import SerialDevice

from unplay.board.link import DeviceLink
from unplay.board.ports import open_port
from unplay.virtual.line import UART, USB, LineModel
from unplay.virtual.scene import make_scene

MICROPYTHON = str(Path(sys.executable).with_name("micropython"))
NAME = "references/song.pcm"
TIMES_MPREMOTE = 2.5

MPREMOTE = """
import sys
from mpremote import main, transport_serial
init = transport_serial.SerialTransport.__init__
transport_serial.SerialTransport.__init__ = lambda self, device, **_: init(self, device, baudrate={baud})
sys.exit(main.main())
"""


@dataclass(frozen=True)
class Case:
    """A line, how much goes over it, and what must be reached: a share of the line, or kB/s."""

    name: str
    model: LineModel
    n_bytes: int
    up: float
    down: float
    mpremote_bytes: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def baud(self) -> int:
        return self.model.baud or 115200


FAST = replace(UART, baud=921600)
FAULTY = {"loss": 0.01, "bit_error_rate": 1e-5}
CASES = [
    Case("115200 baud", UART, 200_000, 0.85, 0.92, 48_000),
    Case("921600 baud", FAST, 1_000_000, 0.65, 0.85, 100_000),
    Case("USB", USB, 1_000_000, 300, 300, 200_000, {"packet_bytes": 4096, "credit_bytes": 8192}),
    Case("115200 baud, faults", replace(UART, **FAULTY), 200_000, 0.60, 0.60),
    Case("921600 baud, faults", replace(FAST, **FAULTY), 500_000, 0.60, 0.60),
]


def _keep_device(pipe: Connection, folder: Path, case: Case) -> None:
    """In a process of its own, so that the line does not share this one's interpreter lock."""
    with SerialDevice(MICROPYTHON, folder, case.model, **case.options) as device:
        pipe.send(device.line.path)
        pipe.recv()


@contextmanager
def device(case: Case, folder: Path) -> Iterator[str]:
    """The port of a device at the end of that line."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_keep_device, args=(theirs, folder, case))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        process.join()


def audio(n_bytes: int) -> bytes:
    """Music of a formula, as 16-bit samples."""
    seconds = 1 + n_bytes / 2 / 16_000
    scene = make_scene(duration_s=seconds, reference_s=seconds, offset_s=0.0)
    samples = np.asarray(scene.reference, np.float64).ravel()
    return np.round(32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes()[:n_bytes]


def timed(action: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s


def ours(case: Case, folder: Path) -> list[float]:
    """Bytes a second up and down."""
    up, down = folder / "up", folder / "down"
    up.write_bytes(audio(case.n_bytes))
    down.unlink(missing_ok=True)
    with device(case, folder / "device") as name, DeviceLink(open_port(name, case.baud)) as link:
        times_s = [timed(lambda: link.put(up, NAME)), timed(lambda: link.get(NAME, down))]
    assert down.read_bytes() == up.read_bytes()
    return [case.n_bytes / time_s for time_s in times_s]


def mpremotes(case: Case, folder: Path) -> list[float]:
    """The same for `mpremote cp`, without the time that it takes to start."""
    up, down = folder / "up", folder / "down"
    up.write_bytes(audio(case.mpremote_bytes))
    program = MPREMOTE.format(baud=case.baud)

    def run(port: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, "connect", port, "resume", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    there = f":{folder / 'device' / 'song.pcm'}"
    with device(case, folder / "device") as port:
        run(port, "exec", "pass")
        start_s = timed(lambda: run(port, "exec", "pass"))
        times_s = [
            timed(lambda: run(port, "cp", str(up), there)),
            timed(lambda: run(port, "cp", there, str(down))),
        ]
    assert down.read_bytes() == up.read_bytes()
    return [case.mpremote_bytes / (time_s - start_s) for time_s in times_s]


def row(case: Case, way: str, ours_hz: float, theirs_hz: float | None, least: float) -> tuple[str, bool]:
    """A line of the table, and whether it reaches what it must."""
    share = ours_hz / (case.model.baud / 10) if case.model.baud else None
    reached = (ours_hz / 1000 if share is None else share) >= least
    cells = [case.name, way, f"{ours_hz / 1000:.1f}", "" if share is None else f"{100 * share:.0f} %"]
    cells.append(f"{least} kB/s" if share is None else f"{100 * least:.0f} %")
    if theirs_hz is None:
        cells += ["", ""]
    else:
        cells += [f"{theirs_hz / 1000:.1f}", f"{ours_hz / theirs_hz:.1f}"]
        reached = reached and ours_hz >= TIMES_MPREMOTE * theirs_hz
    return f"| {' | '.join(cells)} |{'' if reached else ' **missed**'}", reached


def main() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        print("no permission for real-time priority: other programs are measured, too", file=sys.stderr)
    wanted = sys.argv[1:]
    all_reached = True
    print("| line | | kB/s | of the line | at least | mpremote, kB/s | times mpremote |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        if wanted and not any(case.name.startswith(name) for name in wanted):
            continue
        with tempfile.TemporaryDirectory() as name:
            rates = ours(case, Path(name))
            theirs = mpremotes(case, Path(name)) if case.mpremote_bytes else [None, None]
        for i, (way, least) in enumerate((("up", case.up), ("down", case.down))):
            text, reached = row(case, way, rates[i], theirs[i], least)
            print(text, flush=True)
            all_reached = all_reached and reached
    sys.exit(0 if all_reached else 1)


if __name__ == "__main__":
    main()
