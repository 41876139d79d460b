"""The arithmetic of the canceller, one function a step: this file defines every bit.

Plain integers on CPython and MicroPython alike. `unplay_device.kernels` holds the same functions as machine
code and `unplay.removal.canceller_kernels` in numpy; both must give these results, bit for bit. Every
intermediate fits 32 bits with a sign, which `unplay_shared.checked` verifies while these functions run.

A *word* is 32 bits; a *complex word* holds a real part in its low 16 bits and an imaginary part in its high
16, both with a sign. Shifts to the right round down unless a half is added. `bits` of a set of values is
the least b for which all lie in −2^b … 2^b − 1. n is the block N, K = N + 1 the number of bins, M the number
of partitions; arrays over bins and partitions keep the partitions of a bin side by side.
"""

from array import array

W_MAX = 536870911  # 2^29 − 1: weights are Q25, so that |W| < 16
STATE_MAX = 33554431  # 2^25 − 1, of the de-emphasis


def words(n):
    """n words, zero."""
    return array("i", bytes(4 * n))


def samples(n):
    """n samples of 16 bits, zero."""
    return array("h", bytes(2 * n))


def octets(n):
    """n unsigned bytes, zero."""
    return bytearray(n)


def real(word):
    return ((word & 0xFFFF) ^ 0x8000) - 0x8000


def imag(word):
    return word >> 16


def pack(re, im):
    """Both must fit 16 bits; shifted up and down again so that the check of 32 bits sees it if not."""
    return (im << 16) | ((re << 16) >> 16 & 0xFFFF)


def size(value):
    """The bits of one value, as non-negative number: of v and of −v − 1 alike."""
    return value ^ (value >> 31)


def bit_count(value):
    """Bits of a non-negative value: 0 for 0, else floor(log2) + 1."""
    n = 0
    while value:
        value >>= 1
        n += 1
    return n


def shifted(value, shift):
    """value / 2^shift, rounded down."""
    return value >> shift if shift >= 0 else value << -shift


def clipped(value, limit):
    """Saturated to −limit − 1 … limit."""
    return limit if value > limit else -limit - 1 if value < -limit else value


# The FFT: decimation in time, radix 4 behind a first stage of radix 4 or 2, scaled by the block.


def first4(src, n, shift, low, dst, order):
    """First stage of radix 4, from `src` in natural order to `dst` in the digit-reversed order of `order`.

    dst: n complex words. low: −1, or 0 to take the first half of `src` as zero. Returns the bits of dst.
    """
    quarter = n >> 2
    half = (1 << shift) >> 1
    seen = 0
    for i in range(quarter):
        r = order[i]
        w = src[r] & low
        ar, ai = real(w) + half, imag(w) + half
        w = src[r + quarter] & low
        br, bi = real(w), imag(w)
        w = src[r + 2 * quarter]
        cr, ci = real(w), imag(w)
        w = src[r + 3 * quarter]
        dr, di = real(w), imag(w)
        seen |= _butterfly(dst, 4 * i, 1, shift, ar, ai, br, bi, cr, ci, dr, di)
    return bit_count(seen)


def first2(src, n, shift, low, dst, order):
    """As `first4` with radix 2, where n is twice a power of four."""
    pairs = n >> 1
    half = (1 << shift) >> 1
    seen = 0
    for i in range(pairs):
        r = order[i]
        w = src[r] & low
        ar, ai = real(w) + half, imag(w) + half
        w = src[r + pairs]
        br, bi = real(w), imag(w)
        seen |= _put(dst, 2 * i, (ar + br) >> shift, (ai + bi) >> shift)
        seen |= _put(dst, 2 * i + 1, (ar - br) >> shift, (ai - bi) >> shift)
    return bit_count(seen)


def stage(z, n, shift, length, twiddles):
    """Combine transforms of `length` points in z, in place, by fours. Returns the bits of z.

    twiddles: exp(iπk/n), Q14, k = 0 … n. Half a unit is added to the first operand only: all four results
    contain it with a plus sign.
    """
    half = (1 << shift) >> 1
    step = (n >> 1) // length
    seen = 0
    for j in range(length):
        c1, s1 = _twiddle(twiddles, n, j * step)
        c2, s2 = _twiddle(twiddles, n, 2 * j * step)
        c3, s3 = _twiddle(twiddles, n, 3 * j * step)
        for k in range(j, n, 4 * length):
            w = z[k]
            ar, ai = real(w) + half, imag(w) + half
            br, bi = _turned(z[k + length], c1, s1)
            cr, ci = _turned(z[k + 2 * length], c2, s2)
            dr, di = _turned(z[k + 3 * length], c3, s3)
            seen |= _butterfly(z, k, length, shift, ar, ai, br, bi, cr, ci, dr, di)
    return bit_count(seen)


