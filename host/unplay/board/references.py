"""Sounds made ready for a device to play."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unplay.audio import AudioReader
from unplay.board.link import DeviceLink, Progress
from unplay.errors import BadInputError

RATE_HZ = 16_000
PEAK = 0.9
"""Of full scale. Resampling makes new peaks; the loudspeaker's own range is `volume_q15`."""

LONGEST_NAME = 40


@dataclass(frozen=True)
class Reference:
    """What a device plays: 16-bit samples (n_samples,) and what its sidecar says of them.

    gain: by what the file's samples were multiplied. source: the file's name and SHA-256.
    """

    name: str
    samples: int
    rate_hz: int
    sha256: str
    gain: float
    source: str
    source_sha256: str
    pcm: NDArray[np.int16]

    def sidecar(self) -> str:
        facts = asdict(self)
        del facts["pcm"]
        return json.dumps(facts)


def make_reference(path: Path, name: str | None = None, *, keep_level: bool = False) -> Reference:
    """Decode, average the channels, resample to the device's rate, bring the peak to 0.9 of full scale.

    keep_level: only turn it down, where it would clip. Raises BadInputError where the file cannot be read, is
    silent, or its name has nothing in it that a device's file can be called.
    """
    with AudioReader(path) as reader:
        sound = reader.mono(RATE_HZ).astype(np.float64)
    peak = float(np.max(np.abs(sound))) if len(sound) else 0.0
    if peak == 0.0:
        raise BadInputError(f"{path} is silent: there is nothing in it to play. Choose another file.")
    gain = min(1.0, PEAK / peak) if keep_level else PEAK / peak
    pcm = np.round(sound * (gain * 32768)).astype(np.int16)
    return Reference(
        name=clean_name(name or path.stem),
        samples=len(pcm),
        rate_hz=RATE_HZ,
        sha256=hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest(),
        gain=gain,
        source=path.name,
        source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        pcm=pcm,
    )


def push(
    link: DeviceLink, reference: Reference, progress: Progress | None = None, *, select: bool = True
) -> bool:
    """Send a reference and its sidecar; False where the device had it already.

    select: the button plays it from now on. Raises DeviceUnreachableError.
    """
    with tempfile.TemporaryDirectory() as folder:
        pcm, sidecar = Path(folder) / "reference.pcm", Path(folder) / "reference.json"
        pcm.write_bytes(reference.pcm.astype("<i2").tobytes())
        sidecar.write_text(reference.sidecar(), "utf-8")
        new = link.put(pcm, f"references/{reference.name}.pcm", progress)
        link.put(sidecar, f"references/{reference.name}.json")
    if select:
        link.config_set({"reference": reference.name})
    return new


def clean_name(name: str) -> str:
    """A name that any file system takes: letters, digits and -. Raises BadInputError where none is left."""
    kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:LONGEST_NAME]
    if not kept:
        raise BadInputError(f"{name!r} has no letter or digit to call a reference by: give it a --name.")
    return kept
