"""Scenes of a virtual device: small TOML files that say what its room, card and serial line are like.

README.md beside this file has one with everything in it. Values here are the defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from unplay.errors import BadInputError
from unplay.virtual.room import Room, Signal
from unplay.virtual.scene import room_response, talker
from unplay.virtual.wiring import FaultSetup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RATE_HZ = 16_000
SPEECH_S = 60
"""A talker says the same again after so long."""

MOST_RANDOM_OFFSET = 4000
LINES = ("plain", "uart", "usb")


@dataclass(frozen=True)
class DeviceSetup:
    board: str = "esp32"
    start_offset_samples: int | str = 500
    compute_ms: float = 28.0
    heap_kb: int = 256


@dataclass(frozen=True)
class RoomSetup:
    echo_db: float = -16.0
    reverberation_s: float = 0.3
    response: str = ""
    drive: float = 0.0


@dataclass(frozen=True)
class TalkerSetup:
    file: str = ""
    level_db: float | None = -45.0
    start_s: float = 4.0


@dataclass(frozen=True)
class NoiseSetup:
    level_db: float = -90.0


@dataclass(frozen=True)
class CardSetup:
    mb: int = 64
    block_ms: float = 0.2
    stalls: list[list[float]] = field(default_factory=list)
    pause_ms: float = 0.0
    pause_kb: float = 64.0
    fails_kb: float | None = None
    keeps_kb: float | None = None


@dataclass(frozen=True)
class LineSetup:
    kind: str = "plain"
    baud: int = 115_200
    latency_ms: float = 0.0
    bit_error_rate: float = 0.0
    packet_loss: float = 0.0


@dataclass(frozen=True)
class Setup:
    """A scene. folder: what file names are relative to."""

    seed: int = 1
    device: DeviceSetup = DeviceSetup()
    room: RoomSetup = RoomSetup()
    talker: TalkerSetup = TalkerSetup()
    noise: NoiseSetup = NoiseSetup()
    card: CardSetup | None = CardSetup()
    line: LineSetup = LineSetup()
    fault: FaultSetup = field(default_factory=FaultSetup)
    folder: Path = Path()


SECTIONS = {
    "device": DeviceSetup,
    "room": RoomSetup,
    "talker": TalkerSetup,
    "noise": NoiseSetup,
    "card": CardSetup,
    "line": LineSetup,
    "fault": FaultSetup,
}


def read(path: Path | None) -> Setup:
    """A scene's file; or a folder with response.wav and near_end.wav in it; or, with None, the usual scene.

    Raises BadInputError.
    """
    if path is None:
        return Setup()
    if path.is_dir():
        return _of_folder(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is no scene: {error}. the README of unplay.virtual has one.") from error
    return from_table(table, path.parent)


def _of_folder(folder: Path) -> Setup:
    files = {name: folder / f"{name}.wav" for name in ("response", "near_end")}
    missing = [str(path) for path in files.values() if not path.exists()]
    if missing:
        raise BadInputError(f"the folder {folder} is no scene: {' and '.join(missing)} not there.")
    return from_table(
        {"room": {"response": "response.wav"}, "talker": {"file": "near_end.wav", "start_s": 0.0}}, folder
    )


def from_table(table: Mapping[str, Any], folder: Path) -> Setup:
    """A scene from what its file holds. Raises BadInputError for unknown names and wrong kinds of values."""
    unknown = [name for name in table if name not in SECTIONS and name != "seed"]
    if unknown:
        raise BadInputError(f"a scene has no [{unknown[0]}]: choose from {', '.join(SECTIONS)}.")
    sections: dict[str, Any] = {"card": None} if table and "card" not in table else {}
    for name, values in table.items():
        sections[name] = values if name == "seed" else _section(name, values)
    return Setup(**sections, folder=folder)


def _section(name: str, values: Any) -> Any:
    kind = SECTIONS[name]
    allowed = {entry.name for entry in fields(kind)}
    if not isinstance(values, Mapping):
        raise BadInputError(f"{name} is {values!r} in a scene: write [{name}] and its values below it.")
    for key in values:
        if key not in allowed:
            raise BadInputError(
                f"[{name}] of a scene has no {key}: choose from {', '.join(sorted(allowed))}."
            )
    for key, value in values.items():
        if not _fits(value, getattr(kind(), key)) and (key, value) != ("start_offset_samples", "random"):
            raise BadInputError(
                f"{key} of [{name}] is {value!r} in a scene: its usual value is {getattr(kind(), key)!r}."
            )
    made = kind(**values)
    if isinstance(made, LineSetup) and made.kind not in LINES:
        raise BadInputError(f"kind of [line] is {made.kind!r} in a scene: choose from {', '.join(LINES)}.")
    return made


def _fits(value: Any, usual: Any) -> bool:
    """Whether a value is of the usual one's kind; absent levels are numbers, too."""
    if isinstance(usual, str | list):
        return isinstance(value, type(usual))
    return isinstance(value, int | float) and not isinstance(value, bool)


def make_room(setup: Setup) -> Room:
    """The room of a scene."""
    rng = np.random.default_rng(setup.seed)
    room = setup.room
    if room.response:
        echo_path = _sound(setup.folder / room.response)
    else:
        echo_path = room_response(rng, RATE_HZ, room.reverberation_s) * 10 ** (room.echo_db / 20)
    if setup.fault.amplifier == "silent":
        echo_path = np.zeros(1)
    loudest = float(np.max(np.abs(echo_path)))
    speech = _speech(setup, rng)
    start = round(setup.talker.start_s * RATE_HZ)

    def near_end(first: int, n: int) -> Signal:
        where = np.arange(first - start, first - start + n)
        return np.where(where >= 0, speech[where % len(speech)], 0.0)

    def curve(x: Signal) -> Signal:
        return np.tanh(room.drive * x) / room.drive

    offset = setup.device.start_offset_samples
    return Room(
        echo_path=echo_path,
        near_end=near_end,
        noise_rms=10 ** (setup.noise.level_db / 20),
        start_offset_samples=offset if isinstance(offset, int) else 0,
        player_ppm=setup.fault.player_ppm,
        most_random_offset=0 if isinstance(offset, int) else MOST_RANDOM_OFFSET,
        seed=setup.seed,
        feedback=setup.fault.feedback / loudest if loudest else 0.0,
        curve=curve if room.drive else None,
    )


def _speech(setup: Setup, rng: np.random.Generator) -> Signal:
    if setup.talker.level_db is None:
        return np.zeros(1)
    if setup.talker.file:
        speech = _sound(setup.folder / setup.talker.file)
    else:
        speech = talker(rng, RATE_HZ, SPEECH_S * RATE_HZ)
    return speech * (10 ** (setup.talker.level_db / 20) / max(float(np.std(speech)), 1e-9))


def _sound(path: Path) -> Signal:
    try:
        sound, rate_hz = soundfile.read(path, always_2d=True)
    except (OSError, RuntimeError) as error:
        raise BadInputError(f"{path}, which a scene names, cannot be read: {error}") from error
    if rate_hz != RATE_HZ:
        raise BadInputError(f"{path} has {rate_hz} Hz: sounds of a scene have {RATE_HZ}.")
    return sound.mean(axis=1)