def split(src, n, shift, dst, twiddles, wrap):
    """Between n complex values of a half-length transform and the n + 1 bins of a real signal.

    With E = Z(k) + Z*(n−k), D = Z(k) − Z*(n−k): dst(k) = E − i·exp(−iπk/n)·D, which is twice the bin. The
    same formula on conjugate bins gives twice the conjugate of what a forward FFT turns into the conjugate
    samples, so that one kernel serves both directions. wrap: 1 where src(n) is to be src(0).
    """
    if wrap:
        src[n] = src[0]
    half = (1 << shift) >> 1
    seen = 0
    for k in range((n >> 1) + 1):
        w, v = src[k], src[n - k]
        er, ei = real(w) + real(v), imag(w) - imag(v)
        dr, di = real(w) - real(v), imag(w) + imag(v)
        c, s = real(twiddles[k]), imag(twiddles[k])
        tr = (c * di - s * dr + 8192) >> 14
        ti = -((c * dr + s * di + 8192) >> 14)
        seen |= _put(dst, n - k, (er - tr + half) >> shift, (ti - ei + half) >> shift)
        seen |= _put(dst, k, (er + tr + half) >> shift, (ei + ti + half) >> shift)
    return bit_count(seen)


def _twiddle(twiddles, n, k):
    if k > n:  # exp(iπk/n) = −exp(iπ(k−n)/n)
        w = twiddles[k - n]
        return -real(w), -imag(w)
    return real(twiddles[k]), imag(twiddles[k])


def _turned(w, c, s):
    t, u = real(w), imag(w)
    return (t * c + u * s + 8192) >> 14, (u * c - t * s + 8192) >> 14


def _butterfly(z, k, step, shift, ar, ai, br, bi, cr, ci, dr, di):
    er, ei, fr, fi = ar + cr, ai + ci, ar - cr, ai - ci
    gr, gi, hr, hi = br + dr, bi + di, br - dr, bi - di
    return (
        _put(z, k, (er + gr) >> shift, (ei + gi) >> shift)
        | _put(z, k + step, (fr + hi) >> shift, (fi - hr) >> shift)
        | _put(z, k + 2 * step, (er - gr) >> shift, (ei - gi) >> shift)
        | _put(z, k + 3 * step, (fr - hi) >> shift, (fi + hr) >> shift)
    )


def _put(z, k, re, im):
    z[k] = pack(re, im)
    return size(re) | size(im)


# Samples


def move(src, n_words, shift, dst, at):
    """Complex words of src(at) … into dst, shifted."""
    for k in range(n_words):
        w = src[at + k]
        dst[k] = pack(shifted(real(w), shift), shifted(imag(w), shift))


def peak(x, n, before):
    """Bits of 32·x(i) − 29·x(i−1), with x(−1) = before: how far `emphasise` must shift."""
    seen = 0
    for i in range(n):
        seen |= size(32 * x[i] - 29 * before)
        before = x[i]
    return bit_count(seen)


def emphasise(x, n, before, dst, at, shift):
    """Pre-emphasis 1 − (29/32)·z⁻¹ of n samples into the words dst(at) …, two samples a word.

    A flat spectrum learns faster and leaks less between bins. Returns the sum of magnitudes.
    """
    total = 0
    for i in range(0, n, 2):
        even = shifted(32 * x[i] - 29 * before, shift)
        odd = shifted(32 * x[i + 1] - 29 * x[i], shift)
        before = x[i + 1]
        dst[at + (i >> 1)] = pack(even, odd)
        total += size(even) + size(odd)
    return total


def restore(z, n, shift, source, out, at, states, which):
    """De-emphasis of the conjugate samples in z(at) … and out = source − echo, saturated.

    The echo runs through y(i) = y'(i) + (29/32)·y(i−1) in Q4; states(which) is kept between blocks. shift
    takes y' to Q4.
    """
    y = states[which]
    half = (1 << shift) >> 1 if shift > 0 else 0
    for i in range(n):
        w = z[at + (i >> 1)]
        v = -imag(w) if i & 1 else real(w)
        y = clipped(shifted(v + half, shift) + ((29 * y) >> 5), STATE_MAX)
        e = source[i] - ((y + 8) >> 4)
        out[i] = 32767 if e > 32767 else -32768 if e < -32768 else e
    states[which] = y


def loudness(d, n, e, sums):
    """Sums of magnitudes, of every fourth sample, of d, of e and of their difference."""
    d_sum = e_sum = y_sum = 0
    for i in range(0, n, 4):
        d_sum += size(d[i])
        e_sum += size(e[i])
        y_sum += size(d[i] - e[i])
    sums[0] = d_sum
    sums[1] = e_sum
    sums[2] = y_sum


