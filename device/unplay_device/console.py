"""Bytes to and from the host, with a timeout: the one place that knows how ports of Python read and write.

On a board `sys.stdin.buffer.readinto` waits until its buffer is full; the unix port and CPython return what
there is. `sys.stdin` itself would turn CR into LF.
"""

import select
import sys
import time


def _monotonic_ms():
    return int(time.monotonic() * 1000)  # pyright: ignore[reportAttributeAccessIssue]


def _difference(later, earlier):
    return later - earlier


# MicroPython's wrap around; CPython has none.
ticks_ms = getattr(time, "ticks_ms", _monotonic_ms)
ticks_diff = getattr(time, "ticks_diff", _difference)

_SHORT_BYTES = 64  # up to here a board reads byte by byte, and so gives up when one is missing


def _keyboard_interrupt(character):
    try:
        from micropython import kbd_intr
    except ImportError:
        return
    kbd_intr(character)


class Console:
    """Standard input and output, or any raw binary stream with readinto, write and fileno.

    keyboard_interrupt: called with the character that interrupts from now on, 3 (Ctrl-C) or -1 (none).
    blocks: what a board does, see above; longer reads then wait for their last byte.
    """

    def __init__(self, stream=None, keyboard_interrupt=_keyboard_interrupt, blocks=None):
        self._reader = stream or sys.stdin.buffer
        self._writer = stream or sys.stdout.buffer
        self._keyboard_interrupt = keyboard_interrupt
        self._blocks = sys.platform not in ("linux", "darwin") if blocks is None else blocks
        poller = select.poll()
        poller.register(stream or sys.stdin, select.POLLIN)
        self._poll = getattr(poller, "ipoll", poller.poll)  # ipoll allocates nothing

    def interrupt(self, on):
        """Whether Ctrl-C stops the program; it must not while files are on their way."""
        self._keyboard_interrupt(3 if on else -1)

    def ready(self, timeout_ms):
        """Whether there is something to read within `timeout_ms`."""
        for _ in self._poll(timeout_ms):
            return True
        return False

    def read(self, view, timeout_ms):
        """Fills `view` (memoryview); fewer bytes than that when they do not all come within `timeout_ms`.

        A board that reads more than 64 bytes waits for the last of them. Raises EOFError when the other end
        is gone for good.
        """
        step = 1 if self._blocks and len(view) <= _SHORT_BYTES else len(view)
        done = 0
        start_ms = ticks_ms()
        while done < len(view):
            if not self.ready(max(0, timeout_ms - ticks_diff(ticks_ms(), start_ms))):
                break
            part = view[done : done + step]
            done += self._fill(part) if self._blocks else self._some(part)
        return done

    def write(self, view):
        """Writes all of `view` (memoryview)."""
        done = 0
        while done < len(view):
            done += self._writer.write(view[done:]) or 0

    def _fill(self, view):
        done = 0
        while done < len(view):
            done += self._some(view[done:])
        return done

    def _some(self, view):
        n = self._reader.readinto(view)
        if n == 0:
            raise EOFError("the other end of the link is closed")
        return n or 0
