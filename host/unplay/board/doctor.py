"""Examines a device: a card and memory test, a short recording of a known sound, and what that tells."""

from __future__ import annotations

import hashlib
import json
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
from unplay.errors import BadInputError
from unplay_shared import faults

PROBE = "unplay-doctor"
PROBE_S = 1.5
PROBE_DB = -14.0
OTHER_SLOT = {"left": "right", "right": "left"}

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
    found = _storage(link)
    if not any(entry.code == "no-card" for entry in found):
        found += _sound(link, progress)
    return Examination(link.port.name, str(link.welcome.get("board", "")), found)


def _storage(link: DeviceLink) -> list[Finding]:
    try:
        result = link.selftest()
    except RefusedError as error:
        if error.code == faults.NO_CARD:
            return [finding("no-card")]
        raise
    found = []
    storage = result["storage"]
    if not storage["reads_back"]:
        found.append(finding("card-damaged"))
    if storage["slowest_write_ms"] > SLOWEST_WRITE_MS:
        found.append(finding("card-slow", ms=storage["slowest_write_ms"]))
    if result["free_ram_bytes"] < LEAST_RAM_BYTES:
        found.append(finding("memory", bytes=result["free_ram_bytes"]))
    return found


def _sound(link: DeviceLink, progress: Progress) -> list[Finding]:
    settings = link.config_get()
    slot = settings["slot"]
    progress("playing and recording", 0.2)
    push(link, probe(), select=False)
    try:
        microphone, session = _record(link, {"reference": PROBE, "seconds": 0})
    finally:
        for name in (f"references/{PROBE}.pcm", f"references/{PROBE}.json"):
            link.rm(name)
    progress("looking at it", 0.9)
    other_lives = is_dead(microphone) and _other_slot_lives(link, slot)
    return diagnose(microphone, session, settings["block"], slot, other_lives)


def _other_slot_lives(link: DeviceLink, slot: str) -> bool:
    link.config_set({"slot": OTHER_SLOT[slot]})
    try:
        return not is_dead(_record(link, {"reference": "", "seconds": 1})[0])
    finally:
        link.config_set({"slot": slot})


def _record(link: DeviceLink, options: dict[str, Any]) -> tuple[NDArray[np.int16], dict[str, Any]]:
    """The microphone's samples and the sidecar; the session is removed."""
    name = link.record(options)["id"]
    for status in link.status():
        if status["state"] == "idle":
            break
    with tempfile.TemporaryDirectory() as folder:
        microphone, sidecar = Path(folder) / "mic.pcm", Path(folder) / "session.json"
        link.get(f"sessions/{name}/mic.pcm", microphone)
        link.get(f"sessions/{name}/session.json", sidecar)
        link.rm(f"sessions/{name}")
        return np.fromfile(microphone, "<i2"), json.loads(sidecar.read_text())


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
