"""A restart in the middle of a recording: what a device still knows and has when it is back.

To the files it is a power cut, as nothing is closed or flushed; the card itself keeps its power.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unplay.board.faults import RefusedError, TransferError
from unplay.board.link import DeviceLink
from unplay.board.references import RATE_HZ
from unplay.board.syncing import MICROPHONE, SIDECAR
from unplay.errors import DeviceUnreachableError

CUT_S, RECORDED_S = 3, 30
"""When the recording is cut, and how long it would have been."""

HASHED_BYTES = 4 << 20
"""So much is compared by its hash, the smallest files first; the rest by its length."""

Measured = dict[str, "tuple[float, str] | str"]
"""Figures with what is to be said of them; or why one could not be measured."""

NAMES = ("restart_s", "settings_changed", "files_damaged", "recording_lost_s")


@dataclass(frozen=True)
class Contents:
    """What a device has. files: their bytes. digests: SHA-256 of some."""

    settings: Mapping[str, Any]
    files: Mapping[str, int]
    digests: Mapping[str, str]


def power_cycle(link: DeviceLink, reference: str) -> Measured:
    """Restart a device while it records, and compare. The recording is removed."""
    if "restart" not in link.welcome["calls"]:
        return dict.fromkeys(NAMES, "this version of the device cannot be told to restart")
    before = contents(link)
    id = _begin(link, reference)
    try:
        status, took_s = _restart(link)
        after = contents(link, before.digests)
    except DeviceUnreachableError as error:
        return dict.fromkeys(NAMES, f"the device did not come back: {error}")
    lost = _lost(link, id, status, after.files)
    with contextlib.suppress(RefusedError):  # where it did not outlive the restart
        link.rm(f"sessions/{id}")
    return {
        "restart_s": (took_s, ""),
        "settings_changed": _count(changed_settings(before, after)),
        "files_damaged": _count(damaged_files(before, after)),
        "recording_lost_s": lost,
    }


def contents(link: DeviceLink, hashed: Mapping[str, str] | None = None) -> Contents:
    """What is on a device now. hashed: names whose digests are wanted; None: the smallest."""
    files = link.ls()
    digests = {name: _digest(link, name) for name in (_smallest(files) if hashed is None else hashed)}
    return Contents(link.config_get(), files, digests)


def _smallest(files: Mapping[str, int]) -> Iterator[str]:
    room = HASHED_BYTES
    for name in sorted(files, key=lambda name: files[name]):
        room -= files[name]
        if room < 0:
            return
        yield name


def _digest(link: DeviceLink, name: str) -> str:
    """Empty where the device cannot read it to the end."""
    try:
        return link.sha256(name)
    except (RefusedError, TransferError):
        return ""


def _begin(link: DeviceLink, reference: str) -> str:
    """The session's id, when it has gone on for a while."""
    id = link.record({"reference": reference, "seconds": RECORDED_S})["id"]
    for status in link.status():
        if status["state"] == "idle" or status["samples"] >= CUT_S * RATE_HZ:
            break
    return id


def _restart(link: DeviceLink) -> tuple[dict[str, Any], float]:
    begun_s = time.monotonic()
    return link.restart(), time.monotonic() - begun_s


def changed_settings(before: Contents, after: Contents) -> list[str]:
    """Each as a text."""
    names = sorted({*before.settings, *after.settings})
    pairs = {name: (before.settings.get(name), after.settings.get(name)) for name in names}
    return [f"{name} was {was!r} and is {now!r}" for name, (was, now) in pairs.items() if was != now]


def damaged_files(before: Contents, after: Contents) -> list[str]:
    """Each as a text."""
    found = []
    for name, size in before.files.items():
        if name not in after.files:
            found.append(f"{name} is missing")
        elif after.files[name] != size:
            found.append(f"{name} had {size} bytes and has {after.files[name]}")
        elif before.digests.get(name) != after.digests.get(name):
            found.append(f"{name} has other content")
    return found


def _count(texts: list[str]) -> tuple[float, str]:
    return len(texts), "; ".join(texts)


def _lost(
    link: DeviceLink, id: str, status: Mapping[str, Any], files: Mapping[str, int]
) -> tuple[float, str] | str:
    """Seconds between the last sample that was recorded and the last that is still there."""
    if "samples" not in status:
        return "the recording had ended before" if status else "the device's answer was lost"
    name = f"sessions/{id}/{MICROPHONE}"
    kept = files.get(name, 0) // 2
    lost_s = (status["samples"] - kept) / RATE_HZ
    ended = _ended(link, id)
    if ended != "power":
        return f"the session says {ended!r} where it should say that power was lost"
    return lost_s, f"of {status['samples'] / RATE_HZ:.1f} s"


def _ended(link: DeviceLink, id: str) -> str:
    """How the session says that it ended; empty where its sidecar cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SIDECAR
        try:
            link.get(f"sessions/{id}/{SIDECAR}", path)
            return str(json.loads(path.read_text("utf-8")).get("ended", ""))
        except (RefusedError, ValueError):
            return ""
