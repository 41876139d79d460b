"""`machine.I2S` in a computed room, in real time: a Raspberry Pi without a card."""

from __future__ import annotations

import time
from typing import Any

from unplay.virtual.streams import Streams


def now_us() -> int:
    return time.monotonic_ns() // 1000


class RoomI2S:
    """Both directions of `streams`, a class attribute."""

    RX, TX, MONO, STEREO = 0, 1, 0, 1
    streams: Streams

    def __init__(
        self,
        number: int,
        *,
        sck: Any,
        ws: Any,
        sd: Any,
        mode: int,
        bits: int,
        format: int,
        rate: int,
        ibuf: int,
    ) -> None:
        self.plays = mode == self.TX
        self.streams.open(now_us(), self.plays, rate, ibuf)

    def readinto(self, buffer: bytearray) -> int:
        then_us, data = self.streams.read(now_us(), len(buffer))
        buffer[:] = data
        _wait_until(then_us)
        return len(buffer)

    def write(self, buffer: bytearray) -> int:
        _wait_until(self.streams.write(now_us(), bytes(buffer)))
        return len(buffer)

    def deinit(self) -> None:
        self.streams.close(self.plays)


def _wait_until(then_us: int) -> None:
    time.sleep(max(0, then_us - now_us()) / 1e6)
