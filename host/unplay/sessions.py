"""The library: what devices have recorded, as folders on disk.

    LIBRARY/DEVICE/ID/   session.json     what the device knew (format 1), as it wrote it
                         mic.flac         the recording
                         residual.flac    what the device's own canceller left, if it ran
                         played.flac      markers and reference, as the device played them
                         near_end.flac  removed.flac  log.json  report.html      after cleaning
    LIBRARY/references/NAME.flac          what was played
    LIBRARY/validations/DEVICE/TIME.json  what `unplay validate` measured

A device plays and records on one clock, and knows when: its sessions are cleaned without a search.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from unplay.audio import AudioFormat, AudioWriter
from unplay.cleaning import Progress, Result, clean
from unplay.errors import BadInputError, NotConfidentError, ReferenceAbsentError
from unplay.trends import Figure, worse_by

if TYPE_CHECKING:
    from unplay.removal.alignment import Alignment

Pcm = NDArray[np.int16]

FORMAT = 1
REFERENCES = "references"
VALIDATIONS = "validations"
"""Of devices, beside their sessions: `unplay.hil.history`."""

RECORDED = ("mic.flac", "residual.flac", "played.flac")
CLEANED = ("near_end.flac", "removed.flac", "log.json", "report.html")
ENDED_WELL = ("length", "button", "link")
PIECE = 1 << 20
"""Samples written at a time."""


@dataclass(frozen=True)
class Session:
    """One recording. facts: session.json. log: of its cleaning, or None. problem: why it can't be used."""

    device: str
    id: str
    folder: Path
    facts: Mapping[str, Any]
    log: Mapping[str, Any] | None
    problem: str | None = None

    @property
    def name(self) -> str:
        return f"{self.device}/{self.id}"

    @property
    def duration_s(self) -> float:
        return self.facts["frames"] / self.facts["rate_hz"] if self.facts else 0.0

    @property
    def confidence(self) -> float | None:
        """Of its cleaning; None where there was none or it failed."""
        return None if self.log is None or "error" in self.log else self.log["confidence"]

    @property
    def reduction_db(self) -> float | None:
        """By how much it is less loud after cleaning."""
        return None if self.log is None else self.log.get("reduction_db")

    @property
    def reason(self) -> str | None:
        """Why it is damaged, or could not be cleaned."""
        return self.problem or (self.log or {}).get("error")

    @property
    def state(self) -> str:
        """damaged, not cleaned, cleaned, or why it could not be: absent, not confident."""
        if self.problem is not None:
            return "damaged"
        if self.log is None:
            return "not cleaned"
        if "error" not in self.log:
            return "cleaned"
        return "not confident" if self.log["found"] else "reference absent"

    @property
    def badness(self) -> tuple[bool, bool, bool, bool, float]:
        """The highest is worst: damaged, could not be cleaned, ended early, not cleaned, confidence."""
        return (
            self.problem is not None,
            self.log is not None and "error" in self.log,
            bool(self.facts) and self.facts["ended"] not in ENDED_WELL,
            self.log is None,
            -(self.confidence or 0.0),
        )


@dataclass(frozen=True)
class Trend:
    """One figure of a device's sessions over time, the oldest first; None where a session has none.

    worse: how much worse the newest is than it was, in the figure's unit, as `unplay.trends.worse_by` says.
    """

    device: str
    figure: Figure
    values: list[float | None]
    worse: float | None


FIGURES: dict[Figure, Callable[[Session], float | None]] = {
    Figure("confidence", "", 0.05, 1): lambda session: session.confidence,
    Figure("reduction", "dB", 2.0, 1): lambda session: session.reduction_db,
    Figure("start offset", "samples", 0.0, 0): lambda session: session.facts["start_offset_samples"],
    Figure("clipped samples", "", 1.0, -1): lambda session: session.facts["clipped_samples"],
    Figure("late blocks", "", 1.0, -1): lambda session: session.facts["late_blocks"],
    Figure("dropped frames", "", 1.0, -1): lambda session: session.facts["dropped_frames"],
}
"""What is worth watching on a device: how well its sessions clean, its timing, its level, its load."""

