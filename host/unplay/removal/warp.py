"""Band-limited interpolation at fractional positions: the reference on another clock.

A Farrow structure (Farrow 1988): the taps of a Kaiser-windowed sinc, as functions of the fractional
position, are polynomials. Each polynomial coefficient is a fixed FIR filter, applied by FFT; Horner's
rule at every output sample then evaluates the taps at its own fraction. Content up to 0.45 of the sample
rate is interpolated with an error below −120 dB.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

HALF_WIDTH = 48
"""Taps on either side of the nearest sample."""

_KAISER_BETA = 13.5
_ORDER = 12
_BLOCK = 1 << 15
_JUMP_SAMPLES = 4.0


def warp(x: NDArray[np.floating], positions: NDArray[np.floating]) -> NDArray[np.floating]:
    """The samples of x (n,) at `positions` (m,), in samples of x; x is zero outside itself.

    Positions may advance at any rate near one and may jump. The result (m,) has the dtype of x
    (float32 or float64); the arithmetic is float64 throughout. Memory beyond the result does not
    grow with n or m.
    """
    positions = np.asarray(positions, np.float64)
    if not np.all(np.isfinite(positions)):
        raise ValueError("positions hold NaN or infinity")
    out = np.zeros(len(positions), np.result_type(x.dtype, np.float32))
    jumps = np.flatnonzero(np.abs(np.diff(positions)) > _JUMP_SAMPLES) + 1
    edges = [0, *jumps.tolist(), len(positions)]
    for run_start, run_stop in pairwise(edges):
        for start in range(run_start, run_stop, _BLOCK):
            stop = min(start + _BLOCK, run_stop)
            out[start:stop] = _warp_block(x, positions[start:stop])
    return out


def _warp_block(x: NDArray[np.floating], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """One block of `warp` whose positions lie close together."""
    nearest = np.rint(positions).astype(np.int64)
    first, last = int(nearest.min()), int(nearest.max())
    out = np.zeros(len(positions))
    if last < -HALF_WIDTH or first >= len(x) + HALF_WIDTH:
        return out
    filtered = _filtered(_excerpt(x, first - HALF_WIDTH, last + 1 + HALF_WIDTH))
    fraction = positions - nearest
    nearest -= first
    for row in filtered[::-1]:
        out *= fraction
        out += row[nearest]
    return out


def _excerpt(x: NDArray[np.floating], start: int, stop: int) -> NDArray[np.float64]:
    """x[start:stop] in float64 with zeros where that lies outside x."""
    excerpt = np.zeros(stop - start)
    lo, hi = max(start, 0), min(stop, len(x))
    if lo < hi:
        excerpt[lo - start : hi - start] = x[lo:hi]
    return excerpt


def _filtered(excerpt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every coefficient filter at every sample with HALF_WIDTH neighbours: (order + 1, n − 2·HALF_WIDTH)."""
    n_fft = scipy.fft.next_fast_len(len(excerpt), real=True)
    spectrum = np.fft.rfft(excerpt, n_fft)
    # circular wrap-around falls on the first 2·HALF_WIDTH samples alone
    filtered = np.fft.irfft(spectrum * _coefficient_spectra(n_fft), n_fft, axis=-1)
    return filtered[:, 2 * HALF_WIDTH : len(excerpt)]


@cache
def _coefficients() -> NDArray[np.float64]:
    """(order + 1, 2·HALF_WIDTH + 1): row k holds every tap's coefficient of fraction^k."""
    degree = _ORDER
    nodes = np.cos(np.pi * (np.arange(4 * degree) + 0.5) / (4 * degree))
    taps = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    t = taps - nodes[:, None] / 2
    window = np.i0(_KAISER_BETA * np.sqrt(1 - (t / (HALF_WIDTH + 0.5)) ** 2)) / np.i0(_KAISER_BETA)
    fitted = chebyshev.chebfit(nodes, np.sinc(t) * window, degree)
    powers = np.zeros_like(fitted)
    for k, row in enumerate(np.eye(degree + 1)):
        monomials = chebyshev.cheb2poly(row[: k + 1])
        powers[: k + 1] += monomials[:, None] * fitted[k]
    return powers * 2.0 ** np.arange(degree + 1)[:, None]


@lru_cache(maxsize=4)
def _coefficient_spectra(n_fft: int) -> NDArray[np.complex128]:
    """Spectra of the coefficient filters; a long run needs two or three FFT lengths."""
    # reversed taps: correlation with x around the nearest sample, as a convolution
    return np.fft.rfft(_coefficients()[:, ::-1], n_fft, axis=-1)