# Bins and partitions


def insert(x, n_bins, n_parts, new, new_shift, old_shift):
    """Take the newest spectrum in as partition 0, the others one on; bring all to one exponent."""
    for k in range(n_bins):
        base = k * n_parts
        for p in range(n_parts - 1, 0, -1):
            w = x[base + p - 1]
            if old_shift:
                w = pack(shifted(real(w), old_shift), shifted(imag(w), old_shift))
            x[base + p] = w
        w = new[k]
        x[base] = pack(shifted(real(w), new_shift), shifted(imag(w), new_shift))


def estimate(w, n_bins, n_parts, x, p, p_shift, x2_shift, yr, yi, s, x2_bits):
    """The echo's spectrum Y = Σ X·W and the power S = Σ P·|X|² that its error may have.

    yr, yi: real and imaginary part, words, Q11. S in units of 2^(p_shift + x2_shift) of P·|X|². x2_bits:
    bits of |X|² over the partitions of a bin. Returns the bits of Y.
    """
    seen = 0
    for k in range(n_bins):
        re = im = power = loudest = 0
        for i in range(k * n_parts, (k + 1) * n_parts):
            xr, xi = real(x[i]), imag(x[i])
            wr, wi = w[2 * i] >> 14, w[2 * i + 1] >> 14
            re += xr * wr - xi * wi
            im += xr * wi + xi * wr
            x2 = xr * xr + xi * xi
            loudest |= x2
            if x2 < 32768:
                power += ((p[i] >> p_shift[k]) * x2) >> x2_shift
            else:
                power += (p[i] >> p_shift[k]) * (x2 >> x2_shift)
        yr[k] = re
        yi[k] = im
        s[k] = power
        x2_bits[k] = bit_count(loudest)
        seen |= size(re) | size(im)
    return bit_count(seen)


def gather(re, n_bins, shift, im, dst, im_first, first, step):
    """Conjugate complex words of two arrays of words, shifted: dst(k) = re(j) − i·im(j + im_first),

    where j = first + step·k.
    """
    half = (1 << shift) >> 1 if shift > 0 else 0
    seen = 0
    for k in range(n_bins):
        i = first + step * k
        seen |= _put(dst, k, shifted(re[i] + half, shift), -shifted(im[im_first + i] + half, shift))
    return bit_count(seen)


def listen(e, n_bins, new_shift, psi, old_shift, smoothing):
    """Power of the near end: psi follows 5/4 of the mean of |E|² over five bins.

    Both are shifted to one exponent first. smoothing: weight of the new block, 2^−smoothing. Returns the
    bits of psi.
    """
    seen = 0
    two, one, here, after = (_power(e[k], new_shift) for k in (0, 0, 0, 1))
    total = two + one + here + after
    for k in range(n_bins):
        after2 = _power(e[k + 2 if k + 2 < n_bins else n_bins - 1], new_shift)
        total += after2
        old = shifted(psi[k], old_shift)
        value = old + ((total - old) >> smoothing)
        psi[k] = value
        seen |= value
        total -= two
        two, one, here, after = one, here, after, after2
    return bit_count(seen)


def _power(w, shift):
    re, im = real(w), imag(w)
    return shifted((re * re + im * im) >> 2, shift)


