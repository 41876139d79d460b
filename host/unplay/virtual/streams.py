"""Two simulated I2S streams on one clock: rings that underrun and overrun in silence, as ports do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unplay.virtual.room import Room, Signal

FRAME_BYTES = 8
DROP_FRAMES = 256
"""The ESP32's receiver drops its oldest DMA buffer when the ring is full."""

FULL_SCALE = 2.0**31
STEP = 2.0**8
"""The microphone has 24 bits."""

Frames = NDArray[np.int32]


@dataclass
class Streams:
    """The rings between a device and a room. Times are µs of the device; frames count from the first opening.

    slot: which half of a frame the microphone answers in. keep_truth: for `truth`. speed: at most so many
    times faster than the sound would take; None: as fast as it goes. rate: of the clock, of what it should
    be.
    """

    room: Room
    slot: int = 0
    keep_truth: bool = True
    speed: float | None = None
    rate: float = 1.0
    wiring: Callable[[Frames, int], Frames] | None = None
    rate_hz: int = 0
    opened_us: int = 0
    elapsed: int = 0
    player: Frames | None = None
    recorder: Frames | None = None
    player_frames: int = 0
    recorder_frames: int = 0
    underrun_frames: int = 0
    dropped_frames: int = 0
    heard: list[tuple[int, int]] = field(default_factory=list)
    near_end: list[Signal] = field(default_factory=list)
    played: list[Signal] = field(default_factory=list)

    def open(self, now_us: int, plays: bool, rate_hz: int, ring_bytes: int) -> None:
        """One direction begins: the player with silence, the recorder with nothing."""
        if self.player is None and self.recorder is None:
            self.rate_hz, self.opened_us, self.elapsed = round(self.rate * rate_hz), now_us, 0
            self.heard, self.near_end, self.played = [], [], []
            self.room.restart()
        self._advance(now_us)
        if plays:
            self.player, self.player_frames = np.zeros((0, 2), np.int32), ring_bytes // FRAME_BYTES
        else:
            self.recorder = np.zeros((0, 2), np.int32)
            self.recorder_frames = ring_bytes // FRAME_BYTES
            self.recorder_first = self.elapsed

    def close(self, plays: bool) -> None:
        if plays:
            self.player = None
        else:
            self.recorder = None

    def write(self, now_us: int, data: bytes) -> int:
        """Play frames when there is room for them. Returns the time when that was."""
        self._advance(now_us)
        frames = np.frombuffer(data, "<i4").reshape(-1, 2)
        assert self.player is not None
        missing = len(self.player) + len(frames) - self.player_frames
        if missing > 0:
            now_us = self._wait(missing)
        self.player = np.concatenate([self.player, frames])
        return now_us

    def read(self, now_us: int, n_bytes: int) -> tuple[int, bytes]:
        """The oldest frames, when there are so many. Returns the time when that was, and them."""
        self._advance(now_us)
        n = n_bytes // FRAME_BYTES
        assert self.recorder is not None
        if n > len(self.recorder):
            now_us = self._wait(n - len(self.recorder))
        frames, self.recorder = self.recorder[:n], self.recorder[n:]
        if self.keep_truth:
            self.heard.append((self.recorder_first, n))
        self.recorder_first += n
        return now_us, frames.astype("<i4").tobytes()

    def _wait(self, n_frames: int) -> int:
        """Let n frames pass. Returns the time then."""
        if self.speed is not None:
            time.sleep(n_frames / self.rate_hz / self.speed)
        now_us = self.opened_us + -(-(self.elapsed + n_frames) * 1_000_000 // self.rate_hz)
        self._advance(now_us)
        return now_us

    def _advance(self, now_us: int) -> None:
        """All that happens until now."""
        n = (now_us - self.opened_us) * self.rate_hz // 1_000_000 - self.elapsed
        while n > 0:
            step = min(n, 4096)
            self._pass(step)
            n -= step

    def _pass(self, n: int) -> None:
        played = self._emit(n)
        microphone, near_end = self.room.hear(played, self.elapsed)
        self.elapsed += n
        if self.keep_truth:
            self.near_end.append(near_end)
            self.played.append(played)
        if self.recorder is None:
            return
        frames = np.zeros((n, 2), np.int32)
        frames[:, self.slot] = np.round(microphone * (FULL_SCALE / STEP)) * STEP
        if self.wiring is not None:
            frames = self.wiring(frames, self.elapsed - n)
        self.recorder = np.concatenate([self.recorder, frames])
        excess = len(self.recorder) - self.recorder_frames
        if excess > 0:
            dropped = -(-excess // DROP_FRAMES) * DROP_FRAMES
            self.recorder = self.recorder[dropped:]
            self.recorder_first += dropped
            self.dropped_frames += dropped

    def _emit(self, n: int) -> Signal:
        """The player's next n samples, mean of both slots; silence where the ring is empty."""
        out = np.zeros(n)
        if self.player is not None:
            frames, self.player = self.player[:n], self.player[n:]
            out[: len(frames)] = frames.mean(axis=1) / FULL_SCALE
            self.underrun_frames += n - len(frames)
        return out

    def truth(self, n_samples: int) -> Signal:
        """The near end (n_samples,) of the last samples that were read."""
        everything = np.concatenate(self.near_end)
        where = np.concatenate([np.arange(first, first + n) for first, n in self.heard])
        return everything[where[-n_samples:]]
