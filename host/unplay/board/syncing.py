"""From devices into the library: what is new, verified, resumed where it broke off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unplay.board.link import DeviceLink
from unplay.errors import BadInputError
from unplay.sessions import Library, Pcm, Session
from unplay_shared import kernels, marker

INCOMING = ".incoming"
"""Folder of the library for files under way."""

SIDECAR, MICROPHONE, RESIDUAL = "session.json", "mic.pcm", "residual.pcm"
Progress = Callable[[str, int, int], None]
"""Told what is fetched, the bytes that are there and those there will be."""


@dataclass(frozen=True)
class Fetched:
    """What a sync brought. skipped: sessions that could not be taken, and why."""

    device: str
    sessions: list[Session]
    skipped: dict[str, str]


def sync(
    link: DeviceLink,
    library: Library,
    *,
    remove: bool = False,
    progress: Progress = lambda name, done, size: None,
) -> Fetched:
    """Fetch all sessions of a device that the library does not have.

    remove: from the device, once they are in the library. Raises DeviceUnreachableError; what has arrived
    stays, and the next sync goes on there.
    """
    link.set_time()
    device = link.welcome["device"]
    held = link.ls()
    names = sorted({name.split("/")[1] for name in held if name.startswith("sessions/")})
    brought, skipped = [], {}
    for name in names:
        if f"sessions/{name}/{SIDECAR}" not in held or link.call("status").get("id") == name:
            skipped[name] = "it is being recorded"
            continue
        try:
            if not library.has(device, name):
                brought.append(_fetch(link, library, device, name, held, progress))
        except (BadInputError, ValueError, KeyError) as error:
            skipped[name] = str(error)
            continue
        if remove:
            link.rm(f"sessions/{name}")
    return Fetched(device, brought, skipped)


def _fetch(
    link: DeviceLink, library: Library, device: str, name: str, held: Mapping[str, int], progress: Progress
) -> Session:
    incoming = library.path / INCOMING / device / name
    incoming.mkdir(parents=True, exist_ok=True)

    def get(source: str, target: Path) -> Path:
        if not target.exists():
            link.get(source, target, lambda done, size: progress(source, done, size))
        return target

    def sound(file: str) -> Pcm | None:
        source = f"sessions/{name}/{file}"
        return read_pcm(get(source, incoming / file)) if source in held else None

    facts = json.loads(get(f"sessions/{name}/{SIDECAR}", incoming / SIDECAR).read_text("utf-8"))
    microphone, residual = sound(MICROPHONE), sound(RESIDUAL)
    if microphone is None or not len(microphone):
        raise BadInputError("nothing was recorded before it ended")
    if residual is not None:  # a power cut may leave the two unlike
        microphone, residual = _same_length(microphone, residual)
    facts["frames"] = len(microphone)
    played = _played(link, library, facts, held, get)
    session = library.add(device, name, facts, microphone, residual, played)
    shutil.rmtree(incoming)
    return session


def _same_length(a: Pcm, b: Pcm) -> tuple[Pcm, Pcm]:
    n = min(len(a), len(b))
    return a[:n], b[:n]


def _played(
    link: DeviceLink,
    library: Library,
    facts: Mapping[str, Any],
    held: Mapping[str, int],
    get: Callable[[str, Path], Path],
) -> Pcm | None:
    """All that was played; None where nothing was, or the device has the reference no more."""
    reference = facts["reference"]
    if reference is None:
        return None
    source = f"references/{reference['name']}.pcm"
    if source not in held:
        return None
    folder = library.path / INCOMING / "references"
    folder.mkdir(parents=True, exist_ok=True)
    pcm = read_pcm(get(source, folder / f"{reference['name']}-{reference['sha256'][:16]}.pcm"))
    library.add_reference(reference["name"], pcm, facts["rate_hz"])
    return programme(facts, pcm)


def programme(facts: Mapping[str, Any], reference: Pcm) -> Pcm:
    """What a device played in a session (n_samples,): marker, silence, reference, silence, marker.

    n_samples is that of the recording; the first sample is the first marker's.
    """
    n_samples = facts["frames"]
    played = np.zeros(n_samples, np.int16)
    _insert(played, facts["reference_at_samples"], reference[: facts["reference_played_samples"]])
    level = facts["settings"]["marker_q15"]
    _insert(played, 0, marker_sound(marker.PERIODS, level))
    if facts["end_marker_at_samples"] is not None:
        _insert(played, facts["end_marker_at_samples"], marker_sound(marker.END_PERIODS, level))
    return played


def marker_sound(n_periods: int, level: int) -> Pcm:
    chips = kernels.samples(n_periods * marker.PERIOD)
    kernels.chips(chips, 0, len(chips), marker.FIRST_STATE, level)
    return np.array(chips, np.int16)


def _insert(sound: Pcm, start: int, piece: Pcm) -> None:
    fits = piece[: max(0, len(sound) - start)]
    sound[start : start + len(fits)] = fits


def read_pcm(path: Path) -> Pcm:
    """16-bit little-endian samples (n_samples,) of a file; half a sample at its end is left out."""
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)