def learn(w, n_bins, n_parts, x, p, e, s, psi, p_shift, x2_bits, prior, reciprocals, settings):
    """Kalman gain of every bin and partition; weights and uncertainty follow; E becomes G·E, conjugate.

    For each bin D = S + ψ, K = P/D, W += μ·K·X*·E, P −= 2^−c·K·|X|²·P + 2^−f·(P − |W|² − prior). G = S/D
    is what of the error the new weights would have taken along: an error learnt from is no near end.

    settings: see `Canceller`; where settings[6] is 0, P stands still and G is 0 (plain NLMS).
    """
    for k in range(n_bins):
        er, ei = real(e[k]), imag(e[k])
        apart = settings[0] - p_shift[k]  # exponent of ψ less that of S
        power = s[k]
        d_exponent = settings[1]
        if apart >= 0:
            power >>= min(apart, 31)
            d = psi[k] + power + 1
        else:
            d = (psi[k] >> min(-apart, 31)) + power + 1
            d_exponent -= apart
        # 1/D = r·2^(−23 − t), D = 2^t·(256 … 511)
        t = bit_count(d) - 9
        r = reciprocals[shifted(d, t) - 256]
        gain = (shifted(power, t) * r) >> 9  # Q14
        e_shift = 14 - bit_count(size(er) | size(ei))
        r_step = (r * settings[5]) >> 15
        ur, ui = ((er << e_shift) * r_step) >> 15, ((ei << e_shift) * r_step) >> 15
        loud = x2_bits[k]
        f_shift = max(((loud + 1) >> 1) - 1, 0)
        t += d_exponent
        w_shift = settings[2] + t + e_shift - f_shift - p_shift[k]
        w_shift = min(max(w_shift, 0), 31)
        x2_shift = max(loud - 15, 0)
        k_shift = settings[3] + t - x2_shift - p_shift[k]
        total = 0
        for i in range(k * n_parts, (k + 1) * n_parts):
            xr, xi = real(x[i]), imag(x[i])
            uncertainty = p[i]
            pn = uncertainty >> p_shift[k]
            fr, fi = (pn * ur) >> f_shift, (pn * ui) >> f_shift
            wr, wi = w[2 * i], w[2 * i + 1]
            w[2 * i] = clipped(wr + ((xr * fr + xi * fi) >> w_shift), W_MAX)
            w[2 * i + 1] = clipped(wi + ((xr * fi - xi * fr) >> w_shift), W_MAX)
            if settings[6]:
                x2 = (xr * xr + xi * xi) >> x2_shift
                share = _share(((pn * r) >> 14) * x2, k_shift)
                wr, wi = wr >> 14, wi >> 14
                w2 = ((wr * wr) >> 1) + ((wi * wi) >> 1)
                fade = (uncertainty >> 15) * share + (((uncertainty & 32767) * share) >> 15)
                uncertainty = (
                    uncertainty
                    - (fade >> settings[7])
                    - (uncertainty >> settings[8])
                    + (w2 >> settings[9])
                    + prior[i - k * n_parts]
                )
                uncertainty = min(max(uncertainty, 1), settings[4])
                p[i] = uncertainty
            total += uncertainty
        if settings[6]:
            p_shift[k] = max(bit_count(total) - 14, 0)
        else:
            gain = 0
        e[k] = pack((gain * er) >> 14, -((gain * ei) >> 14))


def _share(product, shift):
    """K·|X|², Q15, at most 32767/32768."""
    if shift < 0:
        return 32767 if product else 0
    return min(product >> min(shift, 31), 32767)


def doubt(p, p_shift, n_bins, n_parts, least):
    """Raise the uncertainty of every bin to least(partition)."""
    for k in range(n_bins):
        total = 0
        for q in range(n_parts):
            i = k * n_parts + q
            if p[i] < least[q]:
                p[i] = least[q]
            total += p[i]
        p_shift[k] = max(bit_count(total) - 14, 0)


def largest(w, part, n_bins, n_parts):
    """Bits of the weights of one partition."""
    seen = 0
    for k in range(n_bins):
        i = 2 * (k * n_parts + part)
        seen |= size(w[i]) | size(w[i + 1])
    return bit_count(seen)


def rescale(w, n_words, shift):
    """Halve (shift 1) or double (shift −1) the weights."""
    for i in range(n_words):
        w[i] = clipped(shifted(w[i], shift), W_MAX)


def forget(w, n_words):
    for i in range(n_words):
        w[i] = 0


def constrain(w, tail, part, n_bins, n_parts, shift):
    """Take the spectrum `tail` of what lies beyond the partition out of its weights.

    `tail` comes of samples whose odd ones have the wrong sign: it is conjugate and runs backwards.
    """
    for k in range(n_bins):
        t = tail[n_bins - 1 - k]
        i = 2 * (k * n_parts + part)
        w[i] = clipped(w[i] - shifted(real(t), shift), W_MAX)
        w[i + 1] = clipped(w[i + 1] + shifted(imag(t), shift), W_MAX)


# The marker


def next_state(state):
    """x^11 + x^9 + 1, of full length 2^11 − 1."""
    return ((state << 1) & 0x7FF) | ((state >> 10) ^ (state >> 8)) & 1


def chips(out, first, n, state, level):
    """Write n samples ±level of the sequence from out[first] on. Returns the state after them."""
    for i in range(first, first + n):
        out[i] = -level if state & 0x400 else level
        state = next_state(state)
    return state


def fold(x, first, n, cells, turned, turn, state, shift):
    """Add n samples from x[first] on to the cells that the states number; times `turn` to the others."""
    for i in range(first, first + n):
        value = x[i] >> shift
        cells[state] += value
        turned[state] += turn * value
        state = next_state(state)
    return state


def hadamard(z, n):
    """Walsh–Hadamard transform of n words, a power of two, in place."""
    half = 1
    while half < n:
        for start in range(0, n, 2 * half):
            for i in range(start, start + half):
                a, b = z[i], z[i + half]
                z[i], z[i + half] = a + b, a - b
        half *= 2
