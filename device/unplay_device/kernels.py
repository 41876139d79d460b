"""The canceller's kernels as machine code (viper): the same bits as `unplay_shared.kernels`, described there.

Viper multiplies and shifts 32-bit words without check, and loads halves and bytes without sign. Only the
first three locals live in registers, so the arguments that stand there are used again for what is busiest
in the loop, most often t and u. An operation is shortest with its busy operand on the left. Shift
counts are kept from 0 to 31, because machines differ beyond. No kernel calls another: that would need the
interpreter. Where only the size of complex words is asked, w ^ (w << 1) is collected, whose top set bit in
either half is where the copies of the sign begin.
"""

from array import array

import micropython


def words(n):
    return array("i", bytes(4 * n))


def samples(n):
    return array("h", bytes(2 * n))


def octets(n):
    return bytearray(n)


@micropython.viper
def bit_count(value: int) -> int:
    bits = 0
    while value:
        value = value >> 1
        bits += 1
    return bits


@micropython.viper
def first4(src: ptr32, t: int, u: int, low: int, dst: ptr32, order: ptr16) -> int:
    n = t
    shift = u
    quarters = n >> 2
    half = (1 << shift) >> 1
    seen = 0
    base = int(src)
    while quarters:
        src = ptr32(base + (order[0] << 2))
        order = ptr16(int(order) + 2)
        t = src[0] & low
        ar = ((t << 16) >> 16) + half
        ai = (t >> 16) + half
        src = ptr32(int(src) + n)
        t = src[0] & low
        br = (t << 16) >> 16
        bi = t >> 16
        src = ptr32(int(src) + n)
        t = (src[0] << 16) >> 16
        u = src[0] >> 16
        cr = 0 - t + ar
        ci = 0 - u + ai
        ar = t + ar
        ai = u + ai
        src = ptr32(int(src) + n)
        t = (src[0] << 16) >> 16
        u = src[0] >> 16
        dr = 0 - t + br
        di = 0 - u + bi
        t = t + br
        u = u + bi
        w = ((u + ai) >> shift << 16) | (((t + ar) >> shift) & 0xFFFF)
        dst[0] = w
        seen = (w << 1) ^ w | seen
        t = ar - t
        u = ai - u
        t = (u >> shift << 16) | ((t >> shift) & 0xFFFF)
        dst[2] = t
        seen = (t << 1) ^ t | seen
        t = cr
        u = ci
        w = ((u - dr) >> shift << 16) | (((t + di) >> shift) & 0xFFFF)
        dst[1] = w
        seen = (w << 1) ^ w | seen
        t = ((u + dr) >> shift << 16) | (((t - di) >> shift) & 0xFFFF)
        dst[3] = t
        seen = (t << 1) ^ t | seen
        dst = ptr32(int(dst) + 16)
        quarters -= 1
    t = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while t > 1:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def first2(src: ptr32, t: int, u: int, low: int, dst: ptr32, order: ptr16) -> int:
    to_second = t << 1
    shift = u
    pairs = t >> 1
    half = (1 << shift) >> 1
    seen = 0
    base = int(src)
    while pairs:
        src = ptr32(base + (order[0] << 2))
        order = ptr16(int(order) + 2)
        t = src[0] & low
        ar = ((t << 16) >> 16) + half
        ai = (t >> 16) + half
        src = ptr32(int(src) + to_second)
        t = (src[0] << 16) >> 16
        u = src[0] >> 16
        w = ((u + ai) >> shift << 16) | (((t + ar) >> shift) & 0xFFFF)
        dst[0] = w
        seen = (w << 1) ^ w | seen
        t = ar - t
        u = ai - u
        w = (u >> shift << 16) | ((t >> shift) & 0xFFFF)
        dst[1] = w
        seen = (w << 1) ^ w | seen
        dst = ptr32(int(dst) + 8)
        pairs -= 1
    t = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while t > 1:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def stage(z: ptr32, t: int, u: int, length: int, twiddles: ptr32) -> int:
    n_bytes = t << 2
    shift = u
    base = int(z)
    table = int(twiddles)
    half = (1 << shift) >> 1
    apart = length << 2
    back = length << 3
    to_next = length << 4
    turn = n_bytes >> 1  # bytes between twiddles, n / (2·length) words
    n_groups = t >> 2
    t = length
    while t > 1:
        t = t >> 1
        turn = turn >> 1
        n_groups = n_groups >> 1
    seen = 0
    j = 0
    while j < length:
        t = j * turn
        twiddles = ptr32(table + t)
        c1 = (twiddles[0] << 16) >> 16
        s1 = twiddles[0] >> 16
        twiddles = ptr32(table + (t << 1))
        c2 = (twiddles[0] << 16) >> 16
        s2 = twiddles[0] >> 16
        t = 3 * t
        u = 1
        if t > n_bytes:
            t = t - n_bytes
            u = -1
        twiddles = ptr32(table + t)
        c3 = ((twiddles[0] << 16) >> 16) * u
        s3 = (twiddles[0] >> 16) * u
        z = ptr32(base + (j << 2))
        groups = n_groups
        while groups:
            ar = ((z[0] << 16) >> 16) + half
            ai = (z[0] >> 16) + half
            z = ptr32(int(z) + apart)
            t = (z[0] << 16) >> 16
            u = z[0] >> 16
            br = (t * c1 + u * s1 + 8192) >> 14
            bi = (u * c1 - t * s1 + 8192) >> 14
            z = ptr32(int(z) + apart)
            t = (z[0] << 16) >> 16
            u = z[0] >> 16
            cr = (t * c2 + u * s2 + 8192) >> 14
            ci = (u * c2 - t * s2 + 8192) >> 14
            z = ptr32(int(z) + apart)
            t = (z[0] << 16) >> 16
            u = z[0] >> 16
            dr = (t * c3 + u * s3 + 8192) >> 14
            u = (u * c3 - t * s3 + 8192) >> 14
            di = bi - u
            bi = u + bi
            t = dr
            dr = br - t
            br = t + br
            t = ar - cr
            u = ai - ci
            w = ((u + dr) >> shift << 16) | (((t - di) >> shift) & 0xFFFF)
            z[0] = w
            seen = (w << 1) ^ w | seen
            t = ((u - dr) >> shift << 16) | (((t + di) >> shift) & 0xFFFF)
            z = ptr32(int(z) - back)
            z[0] = t
            seen = (t << 1) ^ t | seen
            z = ptr32(int(z) + apart)
            t = ar + cr
            u = ai + ci
            w = ((u - bi) >> shift << 16) | (((t - br) >> shift) & 0xFFFF)
            z[0] = w
            seen = (w << 1) ^ w | seen
            z = ptr32(int(z) - back)
            t = ((u + bi) >> shift << 16) | (((t + br) >> shift) & 0xFFFF)
            z[0] = t
            seen = (t << 1) ^ t | seen
            z = ptr32(int(z) + to_next)
            groups -= 1
        j += 1
    t = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while t > 1:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def split(src: ptr32, t: int, u: int, dst: ptr32, twiddles: ptr32, wrap: int) -> int:
    shift = u
    n_bytes = t << 2
    far = ptr32(int(src) + n_bytes)
    if wrap:
        far[0] = src[0]
    there = ptr32(int(dst) + n_bytes)
    half = (1 << shift) >> 1
    seen = 0
    pairs = (t >> 1) + 1
    while pairs:
        t = (src[0] << 16) >> 16
        u = src[0] >> 16
        src = ptr32(int(src) + 4)
        dr = (far[0] << 16) >> 16
        di = far[0] >> 16
        far = ptr32(int(far) - 4)
        er = t + dr + half
        ei = u - di
        t = t - dr
        u = u + di
        c = (twiddles[0] << 16) >> 16
        s = twiddles[0] >> 16
        twiddles = ptr32(int(twiddles) + 4)
        dr = (u * c - t * s + 8192) >> 14
        u = 0 - ((t * c + u * s + 8192) >> 14)
        t = dr
        w = ((u - ei + half) >> shift << 16) | (((er - t) >> shift) & 0xFFFF)
        there[0] = w
        there = ptr32(int(there) - 4)
        seen = (w << 1) ^ w | seen
        t = ((u + ei + half) >> shift << 16) | (((t + er) >> shift) & 0xFFFF)
        dst[0] = t
        dst = ptr32(int(dst) + 4)
        seen = (t << 1) ^ t | seen
        pairs -= 1
    t = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while t > 1:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def move(src: ptr32, n_words: int, t: int, dst: ptr32, at: int):
    src = ptr32(int(src) + (at << 2))
    shift = t
    up = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    moved = up | shift
    while n_words:
        t = src[0]
        if moved:
            u = (t << 16) >> 16 << up >> shift
            t = (t >> 16 << up >> shift << 16) | (u & 0xFFFF)
        dst[0] = t
        src = ptr32(int(src) + 4)
        dst = ptr32(int(dst) + 4)
        n_words -= 1


