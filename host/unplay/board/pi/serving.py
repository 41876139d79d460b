"""Runs the device's program: supplies its modules, connects its link to TCP or a serial port."""

from __future__ import annotations

import os
import runpy
import selectors
import socket
import sys
import threading
import time
import tty
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from unplay.board.pi import frames
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay.removal import canceller_kernels

PIECE_BYTES = 4096


def serve(
    storage: Path, address: str, i2s: type, on_ready: Callable[[str], None] = lambda address: None
) -> None:
    """Be a device, until interrupted.

    storage: the folder of references, sessions and settings. address: tcp://HOST:PORT to listen on (port 0:
    any free one), or a serial port. i2s: the class that is `machine.I2S`. on_ready: told the address when
    hosts can connect. Raises BadInputError, DeviceUnreachableError.
    """
    begun_in = os.getcwd()
    try:
        storage.mkdir(parents=True, exist_ok=True)
        os.chdir(storage)
    except OSError as error:
        raise BadInputError(
            f"{storage} cannot be used for storage ({error.strerror}): name a folder."
        ) from error
    stream = _listen(address, on_ready) if address.startswith("tcp://") else _open_serial(address, on_ready)
    _supply(i2s, begun_in)
    program = files("unplay_device") / "main.py"
    runpy.run_path(str(program), {"STREAM": stream})


def _supply(i2s: type, begun_in: str) -> None:
    """Modules that MicroPython has, under their names. Only in a process of its own."""
    sys.modules["machine"] = _module(
        "machine", Pin=_pin_class(), I2S=i2s, RTC=RTC, unique_id=unique_id, reset=lambda: reset(begun_in)
    )
    sys.modules["micropython"] = _module("micropython", const=lambda value: value, viper=_same, native=_same)
    sys.modules["unplay_device.frames"] = _as_module(frames)
    sys.modules["unplay_device.kernels"] = _as_module(canceller_kernels)
    ticks: Any = time
    ticks.ticks_us = lambda: time.monotonic_ns() // 1000
    ticks.ticks_ms = lambda: time.monotonic_ns() // 1_000_000
    ticks.ticks_diff = lambda later, earlier: later - earlier
    ticks.sleep_ms = lambda ms: time.sleep(ms / 1000)


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def _as_module(module: ModuleType) -> ModuleType:
    return _module(module.__name__, **vars(module))


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class RTC:
    """The system keeps the time."""

    def datetime(self, fields: object) -> None:
        pass


class NoPin:
    """A pin that nothing is connected to."""

    IN, OUT, PULL_UP = 0, 1, 1

    def __init__(self, number: int, mode: int = -1, pull: int = -1) -> None:
        pass

    def value(self, level: int | None = None) -> int:
        return 1


def _pin_class() -> type:
    """Pins through gpiozero where it is installed and there are any."""
    try:
        import gpiozero  # pyright: ignore[reportMissingImports]

        gpiozero.Device.ensure_pin_factory()
    except Exception:  # gpiozero's own errors say that there are no pins here
        return NoPin

    class GpioPin(NoPin):
        def __init__(self, number: int, mode: int = -1, pull: int = -1) -> None:
            self.button = gpiozero.Button(number) if mode == self.IN else None
            self.light = gpiozero.LED(number) if mode == self.OUT else None

        def value(self, level: int | None = None) -> int:
            if self.light is not None and level is not None:
                self.light.value = level
            return int(self.button is None or not self.button.is_pressed)

    return GpioPin


def unique_id() -> bytes:
    """The board's serial number, or the system's."""
    for path in ("/proc/device-tree/serial-number", "/etc/machine-id"):
        try:
            return bytes.fromhex(Path(path).read_text("ascii").strip("\0\n ")[:16])
        except (OSError, ValueError):
            continue
    return socket.gethostname().encode()[:8]


def reset(folder: str) -> None:
    """Begin anew. folder: what paths on the command line are relative to."""
    os.chdir(folder)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _open_serial(path: str, on_ready: Callable[[str], None]) -> Any:
    try:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0)
        tty.setraw(stream.fileno())
    except (OSError, ValueError) as error:
        raise DeviceUnreachableError(f"{path} cannot be opened ({error}): is it a serial port?") from error
    on_ready(path)
    return stream


def _listen(address: str, on_ready: Callable[[str], None]) -> Any:
    """One end of a pair of sockets; the other is connected to whoever connects, one at a time."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdigit():
        raise BadInputError(f"{address} is no address: write tcp://HOST:PORT, as in tcp://0.0.0.0:5333.")
    try:
        server = socket.create_server((host, int(port)))
    except OSError as error:
        raise DeviceUnreachableError(f"{address} cannot be listened on ({error.strerror}).") from error
    ours, theirs = socket.socketpair()
    threading.Thread(target=_accept, args=(server, theirs), daemon=True).start()
    on_ready(f"tcp://{host}:{server.getsockname()[1]}")
    return ours.makefile("rwb", buffering=0)


def _accept(server: socket.socket, device: socket.socket) -> None:
    while True:
        host, _ = server.accept()
        host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with host:
            _connect(host, device)


def _connect(host: socket.socket, device: socket.socket) -> None:
    """Pass bytes both ways until the host hangs up."""
    other = {host: device, device: host}
    with selectors.DefaultSelector() as selector:
        for end in (host, device):
            selector.register(end, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                end: Any = key.fileobj
                try:
                    data = end.recv(PIECE_BYTES)
                    other[end].sendall(data)
                except OSError:
                    return
                if not data:
                    return
