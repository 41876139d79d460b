"""A scene made, cleaned and judged: what `unplay demo` shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unplay.audio import AudioFormat, AudioReader, AudioWriter, Samples
from unplay.cleaning import Result, clean
from unplay.metrics import energy_ratio_db, si_sdr_db
from unplay.virtual.scene import Signal, make_scene

NAMES = ("reference", "recording", "true_near_end", "near_end", "removed")


@dataclass(frozen=True)
class Figures:
    """Before and after, in dB.

    si_sdr_db: how much the talker stands above all that is not the talker. echo_to_talker_db: how loud
    the music is beside the talker; after cleaning, whatever the cleaning left or damaged counts as music.
    """

    si_sdr_before_db: float
    si_sdr_after_db: float
    echo_to_talker_before_db: float
    echo_to_talker_after_db: float


def run(folder: Path, progress: Callable[[str, float], None]) -> tuple[Figures, Result]:
    """Write the sounds of the scene to a folder (made if need be), clean the recording there."""
    progress("making the scene", 0.0)
    scene = make_scene()
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.wav" for name in NAMES}
    for name in NAMES[:3]:
        _write(paths[name], getattr(scene, name), scene.sample_rate_hz)
    result = clean(
        paths["reference"],
        paths["recording"],
        paths["near_end"],
        removed=paths["removed"],
        log=folder / "log.json",
        force=True,
        progress=progress,
    )
    with AudioReader(paths["near_end"]) as reader:
        near_end = reader.read(0, reader.format.n_samples)[:, 0]
    left = near_end - (scene.recording - scene.echo)
    figures = Figures(
        si_sdr_before_db=si_sdr_db(scene.true_near_end, scene.recording),
        si_sdr_after_db=si_sdr_db(scene.true_near_end, near_end),
        echo_to_talker_before_db=energy_ratio_db(scene.echo, scene.true_near_end),
        echo_to_talker_after_db=energy_ratio_db(left, scene.true_near_end),
    )
    return figures, result


def _write(path: Path, signal: Signal, sample_rate_hz: int) -> None:
    samples: Samples = np.rint(signal[:, np.newaxis] * 2**15) / 2**15
    with AudioWriter(path, AudioFormat(sample_rate_hz, 1, len(signal), "WAV", "PCM_16")) as writer:
        writer.write(samples)
