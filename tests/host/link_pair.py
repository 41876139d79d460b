"""Both ends of the link in one thread; only waiting moves the clock, so faults are repeatable and quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unplay.board import channel
from unplay.board import link as host_link
from unplay_device import link as device_link
from unplay_device.files import Files
from unplay_device.link import Link
from unplay_shared.faults import BUSY, DeviceError

Damage = Callable[[bytes], bytes]


class Application:
    """The least application there can be."""

    def __init__(self) -> None:
        self.recording = False

    def info(self) -> dict[str, Any]:
        return {"board": "none"}

    def is_recording(self) -> bool:
        return self.recording

    def is_open(self, name: str) -> bool:
        return self.recording

    def record(self, options: dict[str, Any]) -> dict[str, Any]:
        if self.recording:
            raise DeviceError(BUSY, {"what": "recording"})
        self.recording = True
        return {"id": "now"}

    def stop(self) -> dict[str, Any]:
        self.recording = False
        return {"id": "now"}

    def status(self) -> dict[str, Any]:
        return {"state": "idle"}

    def config_get(self) -> dict[str, Any]:
        return {}

    def config_set(self, values: dict[str, Any]) -> dict[str, Any]:
        return dict(values)

    def selftest(self) -> dict[str, Any]:
        return {}

    def set_time(self, unix_s: int) -> None:
        pass

    def log(self) -> list[str]:
        return ["a line"]

    def set_baud(self, rate: int) -> bool:
        return False


class Wires:
    """The device's console."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.interrupts = True

    def interrupt(self, on: bool) -> None:
        self.interrupts = on

    def read(self, view: memoryview, timeout_ms: int) -> int:
        n = min(len(view), len(self.incoming))
        view[:n] = self.incoming[:n]
        del self.incoming[:n]
        return n

    def write(self, view: memoryview) -> None:
        self.outgoing += view


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def time(self) -> float:
        return 1_800_000_000 + self.now_s

    def stop_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (channel, host_link, device_link):
            monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(device_link, "ticks_ms", lambda: int(1000 * self.now_s))


class Pair:
    """A port with a device at its other end; `damage` sees all bytes, in both directions."""

    name = "pair"
    has_baud = False
    baud = 115200

    def __init__(self, folder: Path, clock: Clock, damage: Damage = bytes) -> None:
        self.clock = clock
        self.damage = damage
        self.wires = Wires()
        self.application = Application()
        # Nobody sends while the device reads, so packets must come whole.
        self.device = Link(self.wires, Files(lambda: str(folder)), self.application, credit_bytes=8192)
        self.written = 0

    def read(self, timeout_s: float) -> bytes:
        self.device.poll()
        while self.wires.incoming:
            self.device.poll()
        if not self.wires.outgoing:
            self.clock.now_s += max(timeout_s, 1e-4)
        data = self.damage(bytes(self.wires.outgoing))
        self.wires.outgoing.clear()
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        self.wires.incoming += self.damage(bytes(data))

    def close(self) -> None:
        self.device.close()
