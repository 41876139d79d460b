"""The canceller's kernels as machine code (viper): the same bits as `unplay_shared.kernels`, described there.

Viper keeps the first three locals in registers, multiplies and shifts 32-bit words without check, and loads
halves and bytes without sign. `e[0] = …` through a pointer that is moved on is its fastest access. Shift
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
def first4(src: ptr32, dst: ptr32, order: ptr16, low: int, n: int, shift: int) -> int:
    quarter = n >> 2
    half = (1 << shift) >> 1
    seen = 0
    base = int(src)
    while quarter:
        src = ptr32(base + (order[0] << 2))
        order = ptr16(int(order) + 2)
        w = src[0] & low
        src = ptr32(int(src) + n)
        ar = ((w << 16) >> 16) + half
        ai = (w >> 16) + half
        w = src[0] & low
        src = ptr32(int(src) + n)
        br = (w << 16) >> 16
        bi = w >> 16
        w = src[0]
        src = ptr32(int(src) + n)
        t = (w << 16) >> 16
        u = w >> 16
        cr = ar - t
        ci = ai - u
        ar = ar + t
        ai = ai + u
        w = src[0]
        t = (w << 16) >> 16
        u = w >> 16
        dr = br - t
        di = bi - u
        br = br + t
        bi = bi + u
        w = (((ai + bi) >> shift) << 16) | (((ar + br) >> shift) & 0xFFFF)
        dst[0] = w
        seen = seen | (w ^ (w << 1))
        w = (((ci - dr) >> shift) << 16) | (((cr + di) >> shift) & 0xFFFF)
        dst[1] = w
        seen = seen | (w ^ (w << 1))
        w = (((ai - bi) >> shift) << 16) | (((ar - br) >> shift) & 0xFFFF)
        dst[2] = w
        seen = seen | (w ^ (w << 1))
        w = (((ci + dr) >> shift) << 16) | (((cr - di) >> shift) & 0xFFFF)
        dst[3] = w
        seen = seen | (w ^ (w << 1))
        dst = ptr32(int(dst) + 16)
        quarter -= 1
    seen = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while seen > 1:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def first2(src: ptr32, dst: ptr32, order: ptr16, low: int, n: int, shift: int) -> int:
    pairs = n >> 1
    half = (1 << shift) >> 1
    seen = 0
    base = int(src)
    while pairs:
        src = ptr32(base + (order[0] << 2))
        order = ptr16(int(order) + 2)
        w = src[0] & low
        src = ptr32(int(src) + (n << 1))
        ar = ((w << 16) >> 16) + half
        ai = (w >> 16) + half
        w = src[0]
        br = (w << 16) >> 16
        bi = w >> 16
        w = (((ai + bi) >> shift) << 16) | (((ar + br) >> shift) & 0xFFFF)
        dst[0] = w
        seen = seen | (w ^ (w << 1))
        w = (((ai - bi) >> shift) << 16) | (((ar - br) >> shift) & 0xFFFF)
        dst[1] = w
        seen = seen | (w ^ (w << 1))
        dst = ptr32(int(dst) + 8)
        pairs -= 1
    seen = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while seen > 1:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def stage(z: ptr32, twiddles: ptr32, n: int, length: int, shift: int) -> int:
    base = int(z)
    table = int(twiddles)
    half = (1 << shift) >> 1
    apart = length << 2
    stride = (length << 4) - 3 * apart
    turn = n << 1  # bytes between twiddles, n / (2·length) words
    groups_all = n >> 2
    k = length
    while k > 1:
        k = k >> 1
        turn = turn >> 1
        groups_all = groups_all >> 1
    seen = 0
    j = 0
    while j < length:
        k = j * turn
        twiddles = ptr32(table + k)
        w = twiddles[0]
        c1 = (w << 16) >> 16
        s1 = w >> 16
        twiddles = ptr32(table + (k << 1))
        w = twiddles[0]
        c2 = (w << 16) >> 16
        s2 = w >> 16
        k = 3 * k
        if k > (n << 2):
            twiddles = ptr32(table + k - (n << 2))
            w = twiddles[0]
            c3 = 0 - ((w << 16) >> 16)
            s3 = 0 - (w >> 16)
        else:
            twiddles = ptr32(table + k)
            w = twiddles[0]
            c3 = (w << 16) >> 16
            s3 = w >> 16
        z = ptr32(base + (j << 2))
        groups = groups_all
        while groups:
            w = z[0]
            twiddles = ptr32(int(z) + apart)
            ar = ((w << 16) >> 16) + half
            ai = (w >> 16) + half
            w = twiddles[0]
            twiddles = ptr32(int(twiddles) + apart)
            t = (w << 16) >> 16
            u = w >> 16
            br = (t * c1 + u * s1 + 8192) >> 14
            bi = (u * c1 - t * s1 + 8192) >> 14
            w = twiddles[0]
            twiddles = ptr32(int(twiddles) + apart)
            t = (w << 16) >> 16
            u = w >> 16
            cr = (t * c2 + u * s2 + 8192) >> 14
            ci = (u * c2 - t * s2 + 8192) >> 14
            w = twiddles[0]
            t = (w << 16) >> 16
            u = w >> 16
            dr = (t * c3 + u * s3 + 8192) >> 14
            di = (u * c3 - t * s3 + 8192) >> 14
            t = br + dr
            u = bi + di
            dr = br - dr
            di = bi - di
            br = ar + cr
            bi = ai + ci
            ar = ar - cr
            ai = ai - ci
            w = (((bi + u) >> shift) << 16) | (((br + t) >> shift) & 0xFFFF)
            z[0] = w
            z = ptr32(int(z) + apart)
            seen = seen | (w ^ (w << 1))
            w = (((ai - dr) >> shift) << 16) | (((ar + di) >> shift) & 0xFFFF)
            z[0] = w
            z = ptr32(int(z) + apart)
            seen = seen | (w ^ (w << 1))
            w = (((bi - u) >> shift) << 16) | (((br - t) >> shift) & 0xFFFF)
            z[0] = w
            z = ptr32(int(z) + apart)
            seen = seen | (w ^ (w << 1))
            w = (((ai + dr) >> shift) << 16) | (((ar - di) >> shift) & 0xFFFF)
            z[0] = w
            z = ptr32(int(z) + stride)
            seen = seen | (w ^ (w << 1))
            groups -= 1
        j += 1
    seen = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while seen > 1:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def split(src: ptr32, dst: ptr32, twiddles: ptr32, n: int, shift: int, wrap: int) -> int:
    far = ptr32(int(src) + (n << 2))
    if wrap:
        far[0] = src[0]
    there = ptr32(int(dst) + (n << 2))
    half = (1 << shift) >> 1
    seen = 0
    n = (n >> 1) + 1
    while n:
        w = src[0]
        src = ptr32(int(src) + 4)
        er = (w << 16) >> 16
        ei = w >> 16
        w = far[0]
        far = ptr32(int(far) - 4)
        t = (w << 16) >> 16
        u = w >> 16
        dr = er - t
        di = ei + u
        er = er + t + half
        ei = ei - u
        w = twiddles[0]
        twiddles = ptr32(int(twiddles) + 4)
        t = (w << 16) >> 16
        u = w >> 16
        w = (t * di - u * dr + 8192) >> 14
        di = 0 - ((t * dr + u * di + 8192) >> 14)
        dr = w
        w = (((di - ei + half) >> shift) << 16) | (((er - dr) >> shift) & 0xFFFF)
        there[0] = w
        there = ptr32(int(there) - 4)
        seen = seen | (w ^ (w << 1))
        w = (((ei + di + half) >> shift) << 16) | (((er + dr) >> shift) & 0xFFFF)
        dst[0] = w
        dst = ptr32(int(dst) + 4)
        seen = seen | (w ^ (w << 1))
        n -= 1
    seen = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while seen > 1:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def copy(src: ptr16, dst: ptr16, n: int):
    while n:
        dst[0] = src[0]
        src = ptr16(int(src) + 2)
        dst = ptr16(int(dst) + 2)
        n -= 1


@micropython.viper
def peak(x: ptr16, before: int, n: int) -> int:
    seen = 0
    while n:
        t = x[0]
        t = (t ^ 0x8000) - 0x8000
        x = ptr16(int(x) + 2)
        u = 32 * t - 29 * before
        before = t
        seen = seen | (u ^ (u >> 31))
        n -= 1
    bits = 0
    while seen:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def emphasise(x: ptr16, before: int, dst: ptr16, at: int, n: int, shift: int) -> int:
    dst = ptr16(int(dst) + (at << 2))
    total = 0
    up = 0
    if shift < 0:
        up = 0 - shift
        shift = 0
    while n:
        t = x[0]
        t = (t ^ 0x8000) - 0x8000
        x = ptr16(int(x) + 2)
        u = ((32 * t - 29 * before) << up) >> shift
        before = t
        dst[0] = u
        dst = ptr16(int(dst) + 2)
        total = total + (u ^ (u >> 31))
        n -= 1
    return total


@micropython.viper
def restore(
    z: ptr16, source: ptr16, out: ptr16, at: int, n: int, shift: int, states: ptr32, which: int, sums: ptr32
):
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
    source_sum = 0
    out_sum = 0
    echo_sum = 0
    odd = 0
    while n:
        t = z[0]
        t = (t ^ 0x8000) - 0x8000
        z = ptr16(int(z) + 2)
        if odd:
            t = 0 - t
            odd = 0
        else:
            odd = 1
        y = (((t + half) << up) >> shift) + ((29 * y) >> 5)
        if y > limit:
            y = limit
        elif y < 0 - limit:
            y = 0 - limit
        u = (y + 8) >> 4
        t = source[0]
        t = (t ^ 0x8000) - 0x8000
        source = ptr16(int(source) + 2)
        source_sum = source_sum + (t ^ (t >> 31))
        t = t - u
        if t > 32767:
            t = 32767
        elif t < -32768:
            t = -32768
        out[0] = t
        out = ptr16(int(out) + 2)
        out_sum = out_sum + (t ^ (t >> 31))
        u = u ^ (u >> 31)
        if u > 32767:
            u = 32767
        echo_sum = echo_sum + u
        n -= 1
    states[which] = y
    sums[0] = source_sum
    sums[1] = out_sum
    sums[2] = echo_sum


@micropython.viper
def insert(new: ptr32, x: ptr32, n_bins: int, n_parts: int, new_shift: int, old_shift: int):
    up = 0
    if new_shift < 0:
        up = 0 - new_shift
        new_shift = 0
    old_up = 0
    if old_shift < 0:
        old_up = 0 - old_shift
        old_shift = 0
    moved = old_up | old_shift
    to_last = (n_parts - 1) << 2
    to_next = n_parts << 2
    while n_bins:
        x = ptr32(int(x) + to_last)
        p = n_parts - 1
        while p:
            x = ptr32(int(x) - 4)
            w = x[0]
            if moved:
                t = (((w << 16) >> 16) << old_up) >> old_shift
                w = ((((w >> 16) << old_up) >> old_shift) << 16) | (t & 0xFFFF)
            x[1] = w
            p -= 1
        w = new[0]
        new = ptr32(int(new) + 4)
        t = (((w << 16) >> 16) << up) >> new_shift
        x[0] = ((((w >> 16) << up) >> new_shift) << 16) | (t & 0xFFFF)
        x = ptr32(int(x) + to_next)
        n_bins -= 1


@micropython.viper
def estimate(
    x: ptr32,
    w: ptr32,
    p: ptr32,
    p_shift: ptr8,
    n_bins: int,
    n_parts: int,
    x2_shift: int,
    yr: ptr32,
    yi: ptr32,
    s: ptr32,
    x2_bits: ptr8,
) -> int:
    seen = 0
    while n_bins:
        re = 0
        im = 0
        power = 0
        loudest = 0
        down = p_shift[0]
        i = n_parts
        while i:
            u = x[0]
            x = ptr32(int(x) + 4)
            t = (u << 16) >> 16
            u = u >> 16
            a = w[0] >> 14
            b = w[1] >> 14
            w = ptr32(int(w) + 8)
            re = re + t * a - u * b
            im = im + t * b + u * a
            t = t * t + u * u
            loudest = loudest | t
            u = p[0] >> down
            p = ptr32(int(p) + 4)
            if t < 32768:
                power = power + ((u * t) >> x2_shift)
            else:
                power = power + u * (t >> x2_shift)
            i -= 1
        yr[0] = re
        yi[0] = im
        s[0] = power
        seen = seen | (re ^ (re >> 31)) | (im ^ (im >> 31))
        i = 0
        if loudest >= 65536:
            loudest = loudest >> 16
            i = 16
        if loudest >= 256:
            loudest = loudest >> 8
            i += 8
        if loudest >= 16:
            loudest = loudest >> 4
            i += 4
        while loudest:
            loudest = loudest >> 1
            i += 1
        x2_bits[0] = i
        yr = ptr32(int(yr) + 4)
        yi = ptr32(int(yi) + 4)
        s = ptr32(int(s) + 4)
        p_shift = ptr8(int(p_shift) + 1)
        x2_bits = ptr8(int(x2_bits) + 1)
        n_bins -= 1
    bits = 0
    while seen:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def gather(
    re: ptr32, im: ptr32, dst: ptr32, im_first: int, first: int, step: int, n_bins: int, shift: int
) -> int:
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
        t = ((re[0] + half) << up) >> shift
        u = 0 - (((im[0] + half) << up) >> shift)
        u = (u << 16) | (t & 0xFFFF)
        dst[0] = u
        seen = seen | (u ^ (u << 1))
        re = ptr32(int(re) + step)
        im = ptr32(int(im) + step)
        dst = ptr32(int(dst) + 4)
        n_bins -= 1
    seen = (seen | (seen >> 16)) & 0xFFFF
    bits = 0
    while seen > 1:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def listen(e: ptr32, psi: ptr32, n_bins: int, new_shift: int, old_shift: int, smoothing: int) -> int:
    up = 0
    if new_shift < 0:
        up = 0 - new_shift
        new_shift = 0
    old_up = 0
    if old_shift < 0:
        old_up = 0 - old_shift
        old_shift = 0
    w = e[0]
    t = (w << 16) >> 16
    w = w >> 16
    two = (((t * t + w * w) >> 2) << up) >> new_shift
    one = two
    here = two
    w = e[1]
    t = (w << 16) >> 16
    w = w >> 16
    after = (((t * t + w * w) >> 2) << up) >> new_shift
    after2 = 0
    total = 3 * two + after
    e = ptr32(int(e) + 8)
    seen = 0
    while n_bins:
        if n_bins > 2:
            w = e[0]
            e = ptr32(int(e) + 4)
            t = (w << 16) >> 16
            w = w >> 16
            after2 = (((t * t + w * w) >> 2) << up) >> new_shift
        total = total + after2
        t = (psi[0] << old_up) >> old_shift
        t = t + ((total - t) >> smoothing)
        psi[0] = t
        psi = ptr32(int(psi) + 4)
        seen = seen | t
        total = total - two
        two = one
        one = here
        here = after
        after = after2
        n_bins -= 1
    bits = 0
    while seen:
        seen = seen >> 1
        bits += 1
    return bits


@micropython.viper
def learn(
    x: ptr32,
    w: ptr32,
    p: ptr32,
    e: ptr32,
    s: ptr32,
    psi: ptr32,
    p_shift: ptr8,
    x2_bits: ptr8,
    n_bins: int,
    n_parts: int,
    prior: ptr32,
    reciprocals: ptr32,
    settings: ptr32,
):
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
    limit = 536870911
    refill = int(prior)
    while n_bins:
        t = e[0]
        er = (t << 16) >> 16
        ei = t >> 16
        down = p_shift[0]
        power = s[0]
        d = psi[0]
        exponent = exponent_psi
        t = exponent_apart - down
        if t >= 0:
            if t > 31:
                t = 31
            power = power >> t
        else:
            t = 0 - t
            exponent = exponent + t
            if t > 31:
                t = 31
            d = d >> t
        d = d + power + 1
        # 1/D = r·2^(−23 − t), D = 2^t·(256 … 511)
        t = 0
        u = d
        if u >= 131072:
            u = u >> 9
            t = 9
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
        e_shift = 14
        u = (er ^ (er >> 31)) | (ei ^ (ei >> 31))
        if u >= 256:
            u = u >> 8
            e_shift = 6
        while u:
            u = u >> 1
            e_shift -= 1
        u = (r * factor) >> 15
        ur = ((er << e_shift) * u) >> 15
        ui = ((ei << e_shift) * u) >> 15
        loud = x2_bits[0]
        f_shift = ((loud + 1) >> 1) - 1
        if f_shift < 0:
            f_shift = 0
        t = t + exponent - down
        w_shift = exponent_w + t + e_shift - f_shift
        if w_shift < 0:
            w_shift = 0
        elif w_shift > 31:
            w_shift = 31
        x2_shift = loud - 15
        if x2_shift < 0:
            x2_shift = 0
        k_shift = exponent_k + t - x2_shift
        most = 32767
        if k_shift < 0:
            # Q15 would overflow: any product is all
            k_shift = 0
            most = 0
        elif k_shift > 31:
            k_shift = 31
        if kalman:
            t = 0 - ((gain * ei) >> 14)
            e[0] = (t << 16) | (((gain * er) >> 14) & 0xFFFF)
        else:
            e[0] = 0
        total = 0
        prior = ptr32(refill)
        i = n_parts
        while i:
            u = x[0]
            x = ptr32(int(x) + 4)
            t = (u << 16) >> 16
            u = u >> 16
            d = p[0]
            power = d >> down
            a = (power * ur) >> f_shift
            b = (power * ui) >> f_shift
            er = w[0]
            ei = w[1]
            gain = er + ((t * a + u * b) >> w_shift)
            a = ei + ((t * b - u * a) >> w_shift)
            if gain > limit:
                gain = limit
            elif gain < 0 - limit:
                gain = 0 - limit
            if a > limit:
                a = limit
            elif a < 0 - limit:
                a = 0 - limit
            w[0] = gain
            w[1] = a
            w = ptr32(int(w) + 8)
            if kalman:
                t = (((power * r) >> 14) * ((t * t + u * u) >> x2_shift)) >> k_shift
                if t > most:
                    t = 32767
                er = er >> 14
                ei = ei >> 14
                u = (d >> 15) * t + (((d & 32767) * t) >> 15)
                d = (
                    d
                    - (u >> caution)
                    - (d >> fade)
                    + ((((er * er) >> 1) + ((ei * ei) >> 1)) >> noise)
                    + prior[0]
                )
                prior = ptr32(int(prior) + 4)
                if d > p_most:
                    d = p_most
                elif d < 1:
                    d = 1
                p[0] = d
            p = ptr32(int(p) + 4)
            total = total + d
            i -= 1
        if kalman:
            t = 0
            while total >= 16384:
                total = total >> 1
                t += 1
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
def halve(w: ptr32, n_words: int):
    while n_words:
        w[0] = w[0] >> 1
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
    limit = 536870911
    while n_bins:
        u = tail[0]
        tail = ptr32(int(tail) - 4)
        t = w[0] - ((((u << 16) >> 16) << up) >> shift)
        if t > limit:
            t = limit
        elif t < 0 - limit:
            t = 0 - limit
        w[0] = t
        t = w[1] + (((u >> 16) << up) >> shift)
        if t > limit:
            t = limit
        elif t < 0 - limit:
            t = 0 - limit
        w[1] = t
        w = ptr32(int(w) + step)
        n_bins -= 1
