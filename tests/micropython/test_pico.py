"""Playing and recording with one PIO state machine: its program emulated, its rings on MicroPython."""

from __future__ import annotations

import json
import subprocess
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pioemu
import pytest

import unplay
from unplay.board.firmware import VIRTUAL, build

SIMULATED = Path(unplay.__path__[0]) / "virtual" / "micropython"
DIN, BCLK, LRCLK, DOUT = 0, 1, 2, 3  # pins of the emulation
CYCLES, BITS = 256, 64
FRAMES = 40

WORLD = """
import sys
class Time:
    now_us = 0
    def ticks_ms(self): return self.now_us // 1000
    def ticks_diff(self, later, earlier): return later - earlier
    def sleep_ms(self, ms): self.now_us += 1000 * ms
class Pin:
    IN = 0
    def __init__(self, *_): pass
class Machine:
    pass
time = Time()
sys.modules["time"] = time
machine = Machine()
machine.Pin = Pin
sys.modules["machine"] = machine
sys.path[:] = sys.argv[1:3]
import json, rp2
from array import array
from unplay_device import pio
"""

RINGS = """
class Loop:
    # What is recorded is what is played, 14 bits higher, as a quiet microphone would answer.
    heard = []
    def open(self, rate_hz): return time.now_us
    def us(self): return time.now_us
    def close(self): pass
    def exchange(self, played, then_us):
        samples = array("h", played)
        self.heard = list(samples[-16:])
        return bytes(array("i", [s << 14 for s in samples]))
rp2.sound = loop = Loop()
SETTINGS = {"rate_hz": 16000, "slot": "left", "microphone_shift": 14, "volume_q15": 32767, "block": 512}
def ramp(first, n): return array("h", [(7 * (first + i)) % 30000 - 15000 for i in range(n)])
audio = pio.PIOAudio({"bclk": 16, "lrclk": 17, "din": 18, "dout": 19}, pio.rings(), SETTINGS)
N, LEAD = audio.block, audio.lead_blocks
got = array("h", bytes(2 * N))
def turn(number, blocks):
    audio.read(got)
    blocks.append(list(got))
    audio.write(ramp(number * N, N))
"""