@micropython.viper
def peak(x: ptr16, t: int, before: int) -> int:
    n = t
    seen = 0
    while n:
        t = (x[0] ^ 0x8000) - 0x8000
        x = ptr16(int(x) + 2)
        before = t * 32 - before * 29
        seen = (before >> 31) ^ before | seen
        before = t
        n -= 1
    t = seen
    bits = 0
    while t:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def emphasise(x: ptr16, t: int, before: int, dst: ptr16, at: int, shift: int) -> int:
    n = t
    dst = ptr16(int(dst) + (at << 2))
    total = 0
    up = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    while n:
        t = (x[0] ^ 0x8000) - 0x8000
        x = ptr16(int(x) + 2)
        before = (t * 32 - before * 29) << up >> shift
        dst[0] = before
        dst = ptr16(int(dst) + 2)
        total = ((before >> 31) ^ before) + total
        before = t
        n -= 1
    return total


@micropython.viper
def restore(z: ptr16, t: int, y: int, source: ptr16, out: ptr16, at: int, states: ptr32, which: int):
    n = t >> 1
    shift = y
    z = ptr16(int(z) + (at << 2))
    y = states[which]
    up = 0
    half = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    elif shift:
        half = 1 << (shift - 1)
    limit = 33554431
    while n:
        t = (z[0] ^ 0x8000) - 0x8000
        y = ((y * 29) >> 5) + ((t + half) << up >> shift)
        if (y + limit + 1) >> 26:
            if y > limit:
                y = limit
            else:
                y = -33554432
        t = (source[0] ^ 0x8000) - 0x8000 - ((y + 8) >> 4)
        if (t + 32768) >> 16:
            if t > 32767:
                t = 32767
            else:
                t = -32768
        out[0] = t
        t = 32768 - (z[1] ^ 0x8000)
        z = ptr16(int(z) + 4)
        y = ((y * 29) >> 5) + ((t + half) << up >> shift)
        if (y + limit + 1) >> 26:
            if y > limit:
                y = limit
            else:
                y = -33554432
        t = (source[1] ^ 0x8000) - 0x8000 - ((y + 8) >> 4)
        source = ptr16(int(source) + 4)
        if (t + 32768) >> 16:
            if t > 32767:
                t = 32767
            else:
                t = -32768
        out[1] = t
        out = ptr16(int(out) + 4)
        n -= 1
    states[which] = y


