"""The module `rp2` of a Pico, as far as `unplay_device.pio` needs it: assembler, state machine, DMA in rings.

Instructions are encoded as the RP2040 data sheet says (3.4). The state machine does not run them (that they
make I2S is proved elsewhere): it exchanges frames, one word each way, between the DMA's rings and `sound`.
"""

from array import array

import uctypes

FIFO_WORDS = 4
CHUNK = 256
"""Frames that are exchanged at a time; blocks are multiples."""

FRAME_BYTES = 8


class PIO:
    OUT_LOW, SHIFT_LEFT = 2, 0

    def __init__(self, number):
        assert number == 0

    def remove_program(self, program):
        assert program[1] == 0, "the program is not loaded"
        program[1] = -1


# The assembler: names that a program uses, and what they are in an instruction

PLACES = {"pins": 0, "x": 1, "y": 2, "null": 3, "isr": 6, "osr": 7}
CONDITIONS = {"not_x": 1, "x_dec": 2, "not_y": 3, "y_dec": 4}


class Assembler:
    """Two passes over a program: labels, then instructions."""

    def __init__(self, n_side):
        self.n_side, self.labels = n_side, {}

    def names(self):
        known = {"wrap_target": self._wrap_target, "wrap": self._wrap, "label": self._label}
        known.update(PLACES)
        known.update(CONDITIONS)
        for name in ("jmp", "in_", "out", "push", "pull", "mov", "set", "nop"):
            known[name] = getattr(self, "_" + name)
        return known

    def begin(self):
        self.words, self.target, self.top = array("H"), 0, 0

    def _emit(self, word):
        self.words.append(word)
        return self

    def side(self, value):
        assert 0 <= value < 1 << self.n_side
        self.words[-1] |= value << (13 - self.n_side)
        return self

    def __getitem__(self, delay):
        assert 0 <= delay < 1 << (5 - self.n_side)
        self.words[-1] |= delay << 8
        return self

    def _wrap_target(self):
        self.target = len(self.words)

    def _wrap(self):
        self.top = len(self.words) - 1

    def _label(self, name):
        self.labels[name] = len(self.words)

    def _jmp(self, condition, label):
        return self._emit(condition << 5 | self.labels.get(label, 0))

    def _in_(self, source, n):
        return self._emit(0x4000 | source << 5 | n & 31)

    def _out(self, target, n):
        return self._emit(0x6000 | target << 5 | n & 31)

    def _push(self):
        return self._emit(0x8020)

    def _pull(self):
        return self._emit(0x80A0)

    def _mov(self, target, source):
        return self._emit(0xA000 | target << 5 | source)

    def _set(self, target, value):
        return self._emit(0xE000 | target << 5 | value)

    def _nop(self):
        return self._emit(0xA042)


def asm_pio(*, out_init, sideset_init, in_shiftdir, out_shiftdir):
    """A program is [instructions, place in PIO 0, wrap target, wrap].

    As the real one, this lends the function other global names while it is called.
    """
    assert in_shiftdir == out_shiftdir == PIO.SHIFT_LEFT
    assembler = Assembler(len(sideset_init))

    def assemble(function):
        names = function.__globals__
        kept = names.copy()
        names.clear()
        names.update(assembler.names())
        for _ in range(2):
            assembler.begin()
            function()
        names.clear()
        names.update(kept)
        return [assembler.words, -1, assembler.target, assembler.top]

    return assemble