NEEDED = (
    "rate_hz",
    "frames",
    "ended",
    "started_s",
    "reference",
    "start_offset_samples",
    "reference_delay_samples",
    "reference_played_samples",
    "slip_samples",
    "clipped_samples",
    "late_blocks",
    "dropped_frames",
)
"""Of session.json, what is used here; None where a device cannot know it."""


KINDS = dict.fromkeys(NEEDED, (int, float, NoneType)) | {
    "rate_hz": int,
    "frames": int,
    "ended": str,
    "reference": (dict, NoneType),
}
"""What session.json has for each; everything but these is a number, or None."""


def default_library() -> Path:
    """Where this system keeps what programs store for a user."""
    from platformdirs import user_data_path

    return user_data_path("unplay", appauthor=False) / "sessions"


class Library:
    """Sessions in a folder, which is made when the first is added. A session is there whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def sessions(self, device: str | None = None) -> list[Session]:
        """All, or those of one device, worst first."""
        found = [self._read(folder) for folder in self._folders() if device in (None, folder.parent.name)]
        return sorted(found, key=lambda session: session.badness, reverse=True)

    def session(self, name: str) -> Session:
        """The one whose id, or DEVICE/ID, begins with `name`. Raises BadInputError for none or several."""
        folders = list(self._folders())
        found = [
            folder
            for folder in folders
            if folder.name.startswith(name) or f"{folder.parent.name}/{folder.name}".startswith(name)
        ]
        exact = [f for f in found if name in (f.name, f"{f.parent.name}/{f.name}")]
        found = exact or found
        if len(found) == 1:
            return self._read(found[0])
        if not found:
            raise BadInputError(
                f"There is no session {name!r} among the {len(folders)} in {self.path}: "
                "`unplay sessions list` names them."
            )
        names = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in found[:4])
        raise BadInputError(
            f"{name!r} is the beginning of {len(found)} sessions ({names}): write more of it."
        )

    def has(self, device: str, id: str) -> bool:
        return (self._folder(device, id) / "session.json").is_file()

    def add(
        self,
        device: str,
        id: str,
        session: Mapping[str, Any],
        mic: Pcm,
        residual: Pcm | None = None,
        played: Pcm | None = None,
    ) -> Session:
        """Store a session: its session.json, and its sounds (n_samples,) at its rate_hz.

        played: all that was played, markers and reference; else the reference alone is looked for.

        Raises BadInputError where it is there already or is not of a format that is known here.
        """
        _check_format(session, f"session {id} of {device}")
        folder = self._folder(device, id)
        if self.has(device, id):
            raise BadInputError(f"{folder} exists already: remove it first.")
        with _NewFolder(folder) as new:
            for name, sound in zip(RECORDED, (mic, residual, played), strict=True):
                if sound is not None:
                    _write_flac(new / name, sound, session["rate_hz"])
            text = json.dumps(dict(session), indent=2, ensure_ascii=False, allow_nan=False)
            (new / "session.json").write_text(f"{text}\n", "utf-8")
        return self._read(folder)

    def add_reference(self, name: str, samples: Pcm, rate_hz: int) -> Path:
        """Store what was played (n_samples,). Another sound of the same name is kept beside it."""
        path = self._reference_path(name, sha256_of_pcm(samples))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_flac(path, samples, rate_hz)
        return path

    def reference(self, session: Session) -> Path:
        """The file that was played in a session. Raises BadInputError where there is none."""
        played = session.facts["reference"]
        if played is None:
            raise BadInputError(f"Nothing was played in {session.name}: there is nothing to take out of it.")
        path = self._reference_path(played["name"], played["sha256"])
        if not path.exists():
            raise BadInputError(
                f"{self.path / REFERENCES} has no {played['name']!r} of the sound that was played in "
                f"{session.name} (SHA-256 {played['sha256'][:12]}…): fetch it with `unplay sync`."
            )
        return path

    def clean(self, session: Session, *, method: str = "auto", progress: Progress | None = None) -> Result:
        """Clean a session, by what the device knows of its clock and delay; replaces an earlier cleaning.

        Raises as `unplay.clean`; the log then says why, and no earlier result is left beside it.
        """
        if session.problem is not None:
            raise BadInputError(session.problem)
        outputs = {name: session.folder / name for name in CLEANED}
        played = session.folder / "played.flac"
        try:
            return clean(
                played if played.exists() else self.reference(session),
                session.folder / "mic.flac",
                outputs["near_end.flac"],
                removed=outputs["removed.flac"],
                report=outputs["report.html"],
                log=outputs["log.json"],
                method=method,
                warp=False,
                alignment=known_alignment(session.facts, played.exists()),
                force=True,
                progress=progress,
            )
        except (ReferenceAbsentError, NotConfidentError):
            for name in CLEANED:
                if name != "log.json":
                    outputs[name].unlink(missing_ok=True)
            raise

    def export(self, session: Session, folder: str | Path) -> Path:
        """Copy a session into a new folder `DEVICE-ID` within `folder`: sounds as WAV, the rest as it is."""
        target = Path(folder) / f"{session.device}-{session.id}"
        if target.exists():
            raise BadInputError(f"{target} exists already: name another folder.")
        sounds = sorted(session.folder.glob("*.flac"))
        with _NewFolder(target) as new:
            for sound in sounds:
                _to_wav(sound, new / f"{sound.stem}.wav")
            if session.facts and session.facts["reference"] is not None:
                _to_wav(self.reference(session), new / "reference.wav")
            for path in session.folder.glob("*.json"):
                shutil.copy(path, new)
        return target

    def remove(self, session: Session) -> None:
        """Forget a session and all that was made of it."""
        doomed = session.folder.with_name(f".{session.id}.removed")
        session.folder.replace(doomed)
        shutil.rmtree(doomed)

    def trends(self, device: str | None = None) -> list[Trend]:
        """Every figure of every device over time."""
        kept = by_device(self.sessions(device))
        return [trend for name, history in kept.items() for trend in trends_of(name, history)]

    def _folders(self) -> Iterator[Path]:
        for path in sorted(self.path.glob("*/*/session.json")):
            if not any(part.startswith(".") for part in path.relative_to(self.path).parts):
                yield path.parent

    def _folder(self, device: str, id: str) -> Path:
        return self.path / folder_name(device) / folder_name(id)

    def _reference_path(self, name: str, sha256: str) -> Path:
        """NAME.flac where that is the sound of this SHA-256 or absent; else a name that tells them apart."""
        path = self._folder(REFERENCES + "_", name).parent.with_name(REFERENCES) / f"{name}.flac"
        if path.exists() and sha256_of_pcm(_read_pcm(path)) != sha256:
            return path.with_name(f"{name}-{sha256[:8]}.flac")
        return path

    def _read(self, folder: Path) -> Session:
        device, id = folder.parent.name, folder.name
        try:
            facts = json.loads((folder / "session.json").read_text("utf-8"))
            _check_format(facts, str(folder))
        except (OSError, ValueError, BadInputError) as error:
            return Session(device, id, folder, {}, None, f"{folder} cannot be read: {error}")
        return Session(device, id, folder, facts, _read_log(folder / "log.json"))


def by_device(sessions: Iterable[Session]) -> dict[str, list[Session]]:
    """Those of each device that can be read, the oldest first."""
    found: dict[str, list[Session]] = {}
    for session in sorted(sessions, key=lambda s: (s.device, s.facts.get("started_s") or 0, s.id)):
        if session.problem is None:
            found.setdefault(session.device, []).append(session)
    return found


def trends_of(device: str, history: Sequence[Session]) -> list[Trend]:
    """Of each figure of its sessions, the oldest first."""
    tracks = [(figure, [value_of(session) for session in history]) for figure, value_of in FIGURES.items()]
    return [Trend(device, figure, values, worse_by(values, figure)) for figure, values in tracks]


def folder_name(name: str) -> str:
    """A name that a device gave, where it can be that of a folder. Raises BadInputError."""
    if not name or name.startswith(".") or set(name) & set('/\\<>:"|?*') or name in (REFERENCES, VALIDATIONS):
        raise BadInputError(f"{name!r} cannot be the name of a folder: the device must use another.")
    return name


def known_alignment(facts: Mapping[str, Any], with_markers: bool = False) -> Alignment | None:
    """Where the reference plays in a session, as the device knows; None where it doesn't.

    One clock: recording sample n carries reference sample n − reference_delay_samples; or, with_markers,
    sample n − start_offset_samples of all that was played.
    """
    from unplay.removal.alignment import Alignment, Stretch

    delay, n_played = facts["reference_delay_samples"], facts["reference_played_samples"]
    if with_markers:
        delay, n_played = facts["start_offset_samples"], facts["frames"]
    if delay is None or facts["slip_samples"] or facts["dropped_frames"]:
        return None
    start, stop = max(0, delay), min(facts["frames"], delay + n_played)
    if stop <= start:
        return None
    knots = np.array([start, stop], float)
    return Alignment(
        found=True,
        reason=f"the device played it on the clock it recorded on, heard from sample {delay} on",
        stretches=(Stretch(start, stop, knots, knots - delay),),
        drift_track=np.array([[(start + stop) / 2 / facts["rate_hz"], 0.0]]),
        delay_s=delay / facts["rate_hz"],
    )


def sha256_of_pcm(samples: Pcm) -> str:
    """The SHA-256 of samples (n_samples,) as a device stores them: little-endian, 16 bits."""
    return hashlib.sha256(np.asarray(samples, "<i2").tobytes()).hexdigest()


class _NewFolder:
    """A folder that takes its name when it is whole; an exception leaves nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise BadInputError(
                f"{self._path} cannot be made ({error.strerror}): name a place where you may write."
            ) from error
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._partial.replace(self._path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)