@micropython.viper
def loudness(d: ptr16, t: int, e: ptr16, sums: ptr32):
    n = t >> 2
    d_sum = 0
    e_sum = 0
    y_sum = 0
    while n:
        t = (d[0] ^ 0x8000) - 0x8000
        d_sum = ((t >> 31) ^ t) + d_sum
        u = (e[0] ^ 0x8000) - 0x8000
        e_sum = ((u >> 31) ^ u) + e_sum
        t = t - u
        y_sum = ((t >> 31) ^ t) + y_sum
        d = ptr16(int(d) + 8)
        e = ptr16(int(e) + 8)
        n -= 1
    sums[0] = d_sum
    sums[1] = e_sum
    sums[2] = y_sum


@micropython.viper
def insert(x: ptr32, t: int, u: int, new: ptr32, new_shift: int, old_shift: int):
    n_bins = t
    up = 0
    if new_shift < 0:
        up = 0 - new_shift
        new_shift = 0
    old_up = 0
    if old_shift < 0:
        old_up = 0 - old_shift
        old_shift = 0
    moved = old_up | old_shift
    n_older = u - 1
    to_last = n_older << 2
    to_next = u << 2
    while n_bins:
        x = ptr32(int(x) + to_last)
        p = n_older
        while p:
            x = ptr32(int(x) - 4)
            t = x[0]
            if moved:
                u = (t << 16) >> 16 << old_up >> old_shift
                t = (t >> 16 << old_up >> old_shift << 16) | (u & 0xFFFF)
            x[1] = t
            p -= 1
        u = (new[0] << 16) >> 16 << up >> new_shift
        x[0] = (new[0] >> 16 << up >> new_shift << 16) | (u & 0xFFFF)
        new = ptr32(int(new) + 4)
        x = ptr32(int(x) + to_next)
        n_bins -= 1


