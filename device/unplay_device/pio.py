"""Play and record with one PIO state machine of an RP2040 or RP2350, and two DMA channels.

One program puts out bits and takes bits in, so recorded frame k is heard while frame k is played: the offset
is 0 in every session. The DMA was started before the program and turns in rings; its address is the number of
the frame, so nothing can be lost without being counted. (RP2040 data sheet, 2.5 DMA and 3 PIO.)
"""

# pyright: reportUndefinedVariable=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import gc
import time

import machine
import rp2
import uctypes

import micropython

RING = 8192
"""Frames in a ring: 0.51 s at 16 kHz. A card may be busy for 0.25 s."""

RECORDED_BITS, PLAYED_BITS = 15, 14
"""Address bits that turn: a recorded frame is a word of 4 bytes, a played one a sample of 2. The FIFO gets
each sample in both halves of its word (2.1.4, narrow writes); the amplifier takes the upper half."""

CYCLES = 256
"""Of the program, a frame."""

FOREVER = 0xFFFFFFFF
"""Transfers: 74 h on the RP2040, without end on the RP2350 (whose upper four bits are the mode)."""


def program(left):
    """I2S both ways, 64 bits a frame, the played word in both slots. left: which slot is recorded, or right.

    Side-set pins: BCLK, then LRCLK (1, 2). Data change while BCLK is low and are taken when it rises; LRCLK
    changes one bit before the slot's first. Every bit has four cycles. OSR is shifted out, Y keeps the word
    for the second slot, X counts bits; ISR keeps the last 32 bits: pushing at a slot's end records this slot.
    """

    @rp2.asm_pio(
        out_init=rp2.PIO.OUT_LOW,
        sideset_init=(rp2.PIO.OUT_LOW, rp2.PIO.OUT_LOW),
        in_shiftdir=rp2.PIO.SHIFT_LEFT,
        out_shiftdir=rp2.PIO.SHIFT_LEFT,
    )
    def frame():
        pull().side(1)
        wrap_target()
        mov(y, osr).side(0)  # first bit of the left slot
        out(pins, 1).side(0)
        in_(pins, 1).side(1)
        set(x, 29).side(1)
        label("left")
        out(pins, 1).side(0)[1]
        in_(pins, 1).side(1)
        jmp(x_dec, "left").side(1)
        out(pins, 1).side(2)  # last bit: LRCLK is of the right slot already
        mov(osr, y).side(2)
        in_(pins, 1).side(3)
        if left:
            push().side(3)
        else:
            nop().side(3)
        out(pins, 1).side(2)[1]
        in_(pins, 1).side(3)
        set(x, 29).side(3)
        label("right")
        out(pins, 1).side(2)[1]
        in_(pins, 1).side(3)
        jmp(x_dec, "right").side(3)
        out(pins, 1).side(0)
        pull().side(0)
        in_(pins, 1).side(1)
        if left:
            nop().side(1)
        else:
            push().side(1)
        wrap()

    return frame


@micropython.viper
def put(x: ptr16, n: int, volume_q15: int, ring: ptr16, at: int):
    """Samples times volume into the ring from frame `at` on."""
    ring = ptr16(int(ring) + (at << 1))
    while n:
        ring[0] = (((x[0] << 16) >> 16) * volume_q15 + 0x4000) >> 15
        x = ptr16(int(x) + 2)
        ring = ptr16(int(ring) + 2)
        n -= 1


@micropython.viper
def take(ring: ptr32, at: int, n: int, shift: int, out: ptr16) -> int:
    """Samples from frame `at` of the ring on, shifted down. Returns how many were clipped to 16 bits."""
    ring = ptr32(int(ring) + (at << 2))
    clipped = 0
    while n:
        w = ring[0] >> shift
        if w > 32767:
            w = 32767
            clipped += 1
        elif w < -32768:
            w = -32768
            clipped += 1
        out[0] = w
        ring = ptr32(int(ring) + 4)
        out = ptr16(int(out) + 2)
        n -= 1
    return clipped


def aligned(n_bytes, alignment):
    """A bytearray whose address is a multiple of `alignment`. What lay before it is free again.

    Raises MemoryError.
    """
    fillers = []
    while True:
        gap = _gap(n_bytes, alignment)
        gc.collect()
        if not gap:
            ring = bytearray(n_bytes)
            if not -uctypes.addressof(ring) % alignment:
                return ring
        fillers.append(bytearray(gap))


def _gap(n_bytes, alignment):
    """Bytes from where n_bytes would be put to the next multiple.

    A function of its own, so that nothing on the stack points there any more when memory is collected.
    """
    return -uctypes.addressof(bytearray(n_bytes)) % alignment