class StateMachine:
    """Frames of one word each way; `sound` is the other end."""

    def __init__(self, number, program, *, freq, in_base, out_base, sideset_base):
        global running, sound
        assert number == 0
        assert len(program[0]) <= 32
        assert program[1] < 0, "the program is loaded twice"
        program[1] = 0
        self.rate_hz = freq // 256
        self.runs = False
        self.done = 0
        self.player = self.recorder = None
        running = self
        sound = sound or Room()

    def active(self, on):
        self.runs = bool(on)
        if on:
            self.begun_us = sound.open(self.rate_hz)
        else:
            sound.close()

    def catch_up(self):
        """All frames that are over by now, in whole chunks."""
        if not self.runs:
            return
        due = (sound.us() - self.begun_us) * self.rate_hz // 1000000
        while due - self.done >= CHUNK:
            played = self.player.fetch(CHUNK)
            self.recorder.store(sound.exchange(played, self.begun_us + self.done * 1000000 // self.rate_hz))
            self.done += CHUNK


class DMA:
    """A channel between a state machine's FIFO and memory, in a ring."""

    def __init__(self):
        self.open, self.triggered, self.moved = True, False, 0

    def pack_ctrl(self, **fields):
        return fields

    def config(self, *, read, write, count, ctrl, trigger):
        plays = isinstance(write, StateMachine)
        memory = read if plays else write
        self.address = uctypes.addressof(memory)
        self.ring_bytes = 1 << ctrl["ring_size"]
        self.width = 1 << ctrl["size"]
        assert count == 0xFFFFFFFF
        assert trigger
        assert self.open
        assert ctrl["ring_sel"] == (not plays)
        assert not ctrl["inc_write" if plays else "inc_read"]
        assert ctrl["treq_sel"] == (0 if plays else 4)
        assert self.address % self.ring_bytes == 0, "the ring is not aligned to its size"
        assert self.ring_bytes == len(memory)
        self.memory = uctypes.bytearray_at(self.address, self.ring_bytes)
        self.triggered = True
        if plays:
            running.player = self
            self.fifo = b""
            self.fifo = self.fetch(FIFO_WORDS)
        else:
            running.recorder = self

    def active(self, on):
        assert not on
        self.triggered = False

    def close(self):
        assert not self.triggered, "the channel is closed while it writes to memory"
        self.open = False

    def _move(self, n, data=None):
        """The next n transfers: read, or written from data."""
        at = self.moved * self.width % self.ring_bytes
        size = n * self.width
        self.moved += n
        first = min(size, self.ring_bytes - at)
        if data is None:
            return bytes(self.memory[at : at + first]) + bytes(self.memory[: size - first])
        self.memory[at : at + first] = data[:first]
        self.memory[: size - first] = data[first:]
        return data

    def fetch(self, n):
        """What leaves the FIFO in the next n frames: what was fetched a FIFO's length before."""
        if not self.triggered:
            return bytes(n * self.width)
        queue = self.fifo + self._move(n)
        self.fifo = queue[n * self.width :]
        return queue[: n * self.width]

    def store(self, data):
        if self.triggered:
            self._move(len(data) // self.width, data)

    @property
    def write(self):
        running.catch_up()
        return self.address + self.moved * self.width % self.ring_bytes


class Room:
    """The virtual device's sound: two streams of the host's, each exchange at the time when it began."""

    def __init__(self):
        import board

        self.board = board
        self.frames = array("i", bytes(FRAME_BYTES * CHUNK))

    def us(self):
        return self.board.WORLD.us()

    def open(self, rate_hz):
        I2S = self.board.I2S
        self.streams = [
            I2S(
                0,
                sck=0,
                ws=0,
                sd=0,
                mode=mode,
                bits=32,
                format=I2S.STEREO,
                rate=rate_hz,
                ibuf=8 * FRAME_BYTES * CHUNK,
            )
            for mode in (I2S.TX, I2S.RX)
        ]
        return self.us()

    def close(self):
        for stream in self.streams:
            stream.deinit()

    def exchange(self, played, then_us):
        """Words of the left slot, for samples that both slots play."""
        world, frames = self.board.WORLD, self.frames
        now_us, world.now = world.now, then_us
        samples = array("h", played)
        for n in range(CHUNK):
            frames[2 * n] = frames[2 * n + 1] = samples[n] << 16
        world.ask(b"W", FRAME_BYTES * CHUNK, frames)
        world.ask(b"R", FRAME_BYTES * CHUNK, into=frames)
        world.now = now_us
        return bytes(array("i", [frames[2 * n] for n in range(CHUNK)]))


running = None
"""The state machine."""

sound = None
"""An object with open(rate_hz) → µs, us(), exchange(samples, then_us) → words, close(); absent: `Room`."""