@micropython.viper
def estimate(
    w: ptr32,
    t: int,
    u: int,
    x: ptr32,
    p: ptr32,
    p_shift: ptr8,
    x2_shift: int,
    yr: ptr32,
    yi: ptr32,
    s: ptr32,
    x2_bits: ptr8,
) -> int:
    n_bins = t
    n_parts = u
    seen = 0
    while n_bins:
        re = 0
        im = 0
        power = 0
        loudest = 0
        i = n_parts
        while i:
            t = (x[0] << 16) >> 16
            u = x[0] >> 16
            x = ptr32(int(x) + 4)
            a = w[0] >> 14
            b = w[1] >> 14
            w = ptr32(int(w) + 8)
            re = t * a - u * b + re
            im = t * b + u * a + im
            t = t * t + u * u
            loudest = t | loudest
            u = p[0] >> p_shift[0]
            p = ptr32(int(p) + 4)
            if t < 32768:
                power = ((t * u) >> x2_shift) + power
            else:
                power = (t >> x2_shift) * u + power
            i -= 1
        yr[0] = re
        yr = ptr32(int(yr) + 4)
        yi[0] = im
        yi = ptr32(int(yi) + 4)
        s[0] = power
        s = ptr32(int(s) + 4)
        seen = (re >> 31) ^ re | seen | ((im >> 31) ^ im)
        t = loudest
        u = 0
        if t >= 65536:
            t = t >> 16
            u = 16
        if t >= 256:
            t = t >> 8
            u += 8
        if t >= 16:
            t = t >> 4
            u += 4
        while t:
            t = t >> 1
            u += 1
        x2_bits[0] = u
        p_shift = ptr8(int(p_shift) + 1)
        x2_bits = ptr8(int(x2_bits) + 1)
        n_bins -= 1
    t = seen
    bits = 0
    while t:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def gather(re: ptr32, t: int, shift: int, im: ptr32, dst: ptr32, im_first: int, first: int, step: int) -> int:
    n_bins = t
    re = ptr32(int(re) + (first << 2))
    im = ptr32(int(im) + ((first + im_first) << 2))
    step = step << 2
    up = 0
    half = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    elif shift:
        half = 1 << (shift - 1)
    seen = 0
    while n_bins:
        t = (re[0] + half) << up >> shift
        t = ((0 - ((im[0] + half) << up >> shift)) << 16) | (t & 0xFFFF)
        dst[0] = t
        seen = (t << 1) ^ t | seen
        re = ptr32(int(re) + step)
        im = ptr32(int(im) + step)
        dst = ptr32(int(dst) + 4)
        n_bins -= 1
    t = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while t > 1:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def listen(e: ptr32, t: int, u: int, psi: ptr32, old_shift: int, smoothing: int) -> int:
    n_bins = t
    new_shift = u
    up = 0
    if new_shift < 0:
        up = 0 - new_shift
        new_shift = 0
    old_up = 0
    if old_shift < 0:
        old_up = 0 - old_shift
        old_shift = 0
    t = (e[0] << 16) >> 16
    u = e[0] >> 16
    two = (t * t + u * u) >> 2 << up >> new_shift
    one = two
    here = two
    t = (e[1] << 16) >> 16
    u = e[1] >> 16
    after = (t * t + u * u) >> 2 << up >> new_shift
    after2 = 0
    total = 3 * two + after
    e = ptr32(int(e) + 8)
    seen = 0
    while n_bins:
        if n_bins > 2:
            t = (e[0] << 16) >> 16
            u = e[0] >> 16
            e = ptr32(int(e) + 4)
            after2 = (t * t + u * u) >> 2 << up >> new_shift
        u = total + after2
        t = psi[0] << old_up >> old_shift
        t = ((u - t) >> smoothing) + t
        psi[0] = t
        psi = ptr32(int(psi) + 4)
        seen = t | seen
        total = u - two
        two = one
        one = here
        here = after
        after = after2
        n_bins -= 1
    t = seen
    bits = 0
    while t:
        t = t >> 1
        bits += 1
    return bits


