"""Print what the neural suppressor makes of simulated scenes with talkers, music and rooms it never heard.

    python host/training/fetch.py POOL
    python host/training/simulate.py POOL DATA --split test --shards 4
    python tests/host/benchmarks/neural_table.py DATA/test

After the plain FIR stage (`unplay clean --method fir`), a causal Kalman filter and the device's canceller,
beside a Wiener filter on the echo estimate whose two settings are the best for this very set. Needs a
runtime: `pip install 'unplay[neural]'`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from unplay.metrics import energy_ratio_db, si_sdr_db, stoi
from unplay.removal.frame_filters import FrameFilters
from unplay.removal.neural import HOP, N_FFT, suppress, with_distortion
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

RATE_HZ = 16_000
WIENER_SHARES = 10 ** np.arange(-3.0, 0.0, 0.5)
WIENER_FLOORS = (0.1, 0.3)
SMOOTHING = 0.6
WORSE_DB = 0.1
"""A loss of less counts as none."""


@dataclass(frozen=True)
class Clip:
    """(n_samples,) each."""

    residual: FloatArray
    echo: FloatArray
    reference: FloatArray
    near_end: FloatArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder of shards that simulate.py made")
    folder = parser.parse_args().shards
    shards = [path for path in sorted(folder.glob("*.npz")) if ".part" not in path.name]
    for stage in ("fir", "kalman", "device"):
        clips = [clip for path in shards for clip in clips_of(path, stage)]
        talk = [clip for clip in clips if clip.near_end.any()]
        print(f"After the {stage} stage: {len(talk)} clips with a talker, {len(clips) - len(talk)} without")
        share, floor = best_wiener(talk)
        print(f"(Wiener filter: share {share:.1e}, floor {floor})")
        print("                    SI-SDR    gain   STOI    worse  far end alone")
        print_row("recording", clips, lambda clip: clip.residual + clip.echo)
        print_row("residual", clips, lambda clip: clip.residual)
        print_row("Wiener filter", clips, lambda clip, s=share, f=floor: wiener(clip, s, f))
        print_row("cautious filter", clips, lambda clip: followed(clip)[0])
        print_row("quick filter", clips, lambda clip: followed(clip)[1])
        print_row("neural", clips, neural)


def clips_of(path: Path, stage: str) -> Iterator[Clip]:
    with np.load(path) as stored:
        shard = {name: stored[name] / 32768.0 for name in stored.files}
    for k, recording in enumerate(shard["mixture"]):
        if stage == "fir":
            residual = shard["echo_left"][k] + shard["near_end_left"][k]
        else:
            residual = shard[f"{stage}_left"][k]
        yield Clip(residual, recording - residual, shard["reference"][k], shard["near_end"][k])


def neural(clip: Clip) -> FloatArray:
    return suppress(clip.residual, clip.echo, clip.reference, RATE_HZ)


def followed(clip: Clip) -> list[FloatArray]:
    """What the frame filters leave of the residual, without the network."""
    stft = Stft(N_FFT, HOP)
    level, played_level = np.std(clip.residual + clip.echo), np.std(clip.reference)
    signals = with_distortion(clip.residual / level, clip.echo / level, clip.reference / played_level)
    frames = stft.forward(signals).astype(np.complex64).swapaxes(0, 1)
    filters = FrameFilters(1, N_FFT // 2 + 1)
    left = np.stack([filters.step(frame[:, None])[:, 0] for frame in frames], axis=1)
    return [level * stft.inverse(spectrogram, len(clip.residual)) for spectrogram in left]


def wiener(clip: Clip, share: float, floor: float) -> FloatArray:
    """Gain 1 − share·|Ŷ|²/|E|², powers smoothed over frames, not below the floor."""
    stft = Stft(512, 256)
    spectrum = stft.forward(clip.residual)
    powers = [np.abs(s) ** 2 for s in (spectrum, stft.forward(clip.echo))]
    residual, echo = (lfilter([1 - SMOOTHING], [1, -SMOOTHING], power, axis=0) for power in powers)
    gain = np.clip(1 - share * echo / (residual + 1e-12), floor, 1)
    return stft.inverse(gain * spectrum, len(clip.residual))


def best_wiener(clips: list[Clip]) -> tuple[float, float]:
    def reached_db(settings: tuple[float, float]) -> float:
        return float(np.mean([si_sdr_db(clip.near_end, wiener(clip, *settings)) for clip in clips]))

    return max(itertools.product(WIENER_SHARES, WIENER_FLOORS), key=reached_db)


def print_row(name: str, clips: list[Clip], clean: Callable[[Clip], FloatArray]) -> None:
    reached, gained, heard, far_db = [], [], [], []
    for clip in clips:
        output = clean(clip)
        if not clip.near_end.any():
            far_db.append(energy_ratio_db(clip.residual, output))
            continue
        reached.append(si_sdr_db(clip.near_end, output))
        gained.append(reached[-1] - si_sdr_db(clip.near_end, clip.residual))
        heard.append(stoi(clip.near_end, output, RATE_HZ))
    intelligible = np.mean([score for score in heard if score is not None])
    worse = np.mean(np.array(gained) < -WORSE_DB)
    print(
        f"{name:16}{np.mean(reached):7.1f} dB {np.mean(gained):+6.1f} {intelligible:7.3f} {worse:7.0%} "
        f"{np.mean(far_db) if far_db else np.nan:+10.1f} dB",
        flush=True,
    )


if __name__ == "__main__":
    main()
