"""One recording of a device, fetched whole: what tests and validation judge."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from unplay.board.link import DeviceLink
from unplay.board.references import RATE_HZ, Reference, make_reference
from unplay.board.syncing import MICROPHONE, RESIDUAL, SIDECAR, read_pcm
from unplay.errors import BadInputError
from unplay.removal.canceller import cancel
from unplay.sessions import Pcm
from unplay.virtual.scene import compose

Signal = NDArray[np.float64]

NEAR_END = "near_end.npy"
SONG_SEED = 1


@dataclass(frozen=True)
class Take:
    """facts: session.json. microphone, residual (n_samples,); residual is None where nothing was cancelled.

    true_near_end (n_samples,): full scale = 1, before the microphone's shift; None on a real board.
    """

    facts: Mapping[str, Any]
    microphone: Pcm
    residual: Pcm | None = None
    true_near_end: Signal | None = None

    def save(self, folder: Path) -> None:
        """Write all of it into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SIDECAR).write_text(json.dumps(dict(self.facts), indent=2), "utf-8")
        (folder / MICROPHONE).write_bytes(self.microphone.astype("<i2").tobytes())
        if self.residual is not None:
            (folder / RESIDUAL).write_bytes(self.residual.astype("<i2").tobytes())
        if self.true_near_end is not None:
            np.save(folder / NEAR_END, self.true_near_end.astype(np.float32))


def load(folder: Path) -> Take:
    """What `save` wrote, or a session as it lies on a device. Raises BadInputError."""
    residual, near_end = folder / RESIDUAL, folder / NEAR_END
    try:
        return Take(
            json.loads((folder / SIDECAR).read_text("utf-8")),
            read_pcm(folder / MICROPHONE),
            read_pcm(residual) if residual.exists() else None,
            np.load(near_end).astype(np.float64) if near_end.exists() else None,
        )
    except (OSError, ValueError) as error:
        raise BadInputError(f"{folder} holds no recording of a device: {error}.") from error


def record(
    link: DeviceLink,
    reference: str,
    seconds: int = 0,
    progress: Callable[[int], None] = lambda n_samples: None,
) -> str:
    """Play a reference ("" for none) and record until the device is idle again; the session's id."""
    id = link.record({"reference": reference, "seconds": seconds})["id"]
    for status in link.status():
        if status["state"] == "idle":
            break
        progress(status["samples"])
    return id


def fetch(link: DeviceLink, id: str, files: tuple[str, ...] = (MICROPHONE, RESIDUAL)) -> Take:
    """A session, or of its sounds only those named (mic.pcm must be); it is removed from the device."""
    held = link.ls()
    with tempfile.TemporaryDirectory() as folder:
        for name in (SIDECAR, *files):
            if f"sessions/{id}/{name}" in held:
                link.get(f"sessions/{id}/{name}", Path(folder) / name)
        take = load(Path(folder))
    link.rm(f"sessions/{id}")
    return take


def expected_residual(take: Take, reference: Pcm) -> Pcm:
    """What the host's twin of the canceller leaves of a take's microphone, (n_samples,).

    Raises BadInputError where the device did not cancel: there was no reference, or no marker was heard.
    """
    facts = take.facts
    delay = facts["canceller_delay_samples"]
    if delay is None or facts["canceller"] is None:
        raise BadInputError(f"nothing was cancelled in session {facts['id']}: no marker was heard.")
    played = reference[: facts["reference_played_samples"]]
    heard = np.concatenate([np.zeros(max(delay, 0), np.int16), played[max(-delay, 0) :]])
    return cancel(heard, take.microphone, facts["canceller"], late=facts["late"])


def song(seconds: int) -> Reference:
    """Music, always the same, that a formula makes."""
    times_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    sound = compose(np.random.default_rng(SONG_SEED), seconds, RATE_HZ).at(times_s)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"unplay-song-{seconds}s.flac"
        soundfile.write(path, 0.9 * sound / np.max(np.abs(sound)), RATE_HZ)
        return make_reference(path)