@micropython.viper
def learn(
    w: ptr32,
    t: int,
    u: int,
    x: ptr32,
    p: ptr32,
    e: ptr32,
    s: ptr32,
    psi: ptr32,
    p_shift: ptr8,
    x2_bits: ptr8,
    prior: ptr32,
    reciprocals: ptr32,
    settings: ptr32,
):
    n_bins = t
    n_parts = u
    exponent_apart = settings[0]
    exponent_psi = settings[1]
    exponent_w = settings[2]
    exponent_k = settings[3]
    p_most = settings[4]
    factor = settings[5]
    kalman = settings[6]
    caution = settings[7]
    fade = settings[8]
    noise = settings[9]
    limit = 536870912
    refill = int(prior)
    while n_bins:
        er = (e[0] << 16) >> 16
        ei = e[0] >> 16
        down = p_shift[0]
        power = s[0]
        u = psi[0]
        exponent = exponent_psi
        t = exponent_apart - down
        if t >= 0:
            if t > 31:
                t = 31
            power = power >> t
        else:
            t = 0 - t
            exponent = t + exponent
            if t > 31:
                t = 31
            u = u >> t
        # 1/D = r·2^(−23 − t), D = 2^t·(256 … 511)
        u = u + power + 1
        t = 0
        if u >= 1048576:
            u = u >> 12
            t = 12
        if u >= 16384:
            u = u >> 6
            t += 6
        if u >= 2048:
            u = u >> 3
            t += 3
        while u >= 512:
            u = u >> 1
            t += 1
        while u < 256:
            u = u << 1
            t -= 1
        r = reciprocals[u - 256]
        if t >= 0:
            gain = ((power >> t) * r) >> 9
        else:
            gain = ((power << (0 - t)) * r) >> 9
        exponent = t + exponent - down
        t = 14
        u = ((er >> 31) ^ er) | ((ei >> 31) ^ ei)
        if u >= 128:
            u = u >> 7
            t = 7
        if u >= 8:
            u = u >> 3
            t -= 3
        while u:
            u = u >> 1
            t -= 1
        u = (r * factor) >> 15
        ur = ((er << t) * u) >> 15
        ui = ((ei << t) * u) >> 15
        u = x2_bits[0]
        f_shift = ((u + 1) >> 1) - 1
        if f_shift < 0:
            f_shift = 0
        t = t + exponent_w + exponent - f_shift
        if t < 0:
            t = 0
        elif t > 31:
            t = 31
        w_shift = t
        u = u - 15
        if u < 0:
            u = 0
        x2_shift = u
        t = exponent_k + exponent - u
        most = 32767
        if t < 0:
            # Q15 would overflow: any product is all
            t = 0
            most = 0
        elif t > 31:
            t = 31
        k_shift = t
        if kalman:
            t = (0 - ((gain * ei) >> 14)) << 16
            e[0] = t | (((gain * er) >> 14) & 0xFFFF)
        else:
            e[0] = 0
        total = 0
        prior = ptr32(refill)
        i = n_parts
        while i:
            pn = p[0] >> down
            t = (x[0] << 16) >> 16
            u = x[0] >> 16
            x = ptr32(int(x) + 4)
            a = (pn * ur) >> f_shift
            b = (pn * ui) >> f_shift
            wr = w[0]
            wi = w[1]
            gr = ((t * a + u * b) >> w_shift) + wr
            gi = ((t * b - u * a) >> w_shift) + wi
            t = t * t + u * u
            if ((gr + limit) | (gi + limit)) >> 30:
                if gr >= limit:
                    gr = limit - 1
                elif gr < 0 - limit:
                    gr = 0 - limit
                if gi >= limit:
                    gi = limit - 1
                elif gi < 0 - limit:
                    gi = 0 - limit
            w[0] = gr
            w[1] = gi
            w = ptr32(int(w) + 8)
            u = p[0]
            if kalman:
                t = ((pn * r) >> 14) * (t >> x2_shift) >> k_shift
                if t > most:
                    t = 32767
                a = (u >> 15) * t
                t = ((u & 32767) * t) >> 15
                t = (t + a) >> caution
                a = u - (u >> fade) - t
                t = wr >> 14
                u = wi >> 14
                u = ((((u * u) >> 1) + ((t * t) >> 1)) >> noise) + a + prior[0]
                prior = ptr32(int(prior) + 4)
                if u > p_most:
                    u = p_most
                elif u < 1:
                    u = 1
                p[0] = u
            p = ptr32(int(p) + 4)
            total = u + total
            i -= 1
        if kalman:
            t = down
            u = total >> t
            while u >= 16384:
                u = u >> 1
                t += 1
            while t:
                if total >> (t - 1) >= 16384:
                    break
                t -= 1
            p_shift[0] = t
        e = ptr32(int(e) + 4)
        s = ptr32(int(s) + 4)
        psi = ptr32(int(psi) + 4)
        p_shift = ptr8(int(p_shift) + 1)
        x2_bits = ptr8(int(x2_bits) + 1)
        n_bins -= 1


