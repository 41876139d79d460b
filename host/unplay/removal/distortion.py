"""What a loudspeaker's curve would add to the echo, told from reference and echo estimate.

A memoryless curve bends the reference before the room does anything to it (a Hammerstein model). For a curve
that isn't known yet, the echo path h is applied to one odd and one even function of the reference,

    u_odd = x − 4·tanh(x/4)   and   u_even = x²,   |x| ≤ MOST,

x of level 1, each without what resembles x itself: a soft limiter and a membrane that moves further to one
side. How much of either is in the residual `frame_filters` finds out. Of some twenty pairs this one explained
most of what a linear filter leaves on simulated loudspeakers. The curve is applied at the signals' own sample
rate: oversampling, which would keep harmonics from aliasing, explained no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unplay.removal.baselines import fir_response, through

FloatArray = NDArray[np.floating]

N_CURVES = 2
"""An odd and an even one."""
MOST = 6.0
"""Of the reference, relative to its level: beyond it a curve is flat."""


def distortion(reference: FloatArray, echo: FloatArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """Reference of level 1 and echo estimate (n_samples,) → (N_CURVES, n_samples), on the echo's scale."""
    response = fir_response(reference, echo, sample_rate_hz)
    x = np.clip(reference, -MOST, MOST).astype(np.float64)
    energy = np.dot(x, x) + 1e-30
    out = np.empty((N_CURVES, len(x)))
    for row, bent in zip(out, (x - 4 * np.tanh(x / 4), x * x), strict=True):
        bent -= np.dot(bent, x) / energy * x
        row[:] = through(bent, response, sample_rate_hz)
    return out
