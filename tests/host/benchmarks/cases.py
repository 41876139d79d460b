"""The corpus: pairs of what was played and what was recorded, most of them with the talker alone as truth.

`../shared/corpus/README.md`, beside the repository, says what every file and key means.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

Signal = NDArray[np.float64]

BESIDE_THE_REPOSITORY = Path(__file__).parents[4] / "shared" / "corpus"


@dataclass(frozen=True)
class Case:
    """Signals of shape (n_samples,), at one sample rate; reference and recording differ in length.

    The truths are None where nobody knows them (`real/`). `facts` is case.json.
    """

    name: str
    folder: Path
    facts: dict[str, Any]
    sample_rate_hz: int
    reference: Signal
    recording: Signal
    true_near_end: Signal | None
    true_echo: Signal | None

    @property
    def duration_s(self) -> float:
        return len(self.recording) / self.sample_rate_hz

    @property
    def reference_path(self) -> Path:
        return self.folder / "reference.wav"

    @property
    def recording_path(self) -> Path:
        return self.folder / "mic.wav"

    @property
    def true_drift_ppm(self) -> float | None:
        """Known where a program mixed the case; of a real one case.json has a rough slope of the delay."""
        return None if self.facts["kind"] == "real" else self.facts["drift_ppm"]

    @property
    def first_arrival_s(self) -> float:
        """When the microphone first hears the reference. 0 where it never does.

        Exact where a program mixed the case; else a few milliseconds before the strongest arrival.
        """
        if self.facts.get("playback_offset_s") is not None:
            return self.facts["playback_offset_s"] + self.facts["rir_onset_s"]
        if self.facts.get("delay_s") is not None:
            return self.facts["delay_s"] - 0.005
        return 0.0

    def reference_from(self, start_s: float) -> Signal:
        """The reference delayed by a whole number of samples, as long as the recording."""
        start = int(np.floor(start_s * self.sample_rate_hz))
        shifted = self.reference[max(-start, 0) :]
        out = np.zeros(len(self.recording))
        stop = min(max(start, 0) + len(shifted), len(out))
        out[max(start, 0) : stop] = shifted[: stop - max(start, 0)]
        return out


def corpus_folder() -> Path:
    return Path(os.environ.get("UNPLAY_CORPUS", BESIDE_THE_REPOSITORY))


def case_folders(corpus: Path) -> list[Path]:
    return sorted(path.parent for path in corpus.glob("*/*/case.json"))


def load_case(folder: Path) -> Case:
    facts = json.loads((folder / "case.json").read_text())
    return Case(
        name=folder.name,
        folder=folder,
        facts=facts,
        sample_rate_hz=facts["fs"],
        reference=read_signal(folder / "reference.wav"),
        recording=read_signal(folder / "mic.wav"),
        true_near_end=read_if_there(folder / "near.wav"),
        true_echo=read_if_there(folder / "echo.wav"),
    )


def read_signal(path: Path) -> Signal:
    """A mono file (n_samples,), full scale ±1."""
    return np.asarray(soundfile.read(path, dtype="float64")[0], np.float64)


def read_if_there(path: Path) -> Signal | None:
    return read_signal(path) if path.exists() else None