@micropython.viper
def doubt(p: ptr32, p_shift: ptr8, n_bins: int, n_parts: int, least: ptr32):
    while n_bins:
        total = 0
        i = 0
        while i < n_parts:
            t = p[0]
            if t < least[i]:
                t = least[i]
                p[0] = t
            p = ptr32(int(p) + 4)
            total = total + t
            i += 1
        t = 0
        while total >= 16384:
            total = total >> 1
            t += 1
        p_shift[0] = t
        p_shift = ptr8(int(p_shift) + 1)
        n_bins -= 1


@micropython.viper
def largest(w: ptr32, part: int, n_bins: int, n_parts: int) -> int:
    w = ptr32(int(w) + (part << 3))
    seen = 0
    while n_bins:
        t = w[0]
        u = w[1]
        seen = seen | (t ^ (t >> 31)) | (u ^ (u >> 31))
        w = ptr32(int(w) + (n_parts << 3))
        n_bins -= 1
    bits = 0
    while seen:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def rescale(w: ptr32, n_words: int, shift: int):
    limit = 536870912
    while n_words:
        if shift > 0:
            t = w[0] >> 1
        else:
            t = w[0] << 1
            if t >= limit:
                t = limit - 1
            elif t < 0 - limit:
                t = 0 - limit
        w[0] = t
        w = ptr32(int(w) + 4)
        n_words -= 1


@micropython.viper
def forget(w: ptr32, n_words: int):
    while n_words:
        w[0] = 0
        w = ptr32(int(w) + 4)
        n_words -= 1


@micropython.viper
def constrain(w: ptr32, tail: ptr32, part: int, n_bins: int, n_parts: int, shift: int):
    w = ptr32(int(w) + (part << 3))
    tail = ptr32(int(tail) + ((n_bins - 1) << 2))
    step = n_parts << 3
    up = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    limit = 536870912
    while n_bins:
        u = tail[0]
        tail = ptr32(int(tail) - 4)
        t = w[0] - ((((u << 16) >> 16) << up) >> shift)
        if t >= limit:
            t = limit - 1
        elif t < 0 - limit:
            t = 0 - limit
        w[0] = t
        t = w[1] + (((u >> 16) << up) >> shift)
        if t >= limit:
            t = limit - 1
        elif t < 0 - limit:
            t = 0 - limit
        w[1] = t
        w = ptr32(int(w) + step)
        n_bins -= 1


@micropython.viper
def chips(out: ptr16, first: int, n: int, state: int, level: int) -> int:
    out = ptr16(int(out) + 2 * first)
    while n:
        out[0] = (0 - level) if state & 0x400 else level
        out = ptr16(int(out) + 2)
        state = ((state << 1) & 0x7FF) | (((state >> 10) ^ (state >> 8)) & 1)
        n -= 1
    return state


@micropython.viper
def fold(x: ptr16, first: int, n: int, cells: ptr32, turned: ptr32, turn: int, state: int, shift: int) -> int:
    x = ptr16(int(x) + 2 * first)
    while n:
        value = ((x[0] << 16) >> 16) >> shift
        x = ptr16(int(x) + 2)
        cells[state] = cells[state] + value
        turned[state] = turned[state] + turn * value
        state = ((state << 1) & 0x7FF) | (((state >> 10) ^ (state >> 8)) & 1)
        n -= 1
    return state


@micropython.viper
def hadamard(z: ptr32, n: int):
    half = 1
    while half < n:
        start = 0
        while start < n:
            i = start
            stop = start + half
            while i < stop:
                a = z[i]
                b = z[i + half]
                z[i] = a + b
                z[i + half] = a - b
                i += 1
            start += 2 * half
        half = 2 * half
