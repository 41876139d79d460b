"""Examines a device: a card and memory test, a short recording of a known sound, and what that tells."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay.board.diagnosis import (
    LEAST_RAM_BYTES,
    RATE_HZ,
    SLOWEST_WRITE_MS,
    Finding,
    diagnose,
    finding,
    is_dead,
)
from unplay.board.faults import RefusedError
from unplay.board.link import DeviceLink
from unplay.board.references import Reference, push
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay_shared import faults

PROBE = "unplay-doctor"
PROBE_S = 1.5
PROBE_DB = -14.0
OTHER_SLOT = {"left": "right", "right": "left"}

HIDES_SOUND = ("no-card", "card-damaged")
OF_SLOW_CARD = ("slip", "late", "card-pauses", "wrong-rate")
"""What a card that is found slow explains."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Examination:
    """What was found. findings: empty where all is well."""

    port: str
    board: str
    findings: list[Finding]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(link: DeviceLink, progress: Progress = lambda *_: None) -> Examination:
    """Test a device that is idle; takes about ten seconds, in which the room should be quiet.

    Plays at the volume that is set. The probe and its recording are removed. Raises BadInputError where the
    device records, DeviceUnreachableError where the link fails.
    """
    if link.call("status")["state"] != "idle":
        raise BadInputError("the device is recording; end it with `unplay device stop`, then repeat")
    progress("card and memory", 0.0)
    found: list[Finding] = []
    try:
        found += _storage(link)
        if not any(entry.code in HIDES_SOUND for entry in found):
            found += _sound(link, progress)
    except RefusedError as error:
        found.append(_of_refusal(link, error))
    if any(entry.code == "card-slow" for entry in found):
        found = [entry for entry in found if entry.code not in OF_SLOW_CARD]
    return Examination(link.port.name, str(link.welcome.get("board", "")), found)


def _of_refusal(link: DeviceLink, error: RefusedError) -> Finding:
    """What a refusal tells of card or memory. Raises the error where it tells something else."""
    number, kind = error.detail.get("errno"), error.detail.get("kind")
    if error.code == faults.NO_CARD:
        return finding("no-card")
    if error.code == faults.FULL or (error.code, number) == (faults.STORAGE, errno.ENOSPC):
        return finding("card-full")
    if error.code == faults.STORAGE:
        return finding("card-errors", reason=os.strerror(number) if isinstance(number, int) else "unknown")
    if error.code in (faults.BAD_HASH, faults.NOT_FOUND):  # what was there a moment ago
        return finding("card-damaged")
    if (error.code, kind) == (faults.BUG, "MemoryError"):
        return finding("memory", bytes=link.info()["free_ram_bytes"])
    raise error


def _storage(link: DeviceLink) -> list[Finding]:
    result = link.selftest()
    found = []
    storage, ram_bytes = result["storage"], result["free_ram_bytes"]
    if not storage["reads_back"]:
        found.append(finding("card-damaged"))
    if storage["slowest_write_ms"] > SLOWEST_WRITE_MS:
        found.append(finding("card-slow", ms=storage["slowest_write_ms"]))
    if ram_bytes is not None and ram_bytes < LEAST_RAM_BYTES:  # None: a computer, which has enough
        found.append(finding("memory", bytes=ram_bytes))
    if result.get("lacks_canceller"):
        found.append(finding("no-canceller"))
    return found


def _sound(link: DeviceLink, progress: Progress) -> list[Finding]:
    settings = link.config_get()
    slot = settings["slot"]
    progress("playing and recording", 0.2)
    try:
        push(link, probe(), select=False)
        microphone, session = _record(link, {"reference": PROBE, "seconds": 0})
    finally:
        for name in (f"references/{PROBE}.pcm", f"references/{PROBE}.json"):
            with contextlib.suppress(RefusedError):
                link.rm(name)
    progress("looking at it", 0.9)
    if not session:
        return [finding("card-damaged")]
    if session["ended"] == "power":
        return [_broke_off(link, session["id"])]
    other_lives = is_dead(microphone) and _other_slot_lives(link, slot)
    return diagnose(microphone, session, settings["block"], slot, other_lives)


def _broke_off(link: DeviceLink, id: str) -> Finding:
    """Why a recording did. Raises DeviceUnreachableError where neither card nor memory explain it."""
    reason = _why(link, id)
    number = re.match(r"OSError\((\d+)", reason)
    if number:
        return finding("card-errors", reason=os.strerror(int(number[1])))
    if reason.startswith("MemoryError"):
        return finding("memory", bytes=link.info()["free_ram_bytes"])
    raise DeviceUnreachableError(f"the recording broke off ({reason}); `unplay device log` says more")


def _why(link: DeviceLink, id: str) -> str:
    """What the device's log says of a recording that broke off; empty where it did not."""
    begin = f"{id} broke off: "
    return next((line.partition(begin)[2] for line in reversed(link.log()) if begin in line), "")


def _other_slot_lives(link: DeviceLink, slot: str) -> bool:
    link.config_set({"slot": OTHER_SLOT[slot]})
    try:
        return not is_dead(_record(link, {"reference": "", "seconds": 1})[0])
    finally:
        link.config_set({"slot": slot})


def _record(link: DeviceLink, options: dict[str, Any]) -> tuple[NDArray[np.int16], dict[str, Any]]:
    """The microphone's samples and the sidecar; the session is removed.

    No samples where it broke off, and of the sidecar what matters; nothing where it cannot be read.
    """
    name = link.record(options)["id"]
    for status in link.status():
        if status["state"] == "idle":
            break
    if _why(link, name):
        with contextlib.suppress(RefusedError):
            link.rm(f"sessions/{name}")
        return np.zeros(0, np.int16), {"id": name, "ended": "power"}
    with tempfile.TemporaryDirectory() as folder:
        microphone, sidecar = Path(folder) / "mic.pcm", Path(folder) / "session.json"
        link.get(f"sessions/{name}/mic.pcm", microphone)
        link.get(f"sessions/{name}/session.json", sidecar)
        link.rm(f"sessions/{name}")
        try:
            return np.fromfile(microphone, "<i2"), json.loads(sidecar.read_text())
        except ValueError:
            return np.zeros(0, np.int16), {}


def probe() -> Reference:
    """Noise like speech: 100 to 4000 Hz, with a level that no loudspeaker minds."""
    n = round(PROBE_S * RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    hz = np.fft.rfftfreq(n, 1 / RATE_HZ)
    sound = np.fft.irfft(np.where((hz > 100) & (hz < 4000), spectrum, 0), n)
    pcm = (
        np.round(sound * (10 ** (PROBE_DB / 20) * 32768 / np.std(sound))).clip(-32768, 32767).astype(np.int16)
    )
    digest = hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()
    return Reference(PROBE, n, RATE_HZ, digest, 1.0, PROBE, digest, pcm)
