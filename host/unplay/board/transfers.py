"""Files over a line that loses and damages: what arrives is acknowledged, what does not is sent again."""

from __future__ import annotations

import os
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import BinaryIO

from unplay.board.channel import Channel, Packet, StalledError, refused_or
from unplay.board.faults import NoAnswerError, TransferError
from unplay_shared import packets

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and those that there will be."""

_FAILURES = 30  # in a row, without one byte of progress
_READS = 4  # under way at a time: the line is never idle, and their requests fit any credit
_LEAST_BYTES = 240  # of a packet on a bad line: 7 % are its frame
_GROWTH = 24  # packets in a row that arrive, until they get longer
_PATIENCE_S = 0.2  # beyond what the line needs: the device stores a packet, or reads one from its card


class _Transfer:
    """What uploads and downloads share. On a bad line packets get shorter, so that fewer are hit.

    file: of the host, open for what it takes; size: bytes of the whole; packet_bytes: longest payload.
    """

    def __init__(
        self, channel: Channel, file: BinaryIO, size: int, packet_bytes: int, progress: Progress | None
    ) -> None:
        self._channel = channel
        self._file = file
        self._size = size
        self._progress = progress
        self._most = packet_bytes - packets.OFFSET_BYTES
        self._chunk = self._most
        self._in_a_row = 0
        self._done = 0  # bytes that are where they belong
        self._next = 0  # offset to send, or ask for, next
        self._failures = 0

    def run(self, start: int) -> None:
        """Transfers what comes after the first `start` bytes. Raises what DeviceLink does."""
        self._done = self._next = start
        self._report()
        while self._done < self._size:
            before = self._done
            try:
                self._step()
            except StalledError:
                self._recover()
            if self._done > before:
                self._failures = 0
                self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._size)

    def _step(self) -> None:
        raise NotImplementedError

    def _start_again(self) -> None:
        """Forgets what is under way."""
        raise NotImplementedError

    def _recover(self) -> None:
        self._failures += 1
        if self._failures > _FAILURES:
            raise NoAnswerError(
                f"the device at {self._channel.port.name} stopped answering in the middle of a file; "
                "repeat the command to go on there"
            )
        self._channel.fill(1 if self._failures % 4 == 3 else 0)
        self._hit()
        self._start_again()

    def _patience_s(self) -> float:
        return (_PATIENCE_S + 2 * self._channel.line_s(self._chunk)) * 2 ** min(self._failures, 4)

    def _hit(self) -> None:
        self._channel.losses += 1
        self._chunk = max(min(_LEAST_BYTES, self._most), self._chunk // 2)
        self._in_a_row = 0

    def _arrived(self) -> None:
        self._in_a_row += 1
        if self._in_a_row >= _GROWTH:
            self._chunk = min(self._most, 2 * self._chunk)
            self._in_a_row = 0


class Upload(_Transfer):
    """WRITEs in a row; after one that did not arrive, all from there on again."""

    _under_way: OrderedDict[int, None]  # seqs since the last step back

    def run(self, start: int) -> None:
        self._under_way = OrderedDict()
        super().run(start)

    def _step(self) -> None:
        if self._next < self._size:
            self._file.seek(self._next)
            chunk = self._file.read(min(self._chunk, self._size - self._next))
            seq = self._channel.send(packets.WRITE, struct.pack("<I", self._next) + chunk)
            self._under_way[seq] = None
            self._next += len(chunk)
            answer = self._channel.receive(0)
        elif (answer := self._channel.receive(self._patience_s())) is None:
            raise StalledError
        while answer is not None:
            self._account(answer)
            answer = self._channel.receive(0)

    def _account(self, answer: Packet) -> None:
        refused_or(answer)
        if answer.kind == packets.ACK:
            self._done = max(self._done, min(answer.offset(), self._size))
            if self._under_way.pop(answer.seq, 0) is None:
                self._arrived()
        elif answer.kind == packets.AGAIN and answer.seq in self._under_way:
            # Answers to what was under way behind it say the same, and are not heeded.
            self._hit()
            self._done = min(answer.offset(), self._next)
            self._start_again()

    def _start_again(self) -> None:
        self._next = self._done
        self._under_way.clear()


class Download(_Transfer):
    """READs in a row, several under way; those whose answer is lost are asked again."""

    _asked: OrderedDict[int, tuple[int, int]]  # seq: offset and length, in the order of asking
    _missing: deque[tuple[int, int]]  # to be asked again
    _early: dict[int, bytes]  # what arrived before what comes before it

    def run(self, start: int) -> None:
        self._asked = OrderedDict()
        self._missing = deque()
        self._early = {}
        self._file.seek(start, os.SEEK_SET)
        super().run(start)

    def _step(self) -> None:
        self._ask()
        answer = self._channel.receive(self._patience_s())
        if answer is None:
            raise StalledError
        self._account(answer)

    def _ask(self) -> None:
        while len(self._asked) < _READS and (self._missing or self._next < self._size):
            if self._missing:
                offset, length = self._missing.popleft()
            else:
                offset, length = self._next, min(self._chunk, self._size - self._next)
                self._next += length
            seq = self._channel.next_seq()
            self._asked[seq] = offset, length
            self._channel.send(packets.READ, struct.pack("<IH", offset, length), seq)

    def _account(self, answer: Packet) -> None:
        refused_or(answer)
        if answer.kind != packets.DATA or self._asked.get(answer.seq, (None, 0))[0] != answer.offset():
            return
        while True:  # the device answers in order: what was asked before this has been lost
            seq, (offset, length) = self._asked.popitem(last=False)
            if seq == answer.seq:
                break
            self._hit()
            self._missing.append((offset, length))
        chunk = answer.payload[packets.OFFSET_BYTES :]
        if len(chunk) != length:
            raise TransferError("the file on the device has changed while it was read; try again")
        self._arrived()
        self._early[offset] = chunk
        while (chunk := self._early.pop(self._done, b"")) != b"":
            self._file.write(chunk)
            self._done += len(chunk)

    def _start_again(self) -> None:
        self._missing.extend(self._asked.values())
        self._asked.clear()
