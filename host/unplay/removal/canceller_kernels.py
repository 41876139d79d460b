"""The canceller's kernels in numpy: the same bits as `unplay_shared.kernels`, where each is described.

Arrays of words are int32; arithmetic runs in int64, which holds every intermediate that fits 32 bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unplay_shared.kernels import STATE_MAX, W_MAX, next_state

Integers = NDArray[np.integer]
Wide = NDArray[np.int64]
Complex = NDArray[np.complex128]


def words(n: int) -> Integers:
    return np.zeros(n, np.int32)


def samples(n: int) -> Integers:
    return np.zeros(n, np.int16)


def octets(n: int) -> Integers:
    return np.zeros(n, np.uint8)


def bit_count(value: int) -> int:
    return int(value).bit_length()


def _parts(x: Integers) -> tuple[Wide, Wide]:
    halves = np.ascontiguousarray(x).view(np.int16).reshape(*x.shape, 2)
    return halves[..., 0].astype(np.int64), halves[..., 1].astype(np.int64)


def _packed(re: Wide, im: Wide) -> Integers:
    return np.stack([re, im], -1).astype(np.int16).view(np.int32)[..., 0]


def _bits(*values: NDArray) -> int:
    """The least b for which all values lie in −2^b … 2^b − 1."""
    most = max(int(v.max(initial=0)) for v in values)
    least = min(int(v.min(initial=0)) for v in values)
    return int(max(most, -least - 1)).bit_length()


def _bit_counts(values: Wide) -> Wide:
    """floor(log2) + 1 of each value from 0 to 2^31: frexp is exact there."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _shifted(values: Wide, shift: int) -> Wide:
    return values >> shift if shift >= 0 else values << -shift


def _each_shifted(values: Wide, shifts: Wide) -> Wide:
    return (values << np.maximum(-shifts, 0)) >> np.maximum(shifts, 0)


def _half(shift: int) -> int:
    return (1 << shift) >> 1 if shift > 0 else 0


# The FFT runs in complex128, which holds products of 15 and 14 bits and their sums exactly.


