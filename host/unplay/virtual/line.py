"""A modelled serial line between what the host opens, a pseudo-terminal, and a device's process.

What it models: the time that bytes take, what becomes of those that the device's input has no room for, a USB
bridge's delay, bits that flip, USB packets that vanish, a pulled plug, ends at different rates, and the
keyboard interrupt. Linux only: it asks the kernel how many bytes the process has not read yet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import pty
import random
import re
import select
import struct
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TIOCGPTPEER = 0x5441
_CTRL_C = b"\x03"
_BURST_BYTES = 64  # a full-speed USB packet: what one accident takes
_TICK_S = 0.00025  # bytes are handed on at most this late
_READ_AHEAD_BYTES = 2048  # between a sender and the wire, as in a driver
_LISTEN_S = 0.1
_INTERRUPT_S = 0.5  # how long Ctrl-C waits for a program's next request; unplay's come every 20 ms
_BAUDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if re.fullmatch(r"B\d+", name)}


@dataclass(frozen=True)
class LineModel:
    """What a line is like.

    baud: 10 bits a byte, both ways; 0 for a line that is as fast as its ends.
    ring_bytes: what the device's input holds; 0 for no limit. drops: whether the rest is lost (a UART) or
    waits (USB).
    latency_s: from the device's end to the host's.
    bit_error_rate, loss: probability that a bit flips, and that up to 64 bytes that follow each other vanish.
    """

    baud: int = 0
    ring_bytes: int = 0
    drops: bool = False
    latency_s: float = 0.0
    bit_error_rate: float = 0.0
    loss: float = 0.0
    seed: int = 0


PLAIN = LineModel()
UART = LineModel(baud=115200, ring_bytes=260, drops=True, latency_s=0.001)
"""An ESP32 behind a USB bridge: no flow control."""
USB = LineModel(ring_bytes=512)
"""The USB port of a Pico or an ESP32-S3."""


class _Damage:
    """Flips bits and takes bursts away."""

    def __init__(self, model: LineModel) -> None:
        self._random = random.Random(model.seed)
        self._rate = model.bit_error_rate
        self._loss = model.loss
        self._bits_to_error = self._gap()
        self.faults = 0

    def _gap(self) -> int:
        """Bits until the next error: geometrically distributed."""
        if not self._rate:
            return 1 << 62
        return int(math.log(1.0 - self._random.random()) / math.log1p(-self._rate))

    def of(self, data: bytes) -> bytes:
        """What is left of up to a burst of bytes."""
        if self._loss and self._random.random() < self._loss * len(data) / _BURST_BYTES:
            self.faults += 1
            return b""
        damaged = bytearray(data)
        n_bits = 8 * len(data)
        while self._bits_to_error < n_bits:
            self.faults += 1
            damaged[self._bits_to_error // 8] ^= 1 << self._bits_to_error % 8
            self._bits_to_error += 1 + self._gap()
        self._bits_to_error -= n_bits
        return bytes(damaged)

    def garbled(self, data: bytes, times: float) -> bytes:
        """What a receiver makes of it whose rate is so many times the sender's."""
        return self._random.randbytes(math.ceil(len(data) * min(times, 1.0)))


class _Wire:
    """One direction: bytes that arrive in the order and at the rate of the line."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._due: deque[tuple[float, bytes]] = deque()
        self._free_s = 0.0
        self.n_bytes = 0

    def put(self, data: bytes, baud: int, damage: Callable[[bytes], bytes]) -> None:
        now_s = time.monotonic()
        self._free_s = max(self._free_s, now_s)
        step = min(_BURST_BYTES, max(8, int(baud / 10 * _TICK_S))) if baud else _BURST_BYTES
        for start in range(0, len(data), step):
            burst = data[start : start + step]
            self._free_s += 10 * len(burst) / baud if baud else 0.0
            if left := damage(burst):
                self._due.append((self._free_s + self._latency_s, left))
                self.n_bytes += len(left)

    def take(self, most: int) -> bytes:
        """Up to `most` bytes of those that have arrived."""
        now_s = time.monotonic()
        arrived = bytearray()
        while self._due and self._due[0][0] <= now_s and len(arrived) < most:
            due_s, data = self._due.popleft()
            room = most - len(arrived)
            if len(data) > room:
                self._due.appendleft((due_s, data[room:]))
            arrived += data[:room]
        self.n_bytes -= len(arrived)
        return bytes(arrived)

    def put_back(self, data: bytes) -> None:
        """Bytes that have arrived, to be taken again."""
        if data:
            self._due.appendleft((0.0, data))
            self.n_bytes += len(data)

    def wait_s(self) -> float:
        """Until the next bytes arrive."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else _LISTEN_S

    def clear(self) -> None:
        self._due.clear()
        self.n_bytes = 0


