"""The device's canceller on arrays: `unplay_shared.canceller` with kernels in numpy, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay.removal import canceller_kernels
from unplay_shared.canceller import Canceller

Samples16 = NDArray[np.int16]
Progress = Callable[[str, float], None]

FULL_SCALE = 32768
WEIGHT_ONE = 1 << 25
UNCERTAINTY_ONE = 1 << 27


@dataclass(frozen=True)
class Trace:
    """What the canceller knew after each of n_blocks blocks; all float32.

    time_s (n_blocks,): when the block ended. impulse_response (n_blocks, n_taps): the echo path it believed
    in, n_taps a whole number of blocks. step (n_blocks, n_bins): the gain S/(S + ψ), 0 to 1, with which the
    block's error was taken for echo. uncertainty (n_blocks, n_bins): of the weights, over all partitions,
    relative to the prior's scale.
    """

    time_s: NDArray[np.float32]
    impulse_response: NDArray[np.float32]
    step: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


def as_samples16(x: NDArray[np.floating]) -> Samples16:
    """Samples (n_samples,), full scale ±1, as a device has them: rounded, and clipped."""
    return np.clip(np.round(x * float(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def cancel(
    reference: Samples16,
    recording: Samples16,
    settings: Mapping[str, Any] | None = None,
    *,
    late: Collection[int] = (),
    progress: Progress | None = None,
) -> Samples16:
    """The residual (n_samples,) of a recording (n_samples,), exactly as a device computes it.

    reference: any length, from the recording's first sample on; silent where it ends. settings: names and
    values of `unplay_shared.settings`. late: blocks that a device had no time for. Raises ValueError where a
    setting is out of range.
    """
    canceller = Canceller(dict(settings or {}), canceller_kernels)
    return _run(canceller, reference, recording, progress, lambda: None, late)


def cancel_with_trace(
    reference: Samples16,
    recording: Samples16,
    settings: Mapping[str, Any] | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Samples16, Trace]:
    """As `cancel`, and what was known after each block."""
    steps: list[NDArray[np.float32]] = []
    kernels = SimpleNamespace(**vars(canceller_kernels))
    canceller = Canceller(dict(settings or {}), kernels)
    kernels.learn = _watched(steps)
    responses: list[NDArray[np.float32]] = []
    uncertainties: list[NDArray[np.float32]] = []

    def note() -> None:
        responses.append(_impulse_response(canceller))
        grid = canceller.p.reshape(canceller.n_bins, canceller.n_parts)
        uncertainties.append((grid.sum(1, dtype=np.int64) / UNCERTAINTY_ONE).astype(np.float32))
        if len(steps) < len(responses):  # the reference has not begun
            steps.append(np.zeros(canceller.n_bins, np.float32))

    residual = _run(canceller, reference, recording, progress, note)
    block_s = canceller.n_block / canceller.settings["rate_hz"]
    times_s = (np.arange(len(responses)) + 1) * block_s
    return residual, Trace(
        times_s.astype(np.float32), np.array(responses), np.array(steps), np.array(uncertainties)
    )


def _run(
    canceller: Canceller,
    reference: Samples16,
    recording: Samples16,
    progress: Progress | None,
    note: Callable[[], None],
    late: Collection[int] = (),
) -> Samples16:
    n = canceller.n_block
    n_blocks = -(-len(recording) // n)
    played, recorded = _padded(reference, n_blocks * n), _padded(recording, n_blocks * n)
    residual = np.zeros(n_blocks * n, np.int16)
    for k in range(n_blocks):
        here = slice(k * n, (k + 1) * n)
        if k in late:
            canceller.skip(played[here])
            residual[here] = recorded[here]
        else:
            canceller.process(played[here], recorded[here], residual[here])
        note()
        if progress is not None:
            progress("cancelling", (k + 1) / n_blocks)
    return residual[: len(recording)]


def _padded(x: Samples16, n: int) -> Samples16:
    """n samples, zeros after the last."""
    out = np.zeros(n, np.int16)
    out[: len(x)] = x[:n]
    return out


def _watched(steps: list[NDArray[np.float32]]) -> Callable[..., None]:
    """`learn`, noting S/(S + ψ) of every bin before it runs."""

    def learn(w, n_bins, n_parts, x, p, e, s, psi, p_shift, x2_bits, prior, reciprocals, settings) -> None:
        near_end = psi * 2.0 ** (int(settings[0]) - p_shift.astype(np.float64))
        steps.append((s / (s + near_end + 1.0)).astype(np.float32))
        canceller_kernels.learn(
            w, n_bins, n_parts, x, p, e, s, psi, p_shift, x2_bits, prior, reciprocals, settings
        )

    return learn


def _impulse_response(canceller: Canceller) -> NDArray[np.float32]:
    """The weights as response (n_parts · n_block,) from reference to recording."""
    grid = canceller.w.reshape(canceller.n_bins, canceller.n_parts, 2).astype(np.float64)
    spectra = (grid[..., 0] + 1j * grid[..., 1]) / WEIGHT_ONE / 2.0**canceller.scale
    responses = np.fft.irfft(spectra, axis=0)[: canceller.n_block]
    return responses.T.ravel().astype(np.float32)