@pytest.fixture(scope="module")
def run(micropython: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict]:
    """Runs a script after WORLD with the device's code; what it prints as JSON."""
    folder = tmp_path_factory.mktemp("pico")
    build(folder, VIRTUAL)

    def of(script: str) -> dict:
        file = folder / "script.py"
        file.write_text(WORLD + script)
        command = [micropython, str(file), str(folder / "lib"), str(SIMULATED)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return of


@pytest.fixture(scope="module")
def programs(run: Callable[[str], dict]) -> dict[str, list]:
    """Instructions, wrap target and wrap, assembled by MicroPython from the compiled module."""
    script = "made = {n: pio.program(n == 'left') for n in ('left', 'right')}\n"
    return run(script + "print(json.dumps({n: [list(p[0]), p[2], p[3]] for n, p in made.items()}))")


def emulate(program: list, words: list[int], wire: Callable[[int, int], int]) -> tuple[list[int], list[int]]:
    """Words that arrive, and the pins in every cycle. wire: DIN from cycle and pins."""
    opcodes, target, top = program
    arrived: list[int] = []
    pins: list[int] = []

    def source(state):
        return wire(state.clock, state.pin_values) << DIN

    source.__annotations__["state"] = pioemu.State  # what the emulator gives it, it finds out from this
    steps = pioemu.emulate(
        opcodes,
        stop_when=lambda _, state: (
            state.clock > len(words) * CYCLES - CYCLES // 2 and not state.transmit_fifo
        ),
        initial_state=pioemu.State(pin_directions=0b1110, transmit_fifo=deque(words)),
        input_source=source,
        shift_isr_right=False,
        shift_osr_right=False,
        out_base=DOUT,
        out_count=1,
        side_set_base=BCLK,
        side_set_count=2,
        wrap_target=target,
        wrap_top=top,
    )
    for before, after in steps:
        pins += [after.pin_values] * (after.clock - before.clock)
        arrived += after.receive_fifo
        after.receive_fifo.clear()
    return arrived, pins


def random_words(n: int) -> list[int]:
    return [int(word) for word in np.random.default_rng(6).integers(0, 1 << 32, n)]


@pytest.mark.parametrize("slot", ["left", "right"])
def test_recorded_frame_is_played_frame(programs: dict[str, list], slot: str) -> None:
    words = random_words(FRAMES)
    arrived, _ = emulate(programs[slot], words, lambda _, pins: pins >> DOUT & 1)
    assert len(arrived) >= FRAMES - 1
    assert arrived == words[: len(arrived)]


@pytest.mark.parametrize("slot", ["left", "right"])
def test_lines_are_i2s(programs: dict[str, list], slot: str) -> None:
    """64 equal clocks a frame; words begin one clock after LRCLK turns; data stand when BCLK rises."""
    words = random_words(FRAMES)
    _, pins = emulate(programs[slot], words, lambda *_: 0)
    rises = [n + 1 for n, (a, b) in enumerate(pairwise(pins)) if not a >> BCLK & 1 and b >> BCLK & 1]
    assert set(np.diff(rises)) == {CYCLES // BITS}
    for n in rises:
        assert pins[n - 1] >> DOUT == pins[n] >> DOUT == pins[n + 1] >> DOUT
    lrclk = [pins[n] >> LRCLK & 1 for n in rises]
    data = [pins[n] >> DOUT & 1 for n in rises]
    turns = [n + 1 for n, (a, b) in enumerate(pairwise(lrclk)) if a != b]
    assert set(np.diff(turns)) == {BITS // 2}
    heard = [(lrclk[n], data[n + 1 : n + 33]) for n in turns if n + 33 <= len(data)]
    rights = [int("".join(map(str, bits)), 2) for is_right, bits in heard if is_right]
    lefts = [int("".join(map(str, bits)), 2) for is_right, bits in heard if not is_right]
    assert rights == words[: len(rights)]
    assert lefts == words[1 : len(lefts) + 1]  # the first left slot begins before LRCLK turns


@pytest.mark.parametrize("slot", ["left", "right"])
def test_only_the_microphones_slot_is_recorded(programs: dict[str, list], slot: str) -> None:
    level = 1 if slot == "right" else 0
    arrived, _ = emulate(
        programs[slot], random_words(FRAMES), lambda _, pins: int(pins >> LRCLK & 1 == level)
    )
    # LRCLK leads by a bit: the slot's last bit is heard as the other's first.
    assert set(arrived) == {0xFFFFFFFE}


def test_rings_lie_at_a_multiple_of_their_size_and_cost_nothing_more(run: Callable[[str], dict]) -> None:
    script = """
import gc, uctypes
gc.collect()
before = gc.mem_alloc()
rings = pio.rings()
gc.collect()
print(json.dumps({"taken": gc.mem_alloc() - before, "at": [uctypes.addressof(r) for r in rings]}))
"""
    got = run(script)
    assert 49152 <= got["taken"] < 49152 + 1024  # the rings, two views and their tuple
    assert got["at"][0] % 32768 == 0
    assert got["at"][1] % 16384 == 0


def test_what_is_played_comes_back_at_a_fixed_place(run: Callable[[str], dict]) -> None:
    """Block b + lead of the recording is block b that was given to play, for ten turns of the ring."""
    script = (
        RINGS
        + """
blocks = []
audio.start()
for number in range(160):
    turn(number, blocks)
audio.stop()
same = [blocks[b + LEAD] == list(ramp(b * N, N)) for b in range(160 - LEAD)]
print(json.dumps({"same": same, "silent": not any(any(b) for b in blocks[:LEAD]), "us": time.now_us}))
"""
    )
    got = run(script)
    assert got["silent"]
    assert all(got["same"])
    assert len(got["same"]) == 145
    assert abs(got["us"] - 160 * 512 / 16e-3) < 20_000  # 16 kHz, and a poll each ms; a chunk is 16 ms


def test_a_stall_of_a_card_costs_nothing(run: Callable[[str], dict]) -> None:
    script = (
        RINGS
        + """
blocks = []
audio.start()
for number in range(100):
    turn(number, blocks)
    if number % 30 == 20:
        time.now_us += 400000
same = [blocks[b + LEAD] == list(ramp(b * N, N)) for b in range(100 - LEAD)]
audio.stop()
print(json.dumps({"same": same, "lost": audio.lost_frames}))
"""
    )
    got = run(script)
    assert all(got["same"])
    assert got["lost"] == 0


@pytest.mark.parametrize("stall_ms", [500, 700, 1100, 2700, 60_000])
def test_a_longer_stall_is_counted_and_moves_nothing(run: Callable[[str], dict], stall_ms: int) -> None:
    """Frames lost are exact, whole turns of the ring included; then what is played comes back as before."""
    script = (
        RINGS
        + """
blocks = []
audio.start()
for number in range(100):
    turn(number, blocks)
    if number == 40:
        time.now_us += STALL_US
frames = time.now_us * 16 // 1000
unread = audio.unread
audio.stop()
same = [blocks[b + LEAD] == list(ramp(b * N, N)) for b in range(60, 100 - LEAD)]
print(json.dumps({"same": same, "lost": audio.lost_frames, "known": 100 * N + audio.lost_frames + unread,
    "frames": frames}))
"""
    )
    got = run(script.replace("STALL_US", str(1000 * stall_ms)))
    assert all(got["same"])
    assert got["lost"] % 512 == 0
    assert got["lost"] > 0
    assert 0 <= got["frames"] - got["known"] < 512 + 256


def test_volume_and_shift(run: Callable[[str], dict]) -> None:
    """Played: round(volume·x); recorded: what does not fit 16 bits is clipped and counted."""
    script = (
        RINGS
        + """
from array import array
ring = bytearray(64)
x = array("h", [-32768, -3, -1, 0, 1, 3, 32767])
pio.put(x, 7, 16384, memoryview(ring), 5)
halves = list(array("h", bytes(ring)))[5:12]
words = array("i", [1 << 30, -1 << 30, 99, -99, 5 << 14, -(5 << 14), (1 << 29) - 1, -(1 << 29)])
out = array("h", bytes(16))
clipped = pio.take(words, 0, 8, 14, out)
print(json.dumps({"halves": halves, "out": list(out), "clipped": clipped}))
"""
    )
    got = run(script)
    assert got["halves"] == [-16384, -1, 0, 0, 1, 2, 16384]
    assert got["out"] == [32767, -32768, 0, -1, 5, -5, 32767, -32768]
    assert got["clipped"] == 2


def test_nothing_runs_on_after_stop_and_the_other_slot_can_follow(run: Callable[[str], dict]) -> None:
    """The simulation refuses a program loaded twice, channels closed while they move, unaligned rings."""
    script = (
        RINGS
        + """
rings = (audio.recorded, audio.played)
for slot in ("left", "right", "left"):
    SETTINGS["slot"] = slot
    audio = pio.PIOAudio(audio.wires, rings, SETTINGS)
    audio.start()
    audio.read(got)
    audio.stop()
    audio.stop()
print(json.dumps({"played_out": loop.heard}))
"""
    )
    assert not any(run(script)["played_out"])