def first4(src: Integers, n: int, shift: int, low: int, dst: Integers, order: Integers) -> int:
    places = np.add.outer(n // 4 * np.arange(4), order)
    z = _complex(src[places])
    if not low:
        z[:2] = 0
    out = np.empty((n // 4, 4), np.complex128)
    a, b, c, d = z
    _by_fours(a, b, c, d, out.T, shift)
    return _store(out.ravel(), shift, dst)


def first2(src: Integers, n: int, shift: int, low: int, dst: Integers, order: Integers) -> int:
    a, b = _complex(src[np.add.outer(n // 2 * np.arange(2), order)])
    a = (a if low else 0) + _half(shift) * (1 + 1j)
    return _store(np.stack([a + b, a - b], -1).ravel(), shift, dst)


def stage(z: Integers, n: int, shift: int, length: int, twiddles: Integers) -> int:
    blocks = _complex(z[:n]).reshape(-1, 4, length)
    turned = blocks[:, 1:] * _turns(twiddles.tobytes(), n, length)
    parts = turned.view(np.float64)
    parts += 0.5
    np.floor(parts, out=parts)
    out = np.empty_like(blocks)
    _by_fours(blocks[:, 0], turned[:, 0], turned[:, 1], turned[:, 2], out.swapaxes(0, 1), shift)
    return _store(out.ravel(), shift, z)


@lru_cache(maxsize=32)
def _turns(twiddles: bytes, n: int, length: int) -> Complex:
    """exp(−iπjm/(2·length)) as in Q14, shape (3, length): m = 1, 2, 3, j = 0 … length − 1."""
    k = np.arange(1, 4)[:, None] * np.arange(length) * (n // 2 // length)
    table = _complex(np.frombuffer(twiddles, np.int32)).conj() * 2.0**-14
    return np.where(k > n, -1, 1) * table[np.where(k > n, k - n, k)]


def _by_fours(a: Complex, b: Complex, c: Complex, d: Complex, out: Complex, shift: int) -> None:
    if shift:
        a = a + _half(shift) * (1 + 1j)
    even, odd = a + c, a - c
    both, between = b + d, (b - d) * -1j
    np.add(even, both, out=out[0])
    np.add(odd, between, out=out[1])
    np.subtract(even, both, out=out[2])
    np.subtract(odd, between, out=out[3])


def split(src: Integers, n: int, shift: int, dst: Integers, twiddles: Integers, wrap: int) -> int:
    if wrap:
        src[n] = src[0]
    z = _complex(src[: n + 1])
    near, far = z[: n // 2 + 1], z[: n // 2 - 1 : -1].conj()
    turned = (near - far) * _complex(twiddles[: n // 2 + 1]).conj()
    # −i·(re + i·im) = im − i·re
    t = np.floor((turned.imag + 8192) * 2.0**-14) - 1j * np.floor((turned.real + 8192) * 2.0**-14)
    both = near + far
    half = _half(shift) * (1 + 1j)
    out = np.empty(n + 1, np.complex128)
    out[n // 2 :] = ((both - t).conj() + half)[::-1]
    out[: n // 2 + 1] = both + t + half
    return _store(out, shift, dst)


def _complex(words: Integers) -> Complex:
    return np.ascontiguousarray(words).view(np.int16).astype(np.float64).view(np.complex128)


def _store(z: Complex, shift: int, dst: Integers) -> int:
    """Scale and round down (half is in already), pack, and count the bits."""
    parts = z.view(np.float64)
    if shift:
        parts = np.floor(parts * 2.0**-shift)
    halves = parts.astype(np.int16)
    dst[: len(z)] = halves.view(np.int32)
    return int((halves ^ (halves >> 15)).max()).bit_length()


def move(src: Integers, n_words: int, shift: int, dst: Integers, at: int) -> None:
    re, im = _parts(src[at : at + n_words])
    dst[:n_words] = _packed(_shifted(re, shift), _shifted(im, shift))


def _emphasised(x: Integers, before: int, n: int) -> Wide:
    wide = x[:n].astype(np.int64)
    return 32 * wide - 29 * np.concatenate([[int(before)], wide[:-1]])


def peak(x: Integers, n: int, before: int) -> int:
    return _bits(_emphasised(x, before, n))


def emphasise(x: Integers, n: int, before: int, dst: Integers, at: int, shift: int) -> int:
    v = _shifted(_emphasised(x, before, n), shift)
    dst[at : at + n // 2] = _packed(v[0::2], v[1::2])
    return int((v ^ (v >> 31)).sum())


def restore(
    z: Integers, n: int, shift: int, source: Integers, out: Integers, at: int, states: Integers, which: int
) -> None:
    re, im = _parts(z[at : at + n // 2])
    v = _shifted(np.stack([re, -im], -1).ravel() + _half(shift), shift)
    values = v.tolist()
    run = _deemphasised(values, int(states[which]))
    if not -STATE_MAX - 1 <= min(run) <= max(run) <= STATE_MAX:
        run = _saturated(values, int(states[which]))
    states[which] = run[-1]
    echo = (np.array(run, np.int64) + 8) >> 4
    out[:n] = np.clip(source[:n] - echo, -32768, 32767)


def _deemphasised(values: list[int], y: int) -> list[int]:
    run = []
    for value in values:
        y = value + ((29 * y) >> 5)
        run.append(y)
    return run


def _saturated(values: list[int], y: int) -> list[int]:
    run = []
    for value in values:
        y = min(max(value + ((29 * y) >> 5), -STATE_MAX - 1), STATE_MAX)
        run.append(y)
    return run


def loudness(d: Integers, n: int, e: Integers, sums: Integers) -> None:
    a, b = d[:n:4].astype(np.int64), e[:n:4].astype(np.int64)
    sums[:] = [(v ^ (v >> 31)).sum() for v in (a, b, a - b)]


def insert(x: Integers, n_bins: int, n_parts: int, new: Integers, new_shift: int, old_shift: int) -> None:
    grid = x.reshape(n_bins, n_parts)
    re, im = _parts(grid[:, :-1])
    grid[:, 1:] = _packed(_shifted(re, old_shift), _shifted(im, old_shift))
    re, im = _parts(new[:n_bins])
    grid[:, 0] = _packed(_shifted(re, new_shift), _shifted(im, new_shift))


def estimate(
    w: Integers,
    n_bins: int,
    n_parts: int,
    x: Integers,
    p: Integers,
    p_shift: Integers,
    x2_shift: int,
    yr: Integers,
    yi: Integers,
    s: Integers,
    x2_bits: Integers,
) -> int:
    xr, xi = (v.reshape(n_bins, n_parts) for v in _parts(x))
    wr, wi = np.moveaxis(w.reshape(n_bins, n_parts, 2).astype(np.int64) >> 14, -1, 0)
    re, im = (xr * wr - xi * wi).sum(1), (xr * wi + xi * wr).sum(1)
    x2 = xr * xr + xi * xi
    pn = p.reshape(n_bins, n_parts).astype(np.int64) >> p_shift.astype(np.int64)[:, None]
    yr[:n_bins], yi[:n_bins] = re, im
    s[:] = np.where(x2 < 32768, (pn * x2) >> x2_shift, pn * (x2 >> x2_shift)).sum(1)
    x2_bits[:] = _bit_counts(np.bitwise_or.reduce(x2, axis=1))
    return _bits(re, im)


def gather(
    re: Integers, n_bins: int, shift: int, im: Integers, dst: Integers, im_first: int, first: int, step: int
) -> int:
    stop = first + step * n_bins
    half = _half(shift)
    a = _shifted(re[first:stop:step][:n_bins].astype(np.int64) + half, shift)
    b = -_shifted(im[first + im_first : stop + im_first : step][:n_bins].astype(np.int64) + half, shift)
    dst[:n_bins] = _packed(a, b)
    return _bits(a, b)


def listen(e: Integers, n_bins: int, new_shift: int, psi: Integers, old_shift: int, smoothing: int) -> int:
    re, im = _parts(e[:n_bins])
    power = _shifted((re * re + im * im) >> 2, new_shift)
    padded = np.pad(power, 2, "edge")
    total = sum(padded[i : i + n_bins] for i in range(5))
    old = _shifted(psi.astype(np.int64), old_shift)
    value = old + ((total - old) >> smoothing)
    psi[:] = value
    return _bits(value)


def learn(
    w: Integers,
    n_bins: int,
    n_parts: int,
    x: Integers,
    p: Integers,
    e: Integers,
    s: Integers,
    psi: Integers,
    p_shift: Integers,
    x2_bits: Integers,
    prior: Integers,
    reciprocals: Integers,
    settings: Integers,
) -> None:
    c = settings.tolist()
    er, ei = _parts(e[:n_bins])
    p_down = p_shift.astype(np.int64)
    apart = c[0] - p_down
    power = s.astype(np.int64) >> np.clip(apart, 0, 31)
    d = (psi.astype(np.int64) >> np.clip(-apart, 0, 31)) + power + 1
    d_exponent = c[1] + np.maximum(-apart, 0)
    t = _bit_counts(d) - 9
    r = reciprocals.astype(np.int64)[_each_shifted(d, t) - 256]
    gain = (_each_shifted(power, t) * r) >> 9
    e_shift = 14 - _bit_counts((er ^ (er >> 31)) | (ei ^ (ei >> 31)))
    r_step = (r * c[5]) >> 15
    ur, ui = ((er << e_shift) * r_step) >> 15, ((ei << e_shift) * r_step) >> 15
    loud = x2_bits.astype(np.int64)
    f_shift = np.maximum(((loud + 1) >> 1) - 1, 0)
    t = t + d_exponent
    w_shift = np.clip(c[2] + t + e_shift - f_shift - p_down, 0, 31)
    x2_shift = np.maximum(loud - 15, 0)
    k_shift = c[3] + t - x2_shift - p_down

    xr, xi = (v.reshape(n_bins, n_parts) for v in _parts(x))
    uncertainty = p.reshape(n_bins, n_parts).astype(np.int64)
    pn = uncertainty >> p_down[:, None]
    fr, fi = (pn * ur[:, None]) >> f_shift[:, None], (pn * ui[:, None]) >> f_shift[:, None]
    wr, wi = np.moveaxis(w.reshape(n_bins, n_parts, 2).astype(np.int64), -1, 0)
    new = (
        wr + ((xr * fr + xi * fi) >> w_shift[:, None]),
        wi + ((xr * fi - xi * fr) >> w_shift[:, None]),
    )
    w[:] = np.clip(np.stack(new, -1), -W_MAX - 1, W_MAX).ravel()
    if not c[6]:
        e[:n_bins] = 0
        return
    product = ((pn * r[:, None]) >> 14) * ((xr * xr + xi * xi) >> x2_shift[:, None])
    share = np.minimum(product >> np.clip(k_shift, 0, 31)[:, None], 32767)
    share = np.where((k_shift < 0)[:, None] & (product > 0), 32767, share)
    wr, wi = wr >> 14, wi >> 14
    w2 = ((wr * wr) >> 1) + ((wi * wi) >> 1)
    fade = (uncertainty >> 15) * share + (((uncertainty & 32767) * share) >> 15)
    uncertainty = uncertainty - (fade >> c[7]) - (uncertainty >> c[8]) + (w2 >> c[9]) + prior.astype(np.int64)
    uncertainty = np.clip(uncertainty, 1, c[4])
    p[:] = uncertainty.ravel()
    p_shift[:] = np.maximum(_bit_counts(uncertainty.sum(1)) - 14, 0)
    e[:n_bins] = _packed((gain * er) >> 14, -((gain * ei) >> 14))


def doubt(p: Integers, p_shift: Integers, n_bins: int, n_parts: int, least: Integers) -> None:
    grid = p.reshape(n_bins, n_parts)
    np.maximum(grid, least, out=grid)
    p_shift[:] = np.maximum(_bit_counts(grid.astype(np.int64).sum(1)) - 14, 0)


def largest(w: Integers, part: int, n_bins: int, n_parts: int) -> int:
    return _bits(w.reshape(n_bins, n_parts, 2)[:, part].astype(np.int64))


def rescale(w: Integers, n_words: int, shift: int) -> None:
    w[:n_words] = np.clip(_shifted(w[:n_words].astype(np.int64), shift), -W_MAX - 1, W_MAX)


def forget(w: Integers, n_words: int) -> None:
    w[:n_words] = 0


def constrain(w: Integers, tail: Integers, part: int, n_bins: int, n_parts: int, shift: int) -> None:
    re, im = _parts(tail[:n_bins][::-1])
    grid = w.reshape(n_bins, n_parts, 2)
    wide = grid[:, part].astype(np.int64)
    wide[:, 0] -= _shifted(re, shift)
    wide[:, 1] += _shifted(im, shift)
    grid[:, part] = np.clip(wide, -W_MAX - 1, W_MAX)


# The marker


@lru_cache(maxsize=1)
def _states() -> Integers:
    """All states of the recursion (2047,), from 1 on."""
    states = [1]
    while len(states) < 2047:
        states.append(next_state(states[-1]))
    return np.array(states, np.int64)


def _run(state: int, n: int) -> Integers:
    """n states from one on."""
    states = _states()
    first = int(np.nonzero(states == state)[0][0])
    return states[(first + np.arange(n)) % len(states)]


def chips(out: Integers, first: int, n: int, state: int, level: int) -> int:
    run = _run(state, n + 1)
    out[first : first + n] = np.where(run[:-1] & 0x400, -level, level)
    return int(run[-1])


def fold(
    x: Integers, first: int, n: int, cells: Integers, turned: Integers, turn: int, state: int, shift: int
) -> int:
    run = _run(state, n + 1)
    values = x[first : first + n] >> shift
    np.add.at(cells, run[:-1], values)
    np.add.at(turned, run[:-1], turn * values.astype(np.int32))
    return int(run[-1])


def hadamard(z: Integers, n: int) -> None:
    half = 1
    while half < n:
        pairs = z[:n].reshape(-1, 2, half)
        pairs[:, 0], pairs[:, 1] = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        half *= 2