def _read_log(path: Path) -> Mapping[str, Any] | None:
    """Of a cleaning; None where there was none, or its log was cut or edited: it can be cleaned again."""
    try:
        log = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(log, dict) and {"unplay_version", "found"} <= log.keys()
    return log if whole and ("error" in log or isinstance(log.get("confidence"), (int, float))) else None


def _check_format(facts: Any, where: str) -> None:
    if not isinstance(facts, Mapping) or facts.get("format") != FORMAT:
        given = facts.get("format") if isinstance(facts, Mapping) else facts
        raise BadInputError(
            f"{where} is of format {given!r}, and this unplay knows {FORMAT}: update the older of the two."
        )
    missing = [name for name in NEEDED if name not in facts]
    if missing:
        raise BadInputError(f"{where} does not say {', '.join(missing)}: its session.json was cut or edited.")
    for name, kinds in KINDS.items():
        if not isinstance(facts[name], kinds):
            raise BadInputError(
                f"{where} says {facts[name]!r} for {name}, which cannot be: its session.json was edited."
            )


def _write_flac(path: Path, samples: Pcm, rate_hz: int) -> None:
    samples = np.asarray(samples, np.int16)
    with AudioWriter(path, AudioFormat(rate_hz, 1, len(samples), "FLAC", "PCM_16")) as writer:
        for start in range(0, len(samples), PIECE):
            writer.write(samples[start : start + PIECE, None] / 2.0**15)


def _read_pcm(path: Path) -> Pcm:
    return np.asarray(soundfile.read(path, dtype="int16")[0], np.int16)


def _to_wav(sound: Path, path: Path) -> None:
    samples, rate_hz = soundfile.read(sound, dtype="int32")
    soundfile.write(path, samples, rate_hz, subtype=soundfile.info(sound).subtype)
