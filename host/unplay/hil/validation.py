"""The standard run: what a device is worth, in figures, measured over its link.

The room should be quiet; what is said in it counts as noise, and lowers the echo reduction.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay.board import markers
from unplay.board.link import DeviceLink
from unplay.board.references import RATE_HZ, Reference, push
from unplay.board.syncing import MICROPHONE, RESIDUAL
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay.hil.floors import Floor, FloorsFile
from unplay.hil.power_cycle import power_cycle
from unplay.hil.takes import Take, expected_residual, fetch, record, song
from unplay.metrics import echo_reduction_db
from unplay.report import echo
from unplay.trends import Figure

FORMAT = 1
FULL_SCALE = 32768.0
LEARNING_S = 2.0
"""The canceller's, of the reference's beginning; not part of the echo reduction."""

SILENCE_S, START_S = 3, 3
FRAME_S = 0.1
SPEECH_HZ = (300.0, 3400.0)
BYTES_PER_SECOND = 4 * RATE_HZ
AROUND_S = 5
"""What a recording is longer than its song."""

BROKEN_OFF = "power"
"""What a sidecar says until a recording has ended well."""

Progress = Callable[[str, float], None]


FIGURES = {
    "noise_floor_dbfs": Figure("noise floor", "dBFS", 6.0, -1),
    "peak_dbfs": Figure("peak while music plays", "dBFS", 6.0, 0),
    "clipped_samples": Figure("clipped samples", "", 1.0, -1),
    "echo_to_noise_db": Figure("echo over noise floor", "dB", 6.0, 1),
    "response_spread_db": Figure("response, least to most, 300 to 3400 Hz", "dB", 6.0, -1),
    "direct_sound_samples": Figure("start offset, median", "samples", 0.0, 0),
    "marker_quality": Figure("marker over the rest, least", "", 0.0, 0),
    "start_offset_spread_samples": Figure("start offset, spread", "samples", 0.0, 0),
    "start_offset_error_samples": Figure("start offset, device against host", "samples", 1.0, -1),
    "starts_without_marker": Figure("starts without marker", "", 1.0, -1),
    "drift_ppm": Figure("drift", "ppm", 0.0, 0),
    "slips": Figure("slips", "", 1.0, -1),
    "slip_samples": Figure("sound against recording at the end", "samples", 0.0, 0),
    "dropped_frames": Figure("dropped frames", "", 1.0, -1),
    "load_percent": Figure("load", "%", 10.0, -1),
    "late_blocks": Figure("late blocks", "", 1.0, -1),
    "echo_reduction_db": Figure("echo reduction", "dB", 2.0, 1),
    "residual_differences": Figure("residual, samples unlike the host's", "", 1.0, -1),
    "slowest_write_ms": Figure("slowest write", "ms", 100.0, -1),
    "storage_errors": Figure("storage reads back wrong", "", 1.0, -1),
    "upload_kb_s": Figure("upload", "kB/s", 10.0, 1),
    "download_kb_s": Figure("download", "kB/s", 10.0, 1),
    "link_errors_per_mb": Figure("repeated packets", "per MB", 5.0, -1),
    "restart_s": Figure("restart, until it answers", "s", 2.0, -1),
    "settings_changed": Figure("settings unlike before the restart", "", 1.0, -1),
    "files_damaged": Figure("files unlike before the restart", "", 1.0, -1),
    "recording_lost_s": Figure("recording lost by the restart", "s", 0.5, -1),
}


@dataclass(frozen=True)
class Plan:
    """How long to look."""

    song_s: int = 20
    starts: int = 20
    long_s: int = 600
    link_bytes: int = 1 << 20


QUICK = Plan(song_s=8, starts=5, long_s=20, link_bytes=1 << 17)


@dataclass(frozen=True)
class Row:
    """A figure and what was asked of it. value: None where it could not be measured.

    note: why not, or what else is to be said.
    """

    name: str
    value: float | None
    floor: Floor | None
    note: str = ""

    @property
    def figure(self) -> Figure:
        return FIGURES[self.name]

    @property
    def passed(self) -> bool:
        return self.floor is None or (self.value is not None and self.floor.holds(self.value))

    @property
    def measured(self) -> str:
        return "" if self.value is None else self.figure.amount(self.value)

    def as_json(self) -> dict[str, Any]:
        limits = asdict(self.floor) if self.floor else {"least": None, "most": None}
        figure = {"title": self.figure.title, "unit": self.figure.unit}
        return {
            "name": self.name,
            **figure,
            "value": self.value,
            **limits,
            "passed": self.passed,
            "note": self.note,
        }


@dataclass(frozen=True)
class Validation:
    """A run. started: UTC, ISO 8601. start_offsets_samples: of each start; None where no marker was heard.

    taps (n_taps,): the echo path, gain per sample, from 10 ms before the direct sound on; empty without one.
    """

    device: str
    board: str
    port: str
    unplay: str
    firmware: str
    started: str
    took_s: float
    plan: Plan
    rows: list[Row]
    start_offsets_samples: list[int | None]
    long_s: float
    taps: NDArray[np.float64]

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]

    def as_json(self) -> dict[str, Any]:
        names = ("device", "board", "port", "unplay", "firmware", "started", "took_s", "long_s")
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in names},
            "plan": asdict(self.plan),
            "passed": not self.failed,
            "rows": [row.as_json() for row in self.rows],
            "start_offsets_samples": self.start_offsets_samples,
        }


def validate(
    link: DeviceLink, floors: FloorsFile, plan: Plan, progress: Progress = lambda doing, share: None
) -> Validation:
    """Measure a device and compare. What is recorded for it is removed from the device again.

    Raises DeviceUnreachableError; BadInputError where the device has no room.
    """
    begun_s, started = time.monotonic(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    progress("storage", 0.0)
    selftest = link.selftest()
    progress("link", 0.02)
    speeds = _speeds(link, plan.link_bytes)
    reference = song(plan.song_s)
    push(link, reference, select=False)
    info = link.info()
    long_s = _long_s(plan, info["free_bytes"])
    progress("silence", 0.08)
    silent = _take(link, "", SILENCE_S)
    progress("music", 0.12)
    music = _take(link, reference.name)
    starts = []
    for k in range(plan.starts):
        progress(f"start {k + 1} of {plan.starts}", 0.2 + 0.3 * k / plan.starts)
        starts.append(_take(link, reference.name, START_S, (MICROPHONE,)))

    def tell(n_samples: int) -> None:
        progress(f"recording for {long_s} s", 0.5 + 0.3 * min(n_samples / (RATE_HZ * long_s), 1.0))

    long = _take(link, reference.name, long_s, (MICROPHONE,), tell)
    progress("power cycle", 0.85)
    cycle = power_cycle(link, reference.name)
    taps = echo_path(music)
    values = {
        **_storage(selftest),
        **speeds,
        **levels(silent, music),
        **_response(taps, music),
        **offsets([music, *starts]),
        **losses([silent, music, *starts, long]),
        **clock(long),
        **canceller(music, reference),
        **cycle,
    }
    asked = floors.of(info["device"], info["board"])
    return Validation(
        **{name: info[name] for name in ("device", "board", "unplay", "firmware")},
        port=link.port.name,
        started=started,
        took_s=round(time.monotonic() - begun_s, 1),
        plan=plan,
        rows=[_row(name, values[name], asked.get(name)) for name in FIGURES],
        start_offsets_samples=[take.facts["start_offset_samples"] for take in starts],
        long_s=len(long.microphone) / long.facts["rate_hz"],
        taps=taps,
    )


def _take(
    link: DeviceLink,
    reference: str,
    seconds: int = 0,
    files: tuple[str, ...] = (MICROPHONE, RESIDUAL),
    progress: Callable[[int], None] = lambda n_samples: None,
) -> Take:
    """Record and fetch. Raises DeviceUnreachableError where the device broke off."""
    id = record(link, reference, seconds, progress)
    take = fetch(link, id, files)
    if take.facts["ended"] == BROKEN_OFF:
        last = (link.log() or [""])[-1]
        raise DeviceUnreachableError(f"recording {id} broke off, and the device's log ends with {last!r}.")
    return take


Value = float | str | tuple[float, str] | None
Values = dict[str, Value]
"""Figures by name, or with what is to be said of them; a text alone says why one could not be measured."""


def _row(name: str, value: Value, floor: Floor | None) -> Row:
    if isinstance(value, str):
        return Row(name, None, floor, value)
    number, note = value if isinstance(value, tuple) else (value, "")
    return Row(name, None if number is None else round(float(number), 4) + 0.0, floor, note)  # no −0


def _long_s(plan: Plan, free_bytes: int) -> int:
    room_s = int(0.9 * free_bytes / BYTES_PER_SECOND)
    if room_s < plan.song_s + AROUND_S:
        raise BadInputError(
            f"the device has room for {room_s} s: fetch what is on it with `unplay sync --remove`, then "
            "try again."
        )
    return min(plan.long_s, room_s)


def _storage(selftest: dict[str, Any]) -> Values:
    storage = selftest["storage"]
    return {
        "slowest_write_ms": storage["slowest_write_ms"],
        "storage_errors": 0 if storage["reads_back"] else 1,
    }


def _speeds(link: DeviceLink, n_bytes: int) -> Values:
    """A file of noise up and down; the link itself verifies it."""
    name, losses = "references/unplay-link.bin", link.channel.losses
    with tempfile.TemporaryDirectory() as folder:
        sent, came = Path(folder) / "sent", Path(folder) / "came"
        sent.write_bytes(os.urandom(n_bytes))
        up_s = _seconds(lambda: link.put(sent, name))
        down_s = _seconds(lambda: link.get(name, came))
    link.rm(name)
    return {
        "upload_kb_s": n_bytes / 1000 / up_s,
        "download_kb_s": n_bytes / 1000 / down_s,
        "link_errors_per_mb": (link.channel.losses - losses) / (2 * n_bytes / 1e6),
    }


def _seconds(do: Callable[[], Any]) -> float:
    begun_s = time.monotonic()
    do()
    return time.monotonic() - begun_s


def levels(silent: Take, music: Take) -> Values:
    """Noise floor: the quietest tenth of the frames in silence; level and peak while music plays."""
    rate_hz = silent.facts["rate_hz"]
    n = round(FRAME_S * rate_hz)
    quiet = silent.microphone[: len(silent.microphone) // n * n].reshape(-1, n).astype(np.float64)
    floor_dbfs = _db(float(np.quantile(np.var(quiet, axis=1), 0.1)) / FULL_SCALE**2)
    peak = float(np.max(np.abs(music.microphone.astype(np.int32))))
    values: Values = {
        "noise_floor_dbfs": floor_dbfs,
        "peak_dbfs": 2 * _db(peak / FULL_SCALE),
    }
    heard = music_part(music)
    values["echo_to_noise_db"] = (
        NO_MARKER
        if heard is None
        else _db(float(np.var(music.microphone[heard])) / FULL_SCALE**2) - floor_dbfs
    )
    return values


NO_MARKER = "no marker was heard"


def music_part(take: Take, after_s: float = 0.0) -> slice | None:
    """The samples in which the microphone hears the reference, from after_s on."""
    delay, rate_hz = take.facts["reference_delay_samples"], take.facts["rate_hz"]
    if delay is None:
        return None
    return slice(delay + round(after_s * rate_hz), delay + take.facts["reference_played_samples"])


def echo_path(take: Take) -> NDArray[np.float64]:
    """Taps (PERIOD,) from what was played to the microphone, by the marker; none where it was not heard.

    The first is 10 ms before the direct sound.
    """
    offset = take.facts["start_offset_samples"]
    if offset is None:
        return np.zeros(0)
    path = markers.response(take.microphone, offset, markers.marker.PERIODS - 1)
    lead = round(echo.LEAD_S * take.facts["rate_hz"])
    return np.roll(path, lead) / take.facts["settings"]["marker_q15"]


def _response(taps: NDArray[np.float64], take: Take) -> Values:
    """How unlike the third octaves of speech are."""
    if not len(taps):
        return {"response_spread_db": NO_MARKER}
    path = echo.of_taps(taps, take.facts["rate_hz"])
    low_hz, high_hz = SPEECH_HZ
    inside = path.response_db[(path.bands_hz >= low_hz) & (path.bands_hz <= high_hz)]
    per_third = echo.BANDS_PER_OCTAVE // 3
    thirds = 10 ** (inside[: len(inside) // per_third * per_third].reshape(-1, per_third) / 10)
    means_db = 10 * np.log10(thirds.mean(axis=1))
    return {"response_spread_db": float(np.ptp(means_db))}


def offsets(takes: Sequence[Take]) -> Values:
    """Start offsets as the device found them, and against those that the host finds in the same sound."""
    found = [take.facts["start_offset_samples"] for take in takes]
    heard = [take for take in takes if take.facts["start_offset_samples"] is not None]
    values: Values = {"starts_without_marker": len(takes) - len(heard)}
    named = (
        "direct_sound_samples",
        "marker_quality",
        "start_offset_spread_samples",
        "start_offset_error_samples",
    )
    if not heard:
        return {**values, **dict.fromkeys(named, NO_MARKER)}
    known = [offset for offset in found if offset is not None]
    errors = [
        abs(markers.start_offset(take.microphone) - take.facts["start_offset_samples"]) for take in heard
    ]
    return {
        **values,
        "direct_sound_samples": float(np.median(known)),
        "marker_quality": min(take.facts["marker_quality"] for take in heard),
        "start_offset_spread_samples": max(known) - min(known),
        "start_offset_error_samples": max(errors),
    }


def losses(takes: Sequence[Take]) -> Values:
    """What went wrong in time, in all recordings together; the load of the last, the longest."""
    names = ("slips", "dropped_frames", "late_blocks", "clipped_samples")
    return {
        **{name: sum(abs(take.facts[name]) for take in takes) for name in names},
        "load_percent": takes[-1].facts.get("load_percent", "this version of the device does not say"),
    }


def clock(take: Take) -> Values:
    """Whether sound and recording stay together, from one marker to the other."""
    facts = take.facts
    values: Values = {}
    slip, end_at = facts["slip_samples"], facts["end_marker_at_samples"]
    values["slip_samples"] = "the second marker was not heard" if slip is None else slip
    if slip is None or facts["start_offset_samples"] is None:
        values["drift_ppm"] = "a marker was not heard"
    elif slip:
        values["drift_ppm"] = "samples were lost"
    else:
        values["drift_ppm"] = markers.drift_ppm(take.microphone, facts["start_offset_samples"], end_at)
    return values


def canceller(take: Take, reference: Reference) -> Values:
    """What the device took out, and whether it is what the host would have taken out, sample for sample."""
    heard = music_part(take, LEARNING_S)
    if heard is None or take.residual is None:
        return dict.fromkeys(("echo_reduction_db", "residual_differences"), NO_MARKER)
    expected = expected_residual(take, reference.pcm)
    recorded, left = (sound[heard].astype(np.float64) for sound in (take.microphone, take.residual))
    reduction: float | str = "nothing was heard"
    if recorded.any() and left.any():
        reduction = echo_reduction_db(recorded, left)
    differences: float | str = int(np.count_nonzero(expected != take.residual))
    if take.facts["late_blocks"] > len(take.facts["late"]):
        differences = "more blocks were late than the device could note"
    return {"echo_reduction_db": reduction, "residual_differences": differences}


def _db(ratio: float) -> float:
    return float(10 * np.log10(ratio + 1e-12))