def rings():
    """Memory for `PIOAudio`: to be taken once, early, and kept, as it must lie at a multiple of its size."""
    both = memoryview(aligned(6 * RING, 4 * RING))
    return both[: 4 * RING], both[4 * RING :]


class PIOAudio:
    """As `unplay_device.i2s.I2SAudio`. wires: bclk, lrclk (the pin after it), din, dout. rings: `rings()`."""

    def __init__(self, wires, rings, settings):
        self.wires = wires
        self.recorded, self.played = rings
        self.recorded_at = uctypes.addressof(self.recorded)
        self.settings = settings
        self.block = settings["block"]
        self.lead_blocks = RING // self.block - 1
        self.lost_frames = 0
        self.machine = self.player = self.recorder = None

    def start(self):
        """Arm both channels on silence, then let the program run: frame 0 is the first of both."""
        self.rate_hz = self.settings["rate_hz"]
        self.shift = self.settings["microphone_shift"]
        self.volume_q15 = self.settings["volume_q15"]
        self.program = program(self.settings["slot"] == "left")
        self._silence()
        self.read_at = self.seen_at = self.unread = self.lost_frames = 0
        self.write_at = self.lead_blocks * self.block
        self.machine = self._state_machine()
        self.player, self.recorder = rp2.DMA(), rp2.DMA()
        self.player.config(
            read=self.played,
            write=self.machine,
            count=FOREVER,
            ctrl=self.player.pack_ctrl(
                size=1, inc_write=False, ring_size=PLAYED_BITS, ring_sel=False, treq_sel=0, high_pri=True
            ),
            trigger=True,
        )
        self.recorder.config(
            read=self.machine,
            write=self.recorded,
            count=FOREVER,
            ctrl=self.recorder.pack_ctrl(
                size=2, inc_read=False, ring_size=RECORDED_BITS, ring_sel=True, treq_sel=4, high_pri=True
            ),
            trigger=True,
        )
        self.seen_ms = time.ticks_ms()
        self.machine.active(1)

    def _state_machine(self):
        """Number 0 of PIO 0, whose transfer requests are 0 (played) and 4 (recorded)."""
        wires = self.wires
        return rp2.StateMachine(
            0,
            self.program,
            freq=CYCLES * self.rate_hz,
            in_base=machine.Pin(wires["din"], machine.Pin.IN),
            out_base=machine.Pin(wires["dout"]),
            sideset_base=machine.Pin(wires["bclk"]),
        )

    def read(self, samples):
        """Wait for the next block of the microphone. Returns how many samples were clipped."""
        self._look()
        while self.unread < self.block:
            time.sleep_ms(1)
            self._look()
        clipped = take(self.recorded, self.read_at, self.block, self.shift, samples)
        self.read_at = (self.read_at + self.block) & (RING - 1)
        self.unread -= self.block
        return clipped

    def write(self, samples):
        """Play a block after those given before."""
        put(samples, self.block, self.volume_q15, self.played, self.write_at)
        self.write_at = (self.write_at + self.block) & (RING - 1)

    def _look(self):
        """Count what was recorded since the last look, whole turns of the ring by the clock."""
        at = (self.recorder.write - self.recorded_at) >> 2 & (RING - 1)
        now_ms = time.ticks_ms()
        moved = (at - self.seen_at) & (RING - 1)
        expected = time.ticks_diff(now_ms, self.seen_ms) * (self.rate_hz // 1000)
        moved += (expected - moved + RING // 2) // RING * RING
        self.seen_at, self.seen_ms = at, now_ms
        self.unread += moved
        if self.unread > RING - 2 * self.block:
            self._skip()

    def _skip(self):
        """Leave out, in both directions, the blocks that are or will soon be written over."""
        n_blocks = -((RING - 2 * self.block - self.unread) // self.block)
        n = n_blocks * self.block
        self.unread -= n
        self.lost_frames += n
        self.read_at = (self.read_at + n) & (RING - 1)
        self.write_at = (self.write_at + n) & (RING - 1)

    def stop(self):
        """Silence first, so that the amplifier does not click; then nothing may write to memory any more."""
        if self.machine is None:
            return
        self._silence()
        time.sleep_ms(2)
        self.machine.active(0)
        for channel in (self.player, self.recorder):
            channel.active(0)
            channel.close()
        rp2.PIO(0).remove_program(self.program)
        self.machine = self.player = self.recorder = None

    def _silence(self):
        put(self.played, RING, 0, self.played, 0)
