"""MicroPython's raw prompt, which answers where unplay is idle or absent: mpremote as a library."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from unplay.board.faults import NoAnswerError, PortError
from unplay.board.ports import gone, require_serial
from unplay_shared import packets

if TYPE_CHECKING:
    from mpremote.transport_serial import SerialTransport

_CHUNK_BYTES = 512
_TRIES = 3
_CLOSING_S = 0.2
_ENDING_S = 0.3
_PROMPT_S = 2
_PATIENCE_S = packets.SESSION_MS / 1000 + 5.0  # in a session whose host is gone unplay takes no Ctrl-C
_READ_S = 2.0  # the longest silence of a board that works
_WRITE_S = 5.0  # a board that hangs takes nothing

_FREE = """
import gc, sys
for name in list(sys.modules):
    if name.startswith("unplay"):
        del sys.modules[name]
for name in list(globals()):
    if not name.startswith("__") and name not in ("gc", "sys", "name"):
        del globals()[name]
gc.collect()
"""
"""Gives back what an interrupted application holds; a soft reset would do it, but not on every port."""


class Repl:
    """A prompt that waits for code. Every method raises NoAnswerError or PortError when the line is lost."""

    def __init__(self, port: str, transport: SerialTransport) -> None:
        self.port, self._transport = port, transport

    def run(self, code: str) -> Any:
        """Runs code; what it printed, read as JSON; None where that was nothing. Raises NoAnswerError."""
        with self._sentences():
            printed = self._transport.exec(code)
            return json.loads(printed) if printed.strip() else None

    def write(self, path: str, data: bytes, progress: Callable[[int], None]) -> None:
        """A file as a whole. progress: is told how many bytes are there."""
        self.run(f"file = open({path!r}, 'wb')")
        for at in range(0, len(data), _CHUNK_BYTES):
            self.run(f"_ = file.write({data[at : at + _CHUNK_BYTES]!r})")
            progress(min(at + _CHUNK_BYTES, len(data)))
        self.run("file.close()")

    def leave(self, code: str) -> None:
        """Runs code that does not come back."""
        with self._sentences():
            self._transport.exec_raw_no_follow(code)

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """mpremote's exceptions as ours; what it prints is dropped."""
        from mpremote.transport import TransportError, TransportExecError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except TransportExecError as error:
            last = str(error).strip().splitlines()[-1]
            raise NoAnswerError(f"MicroPython at {self.port} refuses: {last}") from error
        except (TransportError, IndexError, ValueError) as error:
            raise NoAnswerError(f"MicroPython at {self.port} broke off ({error}); try again") from error
        except OSError as error:
            raise gone(self.port, error) from error


@contextlib.contextmanager
def open_repl(port: str) -> Iterator[Repl]:
    """The prompt at a serial port, with memory as free as after a reset. Raises NoAnswerError, PortError."""
    transport = _open(port)
    repl = Repl(port, transport)
    try:
        _enter(transport, port)
        repl.run(_FREE)
        yield repl
    finally:
        with contextlib.suppress(OSError):
            transport.close()


def _open(port: str, tries: int = _TRIES) -> SerialTransport:
    """A program that has just ended may hold the port for a moment."""
    from mpremote.transport import TransportError
    from mpremote.transport_serial import SerialTransport

    try:
        require_serial(port)  # says why not, which mpremote does not
        transport = SerialTransport(port, timeout=_READ_S)
        transport.serial.write_timeout = _WRITE_S  # pyright: ignore[reportAttributeAccessIssue]
        return transport
    except PortError:
        if tries == 1:
            raise
    except (OSError, TransportError) as error:
        if tries == 1:
            raise PortError(f"{port} cannot be opened ({error}); does another program hold it?") from error
    time.sleep(_CLOSING_S)
    return _open(port, tries - 1)


def _enter(transport: SerialTransport, port: str) -> None:
    """Ends what runs, first: an application needs a moment for it, and would read what comes meanwhile."""
    from mpremote.transport import TransportError

    deadline_s = time.monotonic() + _PATIENCE_S
    ending_s = _ENDING_S
    while time.monotonic() < deadline_s:
        try:
            transport.serial.write(b"\r\x03\x03")
            time.sleep(ending_s)
            with contextlib.redirect_stdout(io.StringIO()):
                transport.enter_raw_repl(soft_reset=False, timeout_overall=_PROMPT_S)
            return
        except TransportError:
            ending_s = min(2 * ending_s, _PROMPT_S)
        except OSError as error:
            raise gone(port, error) from error
    raise NoAnswerError(
        f"no MicroPython answers at {port}; is it the right port? A board without MicroPython needs "
        "`unplay device flash FIRMWARE` first"
    )
