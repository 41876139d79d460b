"""What `unplay demo` shows: a song is played to a talker in a room, and taken out again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from unplay.board.link import DeviceLink
from unplay.board.references import make_reference, push
from unplay.board.syncing import sync
from unplay.cleaning import Result
from unplay.errors import BadInputError, DeviceUnreachableError
from unplay.metrics import si_sdr_db
from unplay.sessions import Library, Session
from unplay.virtual.device import VirtualDevice
from unplay.virtual.scene import Signal, make_scene
from unplay.virtual.setup import CardSetup, Setup, TalkerSetup

SONG_S = 20.0
SETUP = Setup(card=CardSetup(mb=16), talker=TalkerSetup(level_db=-48.0, start_s=6.0))
LONGEST_S = 120.0
"""What the recording may take, on however slow a computer."""

Progress = Callable[[str, float], None]
DEVICE = "device"
MARK = ".unplay-demo"


@dataclass(frozen=True)
class Figures:
    """How far the talker stands above all that is not the talker (SI-SDR), in dB, while the song plays."""

    recording_db: float
    on_device_db: float
    cleaned_db: float


@dataclass(frozen=True)
class Story:
    figures: Figures
    session: Session
    result: Result


def run(folder: Path, progress: Progress) -> Story:
    """Install a virtual device, push a song, press the button, fetch the session, clean it.

    folder: is made; what an earlier demo left in it is replaced. Raises BadInputError where something else is
    in it, DeviceUnreachableError where there is no MicroPython for this computer.
    """
    _make_room(folder)
    progress("installing a virtual device", 0.05)
    with VirtualDevice(folder / DEVICE, SETUP, name="demo") as device, DeviceLink(device.port) as link:
        progress("making a song and pushing it", 0.15)
        push(link, make_reference(_write_song(folder / "song.flac")))
        progress("recording", 0.3)
        device.press()
        _wait_for(link, lambda state: state != "idle")
        device.press(False)
        _wait_for(link, lambda state: state == "idle")
        progress("fetching the session", 0.4)
        library = Library(folder / "library")
        (session,) = sync(link, library).sessions
        talker = device.streams.truth(session.facts["frames"])
    result = library.clean(session, progress=lambda doing, share: progress(doing, 0.5 + share / 2))
    sounds = {name: _copy(session, name, folder) for name in ("mic", "residual", "near_end")}
    soundfile.write(folder / "talker.wav", talker * 4.0, 16_000)
    start = session.facts["reference_delay_samples"]
    heard = slice(start, start + session.facts["reference_played_samples"])
    scores = {name: si_sdr_db(talker[heard], sound[heard]) for name, sound in sounds.items()}
    figures = Figures(scores["mic"], scores["residual"], scores["near_end"])
    return Story(figures, library.session(session.name), result)


def _make_room(folder: Path) -> None:
    """An empty folder with the demo's mark in it."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise BadInputError(f"{folder} is not empty: name another --folder, or remove it.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _write_song(path: Path) -> Path:
    song = make_scene(sample_rate_hz=44_100, reference_s=SONG_S, duration_s=SONG_S).reference
    soundfile.write(path, song, 44_100)
    return path


def _wait_for(link: DeviceLink, reached: Callable[[str], bool]) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not reached(link.call("status")["state"]):
        if time.monotonic() > deadline_s:
            raise DeviceUnreachableError(
                f"the virtual device has not come on for {LONGEST_S:.0f} s: this computer is too busy; "
                "try again."
            )
        time.sleep(0.02)


def _copy(session: Session, name: str, folder: Path) -> Signal:
    """A sound of the session, as WAV for listening, too."""
    sound, rate_hz = soundfile.read(session.folder / f"{name}.flac")
    soundfile.write(folder / f"{name}.wav", sound, rate_hz)
    return np.asarray(sound, np.float64)
