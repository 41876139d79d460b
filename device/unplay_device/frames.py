"""Between samples of 16 bits and I2S frames: two slots of 32 bits, left then right, both directions.

All boards use this one format; mono and 16-bit modes of ports swap or repeat samples.
"""

import micropython

FRAME_BYTES = 8


@micropython.viper
def spread(x: ptr16, n: int, frames: ptr32, volume_q15: int):
    """Samples times volume into both slots."""
    while n:
        w = ((x[0] << 16) >> 16) * volume_q15 << 1
        frames[0] = w
        frames[1] = w
        x = ptr16(int(x) + 2)
        frames = ptr32(int(frames) + 8)
        n -= 1


@micropython.viper
def pick(frames: ptr32, n: int, slot: int, shift: int, out: ptr16) -> int:
    """Samples of one slot, shifted down; returns how many would not fit 16 bits and were clipped."""
    frames = ptr32(int(frames) + 4 * slot)
    clipped = 0
    while n:
        w = frames[0] >> shift
        if w > 32767:
            w = 32767
            clipped += 1
        elif w < -32768:
            w = -32768
            clipped += 1
        out[0] = w
        frames = ptr32(int(frames) + 8)
        out = ptr16(int(out) + 2)
        n -= 1
    return clipped


@micropython.viper
def loudest(x: ptr16, n: int) -> int:
    """Bits collected over the samples: their count is that of the loudest."""
    seen = 0
    while n:
        w = (x[0] << 16) >> 16
        seen = seen | (w ^ (w >> 31))
        x = ptr16(int(x) + 2)
        n -= 1
    return seen
