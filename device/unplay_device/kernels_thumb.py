"""The canceller's kernels for RP2040 and RP2350: the FFT in Thumb assembler, the rest in viper. Same bits.

Only ARMv6-M instructions, so that one file serves both. The assembler of MicroPython knows neither sxth and
uxth nor an addition from a high register; `data` holds their encodings, the instruction stands beside it.
"""

from array import array

import micropython
from unplay_device.kernels import (
    bit_count,
    constrain,
    doubt,
    emphasise,
    estimate,
    first2,
    forget,
    gather,
    insert,
    largest,
    learn,
    listen,
    loudness,
    move,
    octets,
    peak,
    rescale,
    restore,
    samples,
    words,
)  # fmt: skip

_frame = array("i", bytes(64))


def first4(src, n, shift, low, dst, order):
    """See `unplay_shared.kernels`."""
    frame = _frame
    frame[0] = n
    frame[1] = (1 << shift) >> 1
    frame[2] = low
    frame[3] = n >> 2
    frame[4] = shift
    return _first4(src, dst, order, frame)


def stage(z, n, shift, length, twiddles):
    """See `unplay_shared.kernels`. The frame: what does not fit into registers."""
    frame = _frame
    frame[0] = 4 * length
    frame[1] = -12 * length
    frame[2] = (1 << shift) >> 1
    frame[3] = shift
    frame[4] = (n >> 2) // length
    frame[9] = 0
    frame[10] = 4 * ((n >> 1) // length)
    frame[11] = 4 * n
    frame[12] = length
    return _stage(z, twiddles, frame)


def split(src, n, shift, dst, twiddles, wrap):
    """See `unplay_shared.kernels`."""
    if wrap:
        copy_word(src, n)
    frame = _frame
    frame[0] = shift
    frame[1] = (1 << shift) >> 1
    frame[2] = (n >> 1) + 1
    frame[3] = 4 * n
    return _split(src, dst, twiddles, frame)


@micropython.viper
def copy_word(z: ptr32, n: int):
    """z(n) = z(0), without an object for a large number."""
    z[n] = z[0]


@micropython.asm_thumb
def _first4(r0, r1, r2, r3):
    # r1 dst, r7 frame; r8 src, r9 order, r10 seen, r11 c − …, r12 and lr a − c
    mov(r4, r8)
    mov(r5, r9)
    mov(r6, r10)
    mov(r7, r11)
    push({r4, r5, r6, r7})
    mov(r7, r3)
    mov(r8, r0)
    mov(r9, r2)
    mov(r2, 0)
    mov(r10, r2)
    label(QUARTER)
    mov(r2, r9)
    ldrh(r0, [r2, 0])
    add(r2, r2, 2)
    mov(r9, r2)
    lsl(r0, r0, 2)
    data(2, 0x4440)  # add r0, r8
    ldr(r6, [r7, 0])
    # a: r2, r3
    ldr(r3, [r0, 0])
    ldr(r4, [r7, 8])
    and_(r3, r4)
    data(2, 0xB21A)  # sxth r2, r3
    asr(r3, r3, 16)
    ldr(r5, [r7, 4])
    add(r2, r2, r5)
    add(r3, r3, r5)
    # b: r4, r5
    add(r0, r0, r6)
    ldr(r5, [r0, 0])
    and_(r5, r4)
    data(2, 0xB22C)  # sxth r4, r5
    asr(r5, r5, 16)
    add(r0, r0, r6)
    push({r1})
    # c: r1, r6; a + c: r2, r3; a − c: r12, lr
    ldr(r6, [r0, 0])
    data(2, 0xB231)  # sxth r1, r6
    asr(r6, r6, 16)
    sub(r1, r2, r1)
    mov(r12, r1)
    sub(r1, r2, r1)
    add(r2, r2, r1)
    sub(r6, r3, r6)
    mov(lr, r6)
    sub(r6, r3, r6)
    add(r3, r3, r6)
    # d: r1, r6; b + d: r4, r5; b − d: r11, r6
    ldr(r6, [r7, 0])
    add(r0, r0, r6)
    ldr(r6, [r0, 0])
    data(2, 0xB231)  # sxth r1, r6
    asr(r6, r6, 16)
    sub(r0, r4, r1)
    mov(r11, r0)
    add(r4, r4, r1)
    sub(r0, r5, r6)
    add(r5, r5, r6)
    pop({r1})
    ldr(r6, [r7, 16])
    push({r0})
    # third: a − b + c − d
    sub(r0, r3, r5)
    asr(r0, r6)
    lsl(r0, r0, 16)
    add(r5, r5, r3)
    sub(r3, r2, r4)
    add(r4, r4, r2)
    asr(r3, r6)
    data(2, 0xB29B)  # uxth r3, r3
    orr(r3, r0)
    str(r3, [r1, 8])
    lsl(r0, r3, 1)
    eor(r3, r0)
    # first: a + b + c + d
    asr(r4, r6)
    asr(r5, r6)
    lsl(r5, r5, 16)
    data(2, 0xB2A4)  # uxth r4, r4
    orr(r4, r5)
    str(r4, [r1, 0])
    lsl(r0, r4, 1)
    eor(r4, r0)
    orr(r3, r4)
    # second: a − ib − c + id, fourth: a + ib − c − id
    pop({r0})
    mov(r2, r12)
    add(r4, r2, r0)
    sub(r2, r2, r0)
    asr(r4, r6)
    asr(r2, r6)
    data(2, 0xB2A4)  # uxth r4, r4
    data(2, 0xB292)  # uxth r2, r2
    mov(r0, lr)
    mov(r5, r11)
    sub(r0, r0, r5)
    asr(r0, r6)
    lsl(r0, r0, 16)
    orr(r4, r0)
    str(r4, [r1, 4])
    lsl(r0, r4, 1)
    eor(r4, r0)
    orr(r3, r4)
    mov(r0, lr)
    add(r0, r0, r5)
    asr(r0, r6)
    lsl(r0, r0, 16)
    orr(r2, r0)
    str(r2, [r1, 12])
    lsl(r0, r2, 1)
    eor(r2, r0)
    orr(r3, r2)
    mov(r0, r10)
    orr(r0, r3)
    mov(r10, r0)
    add(r1, 16)
    ldr(r0, [r7, 12])
    sub(r0, r0, 1)
    str(r0, [r7, 12])
    beq(DONE)
    b(QUARTER)
    label(DONE)
    mov(r5, r10)
    lsr(r1, r5, 16)
    orr(r1, r5)
    data(2, 0xB289)  # uxth r1, r1
    mov(r0, 0)
    lsr(r1, r1, 1)
    label(COUNT)
    cmp(r1, 0)
    beq(COUNTED)
    lsr(r1, r1, 1)
    add(r0, r0, 1)
    b(COUNT)
    label(COUNTED)
    pop({r4, r5, r6, r7})
    mov(r8, r4)
    mov(r9, r5)
    mov(r10, r6)
    mov(r11, r7)


@micropython.asm_thumb
def _stage(r0, r1, r2):
    # r0 z, r5 seen, r7 frame; in the loop r8 … r12 and lr hold sums and differences
    mov(r3, r8)
    mov(r4, r9)
    mov(r5, r10)
    mov(r6, r11)
    push({r3, r4, r5, r6})
    mov(r7, r2)
    str(r1, [r7, 52])
    str(r0, [r7, 56])
    mov(r5, 0)
    label(NEXT_TURN)
    # packed twiddles of j, 2j and 3j into frame 24, 28, 32; exp(iθ) = −exp(i(θ − π)) past the table's end
    ldr(r1, [r7, 36])
    ldr(r2, [r7, 52])
    add(r3, r2, r1)
    ldr(r3, [r3, 0])
    str(r3, [r7, 24])
    lsl(r4, r1, 1)
    add(r3, r2, r4)
    ldr(r3, [r3, 0])
    str(r3, [r7, 28])
    add(r4, r4, r1)
    ldr(r3, [r7, 44])
    cmp(r4, r3)
    ble(IN_TABLE)
    sub(r4, r4, r3)
    add(r3, r2, r4)
    ldr(r3, [r3, 0])
    data(2, 0xB21C)  # sxth r4, r3
    asr(r3, r3, 16)
    neg(r3, r3)
    neg(r4, r4)
    lsl(r3, r3, 16)
    data(2, 0xB2A4)  # uxth r4, r4
    orr(r3, r4)
    b(TURN_KNOWN)
    label(IN_TABLE)
    add(r3, r2, r4)
    ldr(r3, [r3, 0])
    label(TURN_KNOWN)
    str(r3, [r7, 32])
    ldr(r2, [r7, 40])
    add(r1, r1, r2)
    str(r1, [r7, 36])
    ldr(r0, [r7, 56])
    add(r1, r0, 4)
    str(r1, [r7, 56])
    ldr(r1, [r7, 16])
    str(r1, [r7, 20])

    label(BUTTERFLY)
    mov(r1, 1)
    lsl(r1, r1, 13)
    mov(lr, r1)  # half a unit of Q14
    # b turned: r8, r9
    ldr(r1, [r7, 0])
    add(r0, r0, r1)
    ldr(r2, [r0, 0])
    data(2, 0xB211)  # sxth r1, r2
    asr(r2, r2, 16)
    ldr(r4, [r7, 24])
    data(2, 0xB223)  # sxth r3, r4
    asr(r4, r4, 16)
    mov(r6, r1)
    mul(r6, r3)
    mov(r12, r6)
    mov(r6, r2)
    mul(r6, r4)
    data(2, 0x4466)  # add r6, r12
    mul(r2, r3)
    mul(r1, r4)
    sub(r2, r2, r1)
    data(2, 0x4476)  # add r6, lr
    asr(r6, r6, 14)
    mov(r8, r6)
    data(2, 0x4472)  # add r2, lr
    asr(r2, r2, 14)
    mov(r9, r2)
    # c turned: r10, r11
    ldr(r1, [r7, 0])
    add(r0, r0, r1)
    ldr(r2, [r0, 0])
    data(2, 0xB211)  # sxth r1, r2
    asr(r2, r2, 16)
    ldr(r4, [r7, 28])
    data(2, 0xB223)  # sxth r3, r4
    asr(r4, r4, 16)
    mov(r6, r1)
    mul(r6, r3)
    mov(r12, r6)
    mov(r6, r2)
    mul(r6, r4)
    data(2, 0x4466)  # add r6, r12
    mul(r2, r3)
    mul(r1, r4)
    sub(r2, r2, r1)
    data(2, 0x4476)  # add r6, lr
    asr(r6, r6, 14)
    mov(r10, r6)
    data(2, 0x4472)  # add r2, lr
    asr(r2, r2, 14)
    mov(r11, r2)
    # d turned: r6, r2
    ldr(r1, [r7, 0])
    add(r0, r0, r1)
    ldr(r2, [r0, 0])
    data(2, 0xB211)  # sxth r1, r2
    asr(r2, r2, 16)
    ldr(r4, [r7, 32])
    data(2, 0xB223)  # sxth r3, r4
    asr(r4, r4, 16)
    mov(r6, r1)
    mul(r6, r3)
    mov(r12, r6)
    mov(r6, r2)
    mul(r6, r4)
    data(2, 0x4466)  # add r6, r12
    mul(r2, r3)
    mul(r1, r4)
    sub(r2, r2, r1)
    data(2, 0x4476)  # add r6, lr
    asr(r6, r6, 14)
    data(2, 0x4472)  # add r2, lr
    asr(r2, r2, 14)
    # b + d: r8, r9; b − d: r12, lr
    mov(r1, r8)
    add(r3, r1, r6)
    mov(r8, r3)
    sub(r3, r1, r6)
    mov(r12, r3)
    mov(r1, r9)
    add(r3, r1, r2)
    mov(r9, r3)
    sub(r3, r1, r2)
    mov(lr, r3)
    # a + c: r3, r4; a − c: r10, r11
    ldr(r1, [r7, 4])
    add(r0, r0, r1)
    ldr(r4, [r0, 0])
    data(2, 0xB223)  # sxth r3, r4
    asr(r4, r4, 16)
    ldr(r2, [r7, 8])
    add(r3, r3, r2)
    add(r4, r4, r2)
    mov(r1, r10)
    sub(r2, r3, r1)
    mov(r10, r2)
    add(r3, r3, r1)
    mov(r1, r11)
    sub(r2, r4, r1)
    mov(r11, r2)
    add(r4, r4, r1)
    ldr(r6, [r7, 12])
    # first: a + b + c + d
    mov(r1, r8)
    add(r1, r1, r3)
    asr(r1, r6)
    mov(r2, r9)
    add(r2, r2, r4)
    asr(r2, r6)
    lsl(r2, r2, 16)
    data(2, 0xB289)  # uxth r1, r1
    orr(r1, r2)
    str(r1, [r0, 0])
    lsl(r2, r1, 1)
    eor(r2, r1)
    orr(r5, r2)
    # third: a − b + c − d
    mov(r1, r8)
    sub(r3, r3, r1)
    asr(r3, r6)
    mov(r2, r9)
    sub(r4, r4, r2)
    asr(r4, r6)
    lsl(r4, r4, 16)
    data(2, 0xB29B)  # uxth r3, r3
    orr(r3, r4)
    ldr(r1, [r7, 0])
    add(r2, r0, r1)
    add(r4, r2, r1)
    str(r3, [r4, 0])
    mov(r0, r4)
    lsl(r4, r3, 1)
    eor(r4, r3)
    orr(r5, r4)
    # second, at r2: a − ib − c + id
    mov(r3, r10)
    mov(r4, lr)
    add(r3, r3, r4)
    asr(r3, r6)
    mov(r1, r11)
    mov(r4, r12)
    sub(r1, r1, r4)
    asr(r1, r6)
    lsl(r1, r1, 16)
    data(2, 0xB29B)  # uxth r3, r3
    orr(r3, r1)
    str(r3, [r2, 0])
    lsl(r4, r3, 1)
    eor(r4, r3)
    orr(r5, r4)
    # fourth: a + ib − c − id
    mov(r3, r10)
    mov(r4, lr)
    sub(r3, r3, r4)
    asr(r3, r6)
    mov(r1, r11)
    mov(r4, r12)
    add(r1, r1, r4)
    asr(r1, r6)
    lsl(r1, r1, 16)
    data(2, 0xB29B)  # uxth r3, r3
    orr(r3, r1)
    ldr(r1, [r7, 0])
    add(r0, r0, r1)
    str(r3, [r0, 0])
    add(r0, r0, r1)
    lsl(r4, r3, 1)
    eor(r4, r3)
    orr(r5, r4)
    ldr(r1, [r7, 20])
    sub(r1, r1, 1)
    str(r1, [r7, 20])
    beq(TURN_DONE)
    b(BUTTERFLY)
    label(TURN_DONE)
    ldr(r1, [r7, 48])
    sub(r1, r1, 1)
    str(r1, [r7, 48])
    beq(DONE)
    b(NEXT_TURN)
    label(DONE)
    lsr(r1, r5, 16)
    orr(r1, r5)
    data(2, 0xB289)  # uxth r1, r1
    mov(r0, 0)
    lsr(r1, r1, 1)
    label(COUNT)
    cmp(r1, 0)
    beq(COUNTED)
    lsr(r1, r1, 1)
    add(r0, r0, 1)
    b(COUNT)
    label(COUNTED)
    pop({r3, r4, r5, r6})
    mov(r8, r3)
    mov(r9, r4)
    mov(r10, r5)
    mov(r11, r6)


@micropython.asm_thumb
def _split(r0, r1, r2, r3):
    # r0 src(k), r1 dst(k), r2 twiddle; r8 src(n − k), r9 dst(n − k), r10 seen, r11 frame
    mov(r4, r8)
    mov(r5, r9)
    mov(r6, r10)
    mov(r7, r11)
    push({r4, r5, r6, r7})
    mov(r11, r3)
    ldr(r4, [r3, 12])
    add(r5, r0, r4)
    mov(r8, r5)
    add(r5, r1, r4)
    mov(r9, r5)
    mov(r4, 0)
    mov(r10, r4)
    label(PAIR)
    ldr(r5, [r0, 0])
    add(r0, r0, 4)
    data(2, 0xB22C)  # sxth r4, r5
    asr(r5, r5, 16)
    mov(r6, r8)
    ldr(r7, [r6, 0])
    sub(r6, r6, 4)
    mov(r8, r6)
    data(2, 0xB23E)  # sxth r6, r7
    asr(r7, r7, 16)
    # E = r12 + i·lr, D = r4 + i·r5
    add(r3, r4, r6)
    mov(r12, r3)
    sub(r3, r5, r7)
    mov(lr, r3)
    sub(r4, r4, r6)
    add(r5, r5, r7)
    # −i·exp(−iθ)·D = r6 + i·r5
    ldr(r7, [r2, 0])
    add(r2, r2, 4)
    push({r2})
    data(2, 0xB23B)  # sxth r3, r7
    asr(r7, r7, 16)
    mov(r6, r5)
    mul(r6, r3)
    mov(r2, r4)
    mul(r2, r7)
    sub(r6, r6, r2)
    mov(r2, 1)
    lsl(r2, r2, 13)
    add(r6, r6, r2)
    asr(r6, r6, 14)
    mul(r4, r3)
    mul(r5, r7)
    add(r5, r5, r4)
    add(r5, r5, r2)
    asr(r5, r5, 14)
    neg(r5, r5)
    mov(r3, r11)
    ldr(r7, [r3, 0])
    ldr(r3, [r3, 4])
    data(2, 0x449C)  # add r12, r3
    # dst(n − k) = E* − T*
    mov(r4, r12)
    sub(r4, r4, r6)
    asr(r4, r7)
    mov(r2, lr)
    sub(r2, r5, r2)
    add(r2, r2, r3)
    asr(r2, r7)
    lsl(r2, r2, 16)
    data(2, 0xB2A4)  # uxth r4, r4
    orr(r4, r2)
    mov(r2, r9)
    str(r4, [r2, 0])
    sub(r2, r2, 4)
    mov(r9, r2)
    lsl(r2, r4, 1)
    eor(r4, r2)
    # dst(k) = E + T
    data(2, 0x4466)  # add r6, r12
    asr(r6, r7)
    data(2, 0x4475)  # add r5, lr
    add(r5, r5, r3)
    asr(r5, r7)
    lsl(r5, r5, 16)
    data(2, 0xB2B6)  # uxth r6, r6
    orr(r6, r5)
    str(r6, [r1, 0])
    add(r1, r1, 4)
    lsl(r2, r6, 1)
    eor(r6, r2)
    orr(r4, r6)
    mov(r2, r10)
    orr(r2, r4)
    mov(r10, r2)
    pop({r2})
    mov(r3, r11)
    ldr(r4, [r3, 8])
    sub(r4, r4, 1)
    str(r4, [r3, 8])
    beq(DONE)
    b(PAIR)
    label(DONE)
    mov(r5, r10)
    lsr(r1, r5, 16)
    orr(r1, r5)
    data(2, 0xB289)  # uxth r1, r1
    mov(r0, 0)
    lsr(r1, r1, 1)
    label(COUNT)
    cmp(r1, 0)
    beq(COUNTED)
    lsr(r1, r1, 1)
    add(r0, r0, 1)
    b(COUNT)
    label(COUNTED)
    pop({r4, r5, r6, r7})
    mov(r8, r4)
    mov(r9, r5)
    mov(r10, r6)
    mov(r11, r7)