class Line:
    """Runs in a thread of its own from `start` to `close`; the host opens `path`.

    process_in, process_out: file descriptors of the device's standard input (to write to; the master of a
    pseudo-terminal) and output (to read from; may be the same).
    interrupt: interrupts a program from outside. Called when Ctrl-C has come while `keyboard_interrupt` was
    on, which the process's owner keeps as the process wants it, and nobody took it with `take_interrupt` for
    a while: the last resort, since a signal ends MicroPython's C code wherever it is, its locks held.
    link: a symbolic link to the pseudo-terminal, which keeps its name when the plug is pulled and put in.
    """

    def __init__(
        self,
        process_in: int,
        process_out: int,
        model: LineModel = PLAIN,
        interrupt: Callable[[], None] = lambda: None,
        link: Path | None = None,
    ) -> None:
        self.model = model
        self.dropped_bytes = 0
        self.raw_prompt = False  # Ctrl-A came after Ctrl-B: programs, not people, use the prompt
        self._interrupt = interrupt
        self._link = link
        self._damage = _Damage(model)
        self._up = _Wire(0.0)
        self._down = _Wire(model.latency_s)
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._host: tuple[int, int] | None = None
        self.attach(process_in, process_out)
        self.plug()

    def __enter__(self) -> Line:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> Line:
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the thread and pulls the plug; the process's file descriptors stay open."""
        self._stopped.set()
        self._thread.join()
        self.unplug()
        os.close(self._peer)

    @property
    def faults(self) -> int:
        """How many bits have flipped and bursts have vanished."""
        return self._damage.faults

    @property
    def path(self) -> str:
        """What the host opens."""
        return str(self._link) if self._link else self._name

    def attach(self, process_in: int, process_out: int) -> None:
        """Goes on with another process, as after a restart, at the first rate."""
        with self._lock:
            if hasattr(self, "_peer"):
                os.close(self._peer)
            self._process_in, self._process_out = process_in, process_out
            self._peer = fcntl.ioctl(process_in, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
            os.set_inheritable(self._peer, False)
            self._mark()
            self.baud = self.model.baud
            self._up.clear()
            self.keyboard_interrupt = True
            self._interrupted_s: float | None = None
            self._interrupt_due = False

    def plug(self) -> None:
        """Puts the plug in: there is a new pseudo-terminal, and the link leads to it."""
        with self._lock:
            if self._host is None:
                ours, theirs = pty.openpty()
                tty.setraw(theirs)
                self._host = ours, theirs
                self._name = os.ttyname(theirs)
                if self._link is not None:
                    self._link.unlink(missing_ok=True)
                    self._link.symlink_to(self._name)

    def unplug(self) -> None:
        """Pulls the plug: who has the port open finds it gone; bytes under way are lost."""
        with self._lock:
            if self._host is not None:
                for descriptor in self._host:
                    os.close(descriptor)
                self._host = None
                self._up.clear()
                self._down.clear()
                if self._link is not None:
                    self._link.unlink(missing_ok=True)

    def _mark(self) -> None:
        """Sets a flag that MicroPython's prompt takes away while it reads a line; it has no other effect."""
        attributes = termios.tcgetattr(self._peer)
        attributes[3] |= termios.ISIG
        for character in (termios.VINTR, termios.VQUIT, termios.VSUSP):
            attributes[6][character] = b"\0"
        termios.tcsetattr(self._peer, termios.TCSANOW, attributes)

    def interrupts(self) -> bool:
        """Whether Ctrl-C interrupts now; to the prompt it is a character like others."""
        return self.keyboard_interrupt and bool(termios.tcgetattr(self._peer)[3] & termios.ISIG)

    def take_interrupt(self) -> bool:
        """Whether Ctrl-C has come and the program that runs is to be interrupted; once."""
        with self._lock:
            due, self._interrupt_due = self._interrupt_due, False
            return due and self.interrupts()

    def _waits_for_prompt(self) -> bool:
        """Whether what came after Ctrl-C is for the prompt, which the program has not made way for yet."""
        if self._interrupted_s is None:
            return False
        if self.interrupts() and time.monotonic() < self._interrupted_s + _INTERRUPT_S:
            return True
        self._interrupted_s = None
        if self.take_interrupt():
            self._interrupt()
        return False

    def say(self, data: bytes) -> None:
        """Bytes to the host as if the device had sent them, after those that it has."""
        with self._lock:
            while sent := _read(self._process_out):
                self._down.put(sent, self.baud, self._damaged)
            self._down.put(data, self.baud, self._damaged)

    # The thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            readable = self._sleep()
            with self._lock:
                self._collect(readable)
                self._deliver()

    def _sleep(self) -> list[int]:
        """Until a byte is due, or one comes from an end that may send; the ends with something to read."""
        with self._lock:
            senders = [self._process_out] if self._down.n_bytes < _READ_AHEAD_BYTES else []
            if self._host is not None and self._up.n_bytes < _READ_AHEAD_BYTES:
                senders.append(self._host[0])
            wait_s = min(self._up.wait_s(), self._down.wait_s())
        try:
            return select.select(senders, [], [], wait_s if wait_s == 0 else max(_TICK_S, wait_s))[0]
        except OSError as error:  # the plug has just been pulled
            if error.errno != errno.EBADF:
                raise
            return []

    def _collect(self, readable: list[int]) -> None:
        if self._process_out in readable:
            data = _read(self._process_out)
            if not data:
                time.sleep(_TICK_S)  # its process has ended; another may be attached
            if self._host is not None:
                self._down.put(data, self.baud, self._damaged)
        if self._host is not None and self._host[0] in readable:
            self._up.put(_read(self._host[0]), self.baud, self._damaged_up)

    def _damaged(self, data: bytes) -> bytes:
        """What the host receives of it."""
        host_baud = self._host_baud()
        same = host_baud == self.baud
        return self._damage.of(data) if same else self._damage.garbled(data, host_baud / self.baud)

    def _damaged_up(self, data: bytes) -> bytes:
        """What the device receives of it."""
        host_baud = self._host_baud()
        same = host_baud == self.baud
        return self._damage.of(data) if same else self._damage.garbled(data, self.baud / host_baud)

    def _host_baud(self) -> int:
        """The rate that the host has set; on lines without a rate any is right."""
        if not self.baud or self._host is None:
            return self.baud
        return _BAUDS.get(termios.tcgetattr(self._host[1])[5], 1)

    def _deliver(self) -> None:
        if self._host is not None and (data := self._down.take(4096)):
            _write(self._host[0], data)
        if self._waits_for_prompt():
            time.sleep(_TICK_S)
            return
        data = self._up.take(self._room())
        if _CTRL_C in data and self.interrupts():
            self._up.put_back(data[data.rindex(_CTRL_C) + 1 :])
            termios.tcflush(self._peer, termios.TCIFLUSH)
            self._interrupted_s, self._interrupt_due = time.monotonic(), True
            return
        if b"\x01" in data or b"\x02" in data:
            self.raw_prompt = data.rfind(b"\x01") > data.rfind(b"\x02")
        if self.model.drops:
            room = self._free()
            self.dropped_bytes += max(0, len(data) - room)
            data = data[:room]
        if data:
            _write(self._process_in, data)
        elif self._up.n_bytes and self._up.wait_s() == 0:
            time.sleep(_TICK_S)  # the device is not reading

    def _room(self) -> int:
        """How much may be handed to the process: what there is room for; anything if the rest is dropped."""
        return 4096 if self.model.drops or not self.model.ring_bytes else self._free()

    def _free(self) -> int:
        waiting = struct.unpack("i", fcntl.ioctl(self._peer, termios.FIONREAD, bytes(4)))[0]
        return max(0, self.model.ring_bytes - waiting)


def _read(descriptor: int) -> bytes:
    """What there is; nothing where it has been read since somebody saw it."""
    try:
        if not select.select([descriptor], [], [], 0)[0]:
            return b""
        return os.read(descriptor, _READ_AHEAD_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(descriptor: int, data: bytes) -> None:
    """Writes to a pseudo-terminal what it takes at once; a port that nobody reads from loses the rest."""
    if select.select([], [descriptor], [], 0)[1]:
        with contextlib.suppress(OSError):
            os.write(descriptor, data)
