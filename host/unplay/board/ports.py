"""Ports: serial ports, pseudo-terminals and TCP behind one small interface."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Protocol

import serial
from serial.tools import list_ports

from unplay.board.faults import PortError
from unplay_shared.packets import DEFAULT_BAUD

_TICK_S = 0.02  # how long a read of a serial port sleeps at most
_WRITE_TIMEOUT_S = 5.0


class Port(Protocol):
    """A line of bytes to a device. Every method raises PortError when the line has gone."""

    name: str
    has_baud: bool

    @property
    def baud(self) -> int: ...

    @baud.setter
    def baud(self, rate: int) -> None: ...

    def read(self, timeout_s: float) -> bytes:
        """What there is, as soon as there is something; empty after timeout_s."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def close(self) -> None: ...


class SerialPort:
    """A serial port or a pseudo-terminal, of which no other program may have hold."""

    has_baud = True

    def __init__(self, name: str, baud: int = DEFAULT_BAUD) -> None:
        self.name = name
        try:
            self._serial = serial.Serial(
                name, baud, timeout=_TICK_S, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
            )
        except (OSError, ValueError) as error:
            raise PortError(_why_closed(name, error)) from error

    @property
    def baud(self) -> int:
        return self._serial.baudrate

    @baud.setter
    def baud(self, rate: int) -> None:
        try:
            self._serial.baudrate = rate
        except (OSError, ValueError) as error:
            raise PortError(f"{self.name} cannot run at {rate} baud ({error})") from error

    def read(self, timeout_s: float) -> bytes:
        deadline_s = time.monotonic() + timeout_s
        try:
            while True:
                data = self._serial.read(self._serial.in_waiting or (1 if timeout_s > 0 else 0))
                if data or time.monotonic() >= deadline_s:
                    return data + self._serial.read(self._serial.in_waiting)
        except (OSError, TypeError) as error:  # pyserial raises TypeError when closed while it reads
            raise gone(self.name, error) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._serial.write(data)
        except OSError as error:
            raise gone(self.name, error) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._serial.close()


class TcpPort:
    """A device, or a server of serial ports, at tcp://HOST:PORT."""

    has_baud = False
    baud = DEFAULT_BAUD

    def __init__(self, name: str) -> None:
        self.name = name
        host, _, port = name.removeprefix("tcp://").rpartition(":")
        if not host or not port.isdigit():
            raise PortError(f"{name} is no address; write tcp://HOST:PORT, as in tcp://unplay.local:5333")
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=_WRITE_TIMEOUT_S)
        except OSError as error:
            raise PortError(f"nothing accepts connections at {name} ({error}); is the device on?") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        try:
            if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
                return b""
            data = self._socket.recv(65536)
        except OSError as error:
            raise gone(self.name, error) from error
        if not data:
            raise gone(self.name, None)
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise gone(self.name, error) from error

    def close(self) -> None:
        self._socket.close()


def open_port(name: str, baud: int = DEFAULT_BAUD) -> Port:
    """Opens a serial port by name, a pseudo-terminal by path, or tcp://HOST:PORT. Raises PortError."""
    return TcpPort(name) if name.startswith("tcp://") else SerialPort(name, baud)


def require_serial(name: str) -> None:
    """Raises PortError with the reason where a serial port cannot be opened now."""
    if name.startswith("tcp://"):
        raise PortError(f"{name} is no serial port, over which alone a board can be flashed or installed")
    SerialPort(name).close()


def candidates() -> list[str]:
    """Names of the serial ports that may have a device: those on USB."""
    return sorted(port.device for port in list_ports.comports() if port.vid is not None)


def gone(name: str, error: Exception | None) -> PortError:
    """What an exception of an open port means."""
    if isinstance(error, serial.SerialTimeoutException):
        return PortError(
            f"what is at {name} takes no bytes: is it another device, or does it hang? Press its reset "
            "button, and repeat the command"
        )
    reason = f" ({error})" if error is not None else ""
    return PortError(f"{name} has gone{reason}: was the device unplugged? Plug it in and repeat the command")


def _why_closed(name: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return f"there is no port {name}; `unplay device list` shows those there are"
    if number in (errno.EACCES, errno.EPERM):
        return f"you may not open {name}; add yourself to its group (often dialout) and log in again"
    if number in (errno.EBUSY, errno.EAGAIN):
        return f"another program has {name} open; close it (a serial monitor, Thonny, mpremote?)"
    if number == errno.EISDIR or os.strerror(errno.ENOTTY) in str(error):
        return f"{name} is no serial port; `unplay device list` shows those there are"
    return f"{name} cannot be opened ({error})"
