"""The host's end of the link: files up and down, recordings, settings."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from zlib import crc32

from unplay.board.channel import LONGEST_PAYLOAD, Channel, Packet, StalledError, value
from unplay.board.faults import NoAnswerError, OtherVersionError, RefusedError, TransferError
from unplay.board.ports import Port, open_port
from unplay.board.transfers import Download, Progress, Upload
from unplay.errors import DeviceUnreachableError
from unplay_shared import faults, packets

_FRESH_S = 5.0  # after a longer silence the session is opened anew
_KEEP_ALIVE_S = 3.0
_HELLO_S = 0.2
_SWITCH_S = 0.04  # the device waits, too, for its answer to leave
_TRIES_AT_RAISED = 1  # a device that has restarted is at its first rate; garbled bytes may interrupt it
_RESTART_S = 20.0  # from reset to the application's first answer, card and USB included
_RETRY_S = 0.2
_LEAST_CREDIT = 64  # bytes; less would not hold a call
_LEAST_PACKET = 256
_MOST_FILLER = 5  # careful lengths, until WELCOME has said how long packets are


class DeviceLink:
    """A session with the device at a port: `with DeviceLink("/dev/ttyUSB0") as device: …`

    port: name of a serial port, path of a pseudo-terminal, or tcp://HOST:PORT.
    raise_baud: whether to use the fastest rate that the device offers.
    patience_s: how long the device may take to answer first; one that restarts needs some seconds.
    Every method raises DeviceUnreachableError: PortError, NoAnswerError, OtherVersionError, RefusedError,
    TransferError (unplay.board.faults).
    """

    def __init__(self, port: str | Port, raise_baud: bool = True, patience_s: float = 6.0) -> None:
        self.port = open_port(port) if isinstance(port, str) else port
        self.channel = Channel(self.port)
        self.welcome: dict[str, Any] = {}
        self.packet_bytes = _LEAST_PACKET
        self.bauds: list[int] = []
        self._first_baud, self._raises_baud = self.port.baud, raise_baud
        self._begin_session(patience_s)

    def __enter__(self) -> DeviceLink:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Says good-bye, so that the prompt is reachable at once, and closes the port."""
        with contextlib.suppress(DeviceUnreachableError):
            self.channel.request(packets.BYE, timeout_s=0.3, tries=2)
        self.port.close()

    # The session

    def _begin_session(self, patience_s: float) -> None:
        try:
            self.hello(patience_s)
            if self._raises_baud:
                self.raise_baud()
        except BaseException:
            self.port.close()
            raise

    def restart(self, patience_s: float = _RESTART_S) -> dict[str, Any]:
        """Starts the device anew, as a power cut would, and greets it again.

        Returns what its status was at that moment; nothing where that answer was lost. A recording that goes
        on is cut off. The port may vanish for a while. Raises RefusedError where the device cannot be told,
        DeviceUnreachableError where it does not come back.
        """
        self._refresh()
        status: dict[str, Any] = {}
        try:
            status = self.channel.request(packets.CALL, b'{"do":"restart"}', timeout_s=0.5, tries=3).json()
        except NoAnswerError:
            pass
        except RefusedError as error:
            if error.code != faults.NO_SESSION:  # it has restarted, and only its answer was lost
                raise
        self.port.close()
        keep_trying(self._reopen, patience_s)
        return status

    def _reopen(self) -> None:
        self.port = open_port(self.port.name)
        self.channel = Channel(self.port)
        self._begin_session(patience_s=1.0)

    def hello(self, patience_s: float = 6.0) -> dict[str, Any]:
        """Opens the session; what the device says of itself: board, firmware, unplay, id, calls …"""
        deadline_s = time.monotonic() + patience_s
        attempt = 0
        while True:
            if attempt == _TRIES_AT_RAISED:
                self._set_port_baud(self._first_baud)
            answer = self._hello_once(attempt)
            if answer is not None:
                return self._welcomed(answer)
            attempt += 1
            if time.monotonic() > deadline_s:
                raise NoAnswerError(_silence(self.port.name, self.channel.decoder.noise))

    def _hello_once(self, attempt: int) -> Packet | None:
        greeting = packets.hello()
        if attempt:  # the device may be waiting for the rest of a packet
            self.channel.fill(min(attempt, _MOST_FILLER))
        try:
            self.channel.send_raw(greeting, greeting[3])
        except StalledError:
            return None
        deadline_s = time.monotonic() + _HELLO_S
        while (packet := self.channel.receive(max(0.0, deadline_s - time.monotonic()))) is not None:
            if packet.kind == packets.WELCOME or (packet.kind == packets.FAULT and packet.seq == greeting[3]):
                return packet
        return None

    def _welcomed(self, answer: Packet) -> dict[str, Any]:
        said = answer.json()
        if answer.kind == packets.FAULT:
            detail = value(said, "detail", dict)
            raise _other_version([detail.get("major"), detail.get("minor")])
        if value(said, "protocol", list)[:1] != [packets.MAJOR]:
            raise _other_version(value(said, "protocol", list))
        self.channel.credit_bytes = max(_LEAST_CREDIT, value(said, "credit", int))
        self.packet_bytes = max(_LEAST_PACKET, min(LONGEST_PAYLOAD, value(said, "packet", int)))
        self.channel.filler_bytes = self.packet_bytes + packets.OVERHEAD_BYTES + self.channel.credit_bytes
        self.bauds = [rate for rate in value(said, "bauds", list) if isinstance(rate, int)]
        self.welcome = said
        return said

    def raise_baud(self) -> int:
        """Goes to the fastest rate of the device; back to the first one if nothing answers there."""
        offered = [rate for rate in self.bauds if rate > self.port.baud]
        if not self.port.has_baud or not offered:
            return self.port.baud
        self.call("set_baud", rate=max(offered))
        self.port.baud = max(offered)
        time.sleep(_SWITCH_S)
        if not self._answers():
            time.sleep(packets.BAUD_TRIAL_MS / 1000)
            self._set_port_baud(self._first_baud)
            self.hello()
        return self.port.baud

    def _set_port_baud(self, rate: int) -> None:
        if self.port.has_baud and self.port.baud != rate:
            self.port.baud = rate

    def _answers(self) -> bool:
        """Whether the new rate works. Soon silent: garbled bytes interrupt a device that has given it up."""
        for _ in range(4):
            with contextlib.suppress(StalledError):
                seq = self.channel.send(packets.PING)
                if self.channel.answer_to(seq, packets.BAUD_TRIAL_MS / 1000 / 8) is not None:
                    return True
        return False

    def call(self, do: str, /, timeout_s: float = 0.15, tries: int = 6, **arguments: Any) -> dict[str, Any]:
        """Calls the device by name; its answer. timeout_s: see Channel.request."""
        self._refresh()
        request = json.dumps({"do": do, **arguments}, separators=(",", ":")).encode()
        if len(request) > self.packet_bytes:
            raise RefusedError(faults.BAD_ARGUMENT, {"name": do, "value": f"{len(request)} bytes"})
        try:
            return self.channel.request(packets.CALL, request, timeout_s, tries).json()
        except RefusedError as error:
            if error.code != faults.NO_SESSION:
                raise
        self.hello()
        return self.channel.request(packets.CALL, request, timeout_s, tries).json()

    def _refresh(self) -> None:
        """The device forgets hosts that are silent, and their rate; greets again where it may have."""
        silent_s = time.monotonic() - self.channel.heard_s
        if silent_s <= _FRESH_S:
            return
        was_raised = self.port.baud != self._first_baud
        if was_raised and silent_s > _FRESH_S + 2:
            time.sleep(max(0.0, 1.05 * packets.SESSION_MS / 1000 - silent_s))
            self._set_port_baud(self._first_baud)
        self.hello()
        if was_raised and self.port.baud == self._first_baud:
            self.raise_baud()

    # Files

    def put(self, path: str | os.PathLike[str], name: str, progress: Progress | None = None) -> bool:
        """Uploads a file; False if the device had it already. Goes on where an earlier upload broke off."""
        size = Path(path).stat().st_size
        with open(path, "rb") as file:
            sha256 = _sha256_of(file)
            if self._has(name, size, sha256):
                return False
            there = self._begin(name, size, sha256)
            if there and not self._same_start(file, there):
                there = self._begin(name, size, sha256, restart=True)
            Upload(self.channel, file, size, self.packet_bytes, progress).run(there)
        self.call("commit", timeout_s=2.0)
        return True

    def _begin(self, name: str, size: int, sha256: str, **options: bool) -> int:
        """Opens the file on the device for writing; how much of it is there."""
        return min(
            size, value(self.call("begin", name=name, size=size, sha256=sha256, **options), "length", int)
        )

    def _open(self, name: str) -> int:
        """Opens the file on the device for reading; its size."""
        return value(self.call("open", name=name), "size", int)

    def _has(self, name: str, size: int, sha256: str) -> bool:
        try:
            return self._open(name) == size and self._digest(size).get("sha256") == sha256
        except RefusedError as error:
            if error.code != faults.NOT_FOUND:
                raise
            return False

    def _digest(self, length: int) -> dict[str, Any]:
        """CRC-32 and, of a whole file, SHA-256 of the open one; it takes the device a few calls."""
        hashed = -1
        while True:
            answer = self.call("digest")
            before, hashed = hashed, value(answer, "hashed", int)
            if hashed >= length:
                return answer
            if hashed <= before:
                raise TransferError("the device cannot read its own file to the end; is its card failing?")

    def sha256(self, name: str) -> str:
        """Of a file, as the device reads it; hexadecimal."""
        return value(self._digest(self._open(name)), "sha256", str)

    def _same_start(self, file: BinaryIO, length: int) -> bool:
        return self._digest(length).get("crc32") == _crc32_of(file, length)

    def get(self, name: str, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Downloads a file, whole and verified or not at all; goes on where an earlier one broke off."""
        part = Path(f"{os.fspath(path)}.part")
        for _ in range(2):
            size = self._open(name)
            if self._fetch(part, size, progress):
                os.replace(part, path)
                return
            part.unlink()  # it began as another file; now from the start
        raise TransferError(f"{name} arrived twice with another hash than the device's; is its card failing?")

    def _fetch(self, part: Path, size: int, progress: Progress | None) -> bool:
        part.touch()
        with open(part, "r+b") as file:
            there = min(size, part.stat().st_size)
            file.truncate(there)
            Download(self.channel, file, size, self.packet_bytes, progress).run(there)
            theirs = self._digest(size).get("sha256")
            return theirs == _sha256_of(file)

    def ls(self) -> dict[str, int]:
        """All files on the device: name and bytes."""
        return {str(name): int(size) for name, size in self._pages("ls", "files")}

    def _pages(self, call: str, key: str) -> Iterator[Any]:
        start: int | None = 0
        while start is not None:
            answer = self.call(call, start=start)
            yield from value(answer, key, list)
            start = value(answer, "next", int) if answer.get("next") is not None else None

    def rm(self, name: str) -> None:
        """Removes a file, or sessions/ID with all in it."""
        self.call("rm", name=name, timeout_s=2.0)

    # Recording, settings

    def info(self) -> dict[str, Any]:
        return self.call("info")

    def record(self, options: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.call("record", timeout_s=2.0, options=options or {})

    def stop(self) -> dict[str, Any]:
        return self.call("stop", timeout_s=2.0)

    def status(self) -> Iterator[dict[str, Any]]:
        """The state now, and then what the device tells of itself, until the iterator is closed."""
        yield self.call("status", on=True)
        try:
            while True:
                while self.channel.statuses:
                    yield self.channel.statuses.popleft()
                if time.monotonic() - self.channel.heard_s > _KEEP_ALIVE_S:
                    self.channel.request(packets.PING)
                self.channel.wait_for_status(0.5)
        finally:
            with contextlib.suppress(DeviceUnreachableError):
                self.call("status", on=False)

    def log(self) -> list[str]:
        return list(self._pages("log", "lines"))

    def config_get(self) -> dict[str, Any]:
        return self.call("config_get")

    def config_set(self, values: dict[str, Any]) -> dict[str, Any]:
        return self.call("config_set", timeout_s=2.0, values=values)

    def selftest(self) -> dict[str, Any]:
        return self.call("selftest", timeout_s=20.0, tries=2)

    def set_time(self, unix_s: int | None = None) -> None:
        self.call("set_time", unix_s=int(time.time()) if unix_s is None else unix_s)


_Result = TypeVar("_Result")


def keep_trying(do: Callable[[], _Result], patience_s: float) -> _Result:
    """What do() returns, tried anew while a device is starting. Raises its last DeviceUnreachableError."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return do()
        except DeviceUnreachableError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(_RETRY_S)


def _sha256_of(file: BinaryIO) -> str:
    file.seek(0)
    sha256 = hashlib.sha256()
    while block := file.read(1 << 20):
        sha256.update(block)
    return sha256.hexdigest()


def _crc32_of(file: BinaryIO, length: int) -> int:
    file.seek(0)
    crc = 0
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        crc = crc32(block, crc)
        length -= len(block)
    return crc


def _other_version(version: list[Any]) -> OtherVersionError:
    theirs = ".".join(str(part) for part in version)
    newer = isinstance(version[0], int) and version[0] > packets.MAJOR
    remedy = (
        "update unplay on this computer" if newer else "`unplay device install` brings the device up to date"
    )
    return OtherVersionError(
        f"the device speaks version {theirs} of the link and this program "
        f"{packets.MAJOR}.{packets.MINOR}; {remedy}"
    )


def _silence(port: str, noise: bytes) -> str:
    """Why there was no WELCOME, by what came instead."""
    if b">>>" in noise:
        return (
            f"MicroPython's prompt answers at {port}, not unplay: press the board's reset button, "
            "or put unplay on it with `unplay device install`"
        )
    if noise.strip(b"\0"):
        start = noise[-40:].decode("ascii", "replace")
        return f"something at {port} answers, but not as unplay does ({start!r}); is it another device?"
    return (
        f"nothing answers at {port}; is it the right port, the board switched on, and unplay installed on it?"
    )
