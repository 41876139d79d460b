"""Packets over a port: found among bytes, kept within the credit, repeated until there is an answer."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any, NamedTuple, TypeVar

from unplay.board.faults import NoAnswerError, OtherVersionError, RefusedError
from unplay.board.ports import Port
from unplay_shared import packets

LONGEST_PAYLOAD = 8192  # no device sends longer ones
_CAREFUL_CREDIT = 240  # what any line's input holds
_CAREFUL_FILLER = 1100  # longer than the packets of a device without flow control
_NOISE_KEPT = 200


class Packet(NamedTuple):
    kind: int
    seq: int
    taken: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        """The payload's dict; {} where it is none."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def offset(self) -> int:
        return int.from_bytes(self.payload[: packets.OFFSET_BYTES], "little")


class StalledError(Exception):
    """Never leaves this package. Nothing moves: bytes were lost, and the device waits for them."""


class Decoder:
    """Finds packets among the bytes of a line; `noise` holds the last bytes that belonged to none."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.noise = b""

    def feed(self, data: bytes) -> list[Packet]:
        self._bytes += data
        found = []
        while (packet := self._next()) is not None:
            found.append(packet)
        return found

    def give_up(self) -> list[Packet]:
        """Stops waiting for the rest of a packet; those that were taken for its payload."""
        self._skip(min(1, len(self._bytes)))
        return self.feed(b"")

    def _next(self) -> Packet | None:
        while self._to_sync() and len(self._bytes) >= packets.HEADER_BYTES:
            found = packets.header(self._bytes)
            if found is None or found[2] > LONGEST_PAYLOAD:
                self._skip(1)
                continue
            kind, seq, length, taken, crc = found
            end = packets.HEADER_BYTES + packets.body_bytes(length)
            if len(self._bytes) < end:
                return None
            body = bytes(self._bytes[packets.HEADER_BYTES : end])
            if not packets.intact(body, length, crc):
                self._skip(1)
                continue
            del self._bytes[:end]
            return Packet(kind, seq, taken, body[:length])
        return None

    def _to_sync(self) -> bool:
        start = self._bytes.find(packets.SYNC_0)
        self._skip(len(self._bytes) if start < 0 else start)
        return start >= 0

    def _skip(self, n: int) -> None:
        self.noise = (self.noise + bytes(self._bytes[:n]))[-_NOISE_KEPT:]
        del self._bytes[:n]


class Channel:
    """Sends and receives packets; never has more bytes under way than `credit_bytes`."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.credit_bytes = _CAREFUL_CREDIT
        self.filler_bytes = _CAREFUL_FILLER  # what ends any packet
        self.heard_s = -1e9  # when the device last answered, and so had heard of us
        self.statuses: deque[dict[str, Any]] = deque(maxlen=1000)
        self.decoder = Decoder()
        self.losses = 0  # how often something had to be sent, or asked for, again
        self._arrived: deque[Packet] = deque()
        self._seq = 0
        self._sent = 0  # bytes, of all packets
        self._lost = 0  # of these, bytes that never arrived, modulo 2^16 like _taken
        self._taken = 0
        self._unsent = 0  # bytes of the packet that is being sent
        self._ends: dict[int, int] = {}  # seq: where the packet ended, in bytes sent

    @property
    def under_way(self) -> int:
        """Bytes sent that the device has not reported as taken."""
        return (self._sent - self._lost - self._taken) & 0xFFFF

    def next_seq(self) -> int:
        self._seq = self._seq % 255 + 1
        return self._seq

    def send(self, kind: int, payload: bytes = b"", seq: int | None = None) -> int:
        """Sends one packet, as the credit allows; its seq. Raises StalledError, PortError."""
        seq = self.next_seq() if seq is None else seq
        self.send_raw(packets.packet(kind, seq, 0, payload), seq)
        return seq

    def send_raw(self, packet: bytes, seq: int) -> None:
        view = memoryview(packet)
        while view:
            self._unsent = len(view)
            room = self._wait_for_room(len(view))
            self.port.write(view[:room])
            self._sent += room
            view = view[room:]
        self._unsent = 0
        self._ends.pop(seq, None)
        self._ends[seq] = self._sent

    def _wait_for_room(self, wanted: int) -> int:
        """How many bytes may be sent now: all that are wanted, or a good part of them."""
        least = min(wanted, self.credit_bytes // 4)
        while (room := self.credit_bytes - self.under_way) < least:
            if not self._pump(self._stall_s()):
                raise StalledError
        return min(room, wanted)

    def _stall_s(self) -> float:
        """Longer than the device can be silent while it reads, or while it stores what it hasn't answered."""
        return (0.5 if self._ends else 0.08) + 2 * self.line_s(min(self.credit_bytes, 512))

    def line_s(self, n: int) -> float:
        """How long the line takes for n bytes; 0 where it has no rate."""
        return 10 * n / self.port.baud if self.port.has_baud else 0.0

    def fill(self, whole_packets: int = 0) -> None:
        """Ends the packet that the device is waiting for, with filler; then nothing is under way.

        whole_packets: how many of the longest to fill at least, where it isn't clear what the device does.
        """
        n = max(whole_packets * self.filler_bytes, self._unsent + min(self.under_way, self.credit_bytes))
        self.port.write(bytes([packets.FILLER]) * n)
        self._sent += n
        self._unsent = 0
        self._lost = (self._sent - self._taken) & 0xFFFF
        self._ends.clear()

    def receive(self, timeout_s: float) -> Packet | None:
        """The next packet that is no credit and no status; None after timeout_s without one."""
        deadline_s = time.monotonic() + timeout_s
        while not self._arrived:
            left_s = deadline_s - time.monotonic()
            if not self._pump(max(0.0, left_s)) and left_s <= 0:
                return None
        return self._arrived.popleft()

    def wait_for_status(self, timeout_s: float) -> None:
        """Returns at the next packet, or after timeout_s."""
        self._pump(timeout_s)

    def _pump(self, timeout_s: float) -> bool:
        """Reads what there is, or waits for it; whether a packet came."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            data = self.port.read(max(0.0, deadline_s - time.monotonic()))
            found = self.decoder.feed(data) if data else []
            if not data:
                found = self.decoder.give_up() if timeout_s > 0 else []
            for packet in found:
                self._account(packet)
            if found or not data:
                return bool(found)

    def _account(self, packet: Packet) -> None:
        if packet.kind != packets.STATUS:
            self.heard_s = time.monotonic()
        self._taken = packet.taken
        end = self._settle(packet.seq)
        if end is not None or packet.kind == packets.WELCOME:
            # What the device had taken when it answered ends with the packet that it answers.
            self._lost = ((self._sent if end is None else end) - packet.taken) & 0xFFFF
        elif self.under_way > 0x8000:
            self._lost = (self._sent - self._taken) & 0xFFFF
        if packet.kind == packets.STATUS:
            self.statuses.append(packet.json())
        elif packet.kind != packets.CREDIT:
            self._arrived.append(packet)

    def _settle(self, seq: int) -> int | None:
        """Where packet seq ended, if it had no answer yet; none before it will get one."""
        if seq not in self._ends:
            return None
        while next(iter(self._ends)) != seq:
            del self._ends[next(iter(self._ends))]
        return self._ends.pop(seq)

    def request(self, kind: int, payload: bytes = b"", timeout_s: float = 0.15, tries: int = 6) -> Packet:
        """Sends a packet until it is answered; the answer. Raises RefusedError, NoAnswerError, PortError.

        timeout_s: for an answer to the first; twice as long each time.
        """
        seq = self.next_seq()
        for attempt in range(tries):
            try:
                self.send(kind, payload, seq)
                if (answer := self.answer_to(seq, timeout_s * 2**attempt)) is not None:
                    return refused_or(answer)
            except StalledError:
                pass
            self.losses += 1
            self.fill(1 if attempt >= tries // 2 else 0)
        raise NoAnswerError(
            f"the device at {self.port.name} no longer answers; is it switched on, and the cable sound?"
        )

    def answer_to(self, seq: int, timeout_s: float) -> Packet | None:
        """The packet that answers request seq; older ones are dropped."""
        deadline_s = time.monotonic() + timeout_s
        while (packet := self.receive(max(0.0, deadline_s - time.monotonic()))) is not None:
            if packet.seq == seq:
                return packet
        return None


def refused_or(answer: Packet) -> Packet:
    """The answer; raises RefusedError if it is a FAULT."""
    if answer.kind != packets.FAULT:
        return answer
    fault = answer.json()
    code, detail = fault.get("code"), fault.get("detail")
    raise RefusedError(code if isinstance(code, int) else 0, detail if isinstance(detail, dict) else {})


_Value = TypeVar("_Value")


def value(answer: dict[str, Any], key: str, kind: type[_Value]) -> _Value:
    """An answer's value; raises OtherVersionError where it has none of that kind."""
    found = answer.get(key)
    if isinstance(found, kind):
        return found
    raise OtherVersionError(
        f"the device's answer has {key} = {found!r} where {kind.__name__} was expected; its program and this "
        "one do not fit: update unplay on this computer and, with `unplay device install`, on the device"
    )
