"""Make training examples of simulated scenes: near ends over what is left of echoes, and the frame filters.

    python host/training/mix.py DATA MIXED --split train        (again, when there are more shards)

DATA is what simulate.py made. Each shard becomes MIXED/SPLIT/NUMBER.npz of len(KINDS) examples a scene,
float16: `residual`, `echo` (their sum has level 1), `odd`, `even` (what a loudspeaker's curve may have added,
see `unplay.removal.distortion`), `reference` (level 1) and `near_end` (n, n_samples), and `followed`
(n, N_FILTERS, n_frames, 257, 2), real and imaginary, what `unplay.removal.frame_filters` leaves of the
residual's frames. They depend on split and number only; those that exist are left alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unplay.removal.frame_filters import N_FILTERS, FrameFilters
from unplay.removal.neural import HOP, N_FFT, with_distortion

FloatArray = NDArray[np.floating]
Rng = np.random.Generator

SIGNALS = ("residual", "echo", "reference", "odd", "even")
"""In the order in which `unplay.removal.neural.Suppressor` takes them, and the network sees them."""
KINDS = ("fir", "better", "device", "kalman")
"""The plain FIR stage; a better one, which the talker doesn't disturb; the device's canceller; a causal
Kalman filter."""
DEEPER_DB = (0.0, 45.0)
"""By which a better stage may take more."""
SWAPPED_SHARE = 0.5
"""Of the examples: their near end is of another scene of the shard."""
NEAR_END_TO_ECHO_DB = dict.fromkeys(KINDS, (-20.0, 8.0)) | {"better": (-40.0, 8.0)}
"""Of such a near end. What a better stage leaves is mostly talker however quiet he is; a network that has
never met one takes all for echo that is weak beside it."""
SPLITS = {"train": 4, "validation": 5}
"""Seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("mixed", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="train")
    arguments = parser.parse_args()
    folder = arguments.mixed / arguments.split
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((arguments.data / arguments.split).glob("????.npz")):
        target = folder / path.name
        if not target.exists():
            rng = np.random.default_rng([SPLITS[arguments.split], int(path.stem)])
            with np.load(path) as stored:
                shard = {name: stored[name] / np.float32(32768) for name in stored.files}
            unfinished = target.with_suffix(".part.npz")
            np.savez(unfinished, **with_followed(list(examples(shard, rng))))
            os.replace(unfinished, target)
            print(target, flush=True)


def examples(shard: dict[str, FloatArray], rng: Rng) -> Iterator[dict[str, FloatArray]]:
    """Residual, echo, reference and near end (n_samples,) of one example after the other."""
    scenes = [dict(zip(shard, signals, strict=True)) for signals in zip(*shard.values(), strict=True)]
    for scene in scenes:
        for kind in KINDS:
            other = scenes[rng.integers(len(scenes))] if rng.random() < SWAPPED_SHARE else scene
            yield levelled(*laid_over(scene, other, kind, rng), scene["reference"])


def laid_over(
    scene: dict[str, FloatArray], other: dict[str, FloatArray], kind: str, rng: Rng
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Residual, echo estimate and near end: the other scene's near end over what is left of this echo."""
    gain = 1.0
    if other is not scene and other["near_end"].any():
        ratio = np.sqrt(np.mean(scene["echo"] ** 2) / np.mean(other["near_end"] ** 2) + 1e-9)
        gain = ratio * 10 ** (rng.uniform(*NEAR_END_TO_ECHO_DB[kind]) / 20)
    near_end = gain * other["near_end"]
    if kind in ("device", "kalman"):
        left = scene[f"{kind}_left"] - scene["near_end"]
        echo = scene["mixture"] - scene[f"{kind}_left"]
    else:
        deeper_db = rng.uniform(*DEEPER_DB) if kind == "better" and rng.random() < 0.6 else 0.0
        left = scene["echo_left"] * 10 ** (-deeper_db / 20)
        echo = scene["echo"] - left
    if kind == "fir" and other is scene:  # the talker has disturbed the fit
        disturbed = scene["near_end_left"] - scene["near_end"]
        left, echo = left + disturbed, echo - disturbed
    return left + near_end, echo, near_end


def levelled(
    residual: FloatArray, echo: FloatArray, near_end: FloatArray, reference: FloatArray
) -> dict[str, FloatArray]:
    """As the removal gives recording and reference to the network."""
    gain = 1 / (np.sqrt(np.mean((residual + echo) ** 2)) + 1e-6)
    played_gain = 1 / (np.sqrt(np.mean(reference**2)) + 1e-6)
    signals = with_distortion(gain * residual, gain * echo, played_gain * reference)
    return dict(zip(SIGNALS, signals, strict=True)) | {"near_end": gain * near_end}


def with_followed(parts: list[dict[str, FloatArray]]) -> dict[str, NDArray[np.float16]]:
    mixed = {name: np.stack([part[name] for part in parts]).astype(np.float16) for name in parts[0]}
    frames = np.stack([spectra(mixed[name]) for name in SIGNALS])
    _, n, n_frames, n_bins = frames.shape
    filters = FrameFilters(n, n_bins)
    followed = np.empty((n, N_FILTERS, n_frames, n_bins), np.complex64)
    for t in range(n_frames):
        followed[:, :, t] = filters.step(frames[:, :, t]).swapaxes(0, 1)
    parts_of_numbers = followed.view(np.float32).reshape(*followed.shape, 2)
    return mixed | {"followed": parts_of_numbers.astype(np.float16)}


def spectra(signals: NDArray[np.float16]) -> NDArray[np.complex64]:
    """(n, n_samples) → (n, n_frames, 257), as `unplay.removal.stft.Stft` but for the first frame."""
    frames = np.lib.stride_tricks.sliding_window_view(signals.astype(np.float32), N_FFT, axis=-1)[:, ::HOP]
    window = np.sin(np.pi * np.arange(N_FFT) / N_FFT)
    return np.fft.rfft(frames * window).astype(np.complex64)


if __name__ == "__main__":
    main()
