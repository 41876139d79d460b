"""From a song on the desk to the talker's voice alone: push, button, sync, clean, on a virtual device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from unplay.board.faults import PortError
from unplay.board.link import DeviceLink
from unplay.board.syncing import programme, sync
from unplay.metrics import si_sdr_db
from unplay.sessions import Library
from unplay.virtual.device import VirtualDevice
from unplay.virtual.scene import make_scene
from unplay.virtual.setup import CardSetup, LineSetup, Setup, TalkerSetup

NewDevice = Callable[..., VirtualDevice]
Run = Callable[..., Any]
"""`unplay_run` of tests/conftest.py."""

CARD = CardSetup(mb=16)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of music at another rate, in stereo."""
    path = tmp_path_factory.mktemp("song") / "song.flac"
    music = make_scene(2, sample_rate_hz=44_100, reference_s=20.0, duration_s=20.0).reference
    soundfile.write(path, np.stack([music, 0.5 * music], axis=1), 44_100)
    return path


def samples(path: Path) -> NDArray:
    return soundfile.read(path)[0]


def press(device: VirtualDevice) -> None:
    device.press()
    time.sleep(0.2)
    device.press(False)


def wait_for_recording(port: str) -> None:
    with DeviceLink(port) as link:
        deadline_s = time.monotonic() + 60
        while not any(name.startswith("sessions/") for name in link.ls()):
            assert time.monotonic() < deadline_s
        for status in link.status():
            if status["state"] == "idle":
                return


def test_the_whole_story(new_device: NewDevice, song: Path, unplay_run: Run, tmp_path: Path) -> None:
    """Twenty seconds of music with a talker in the room: the talker is 30 dB or more clearer afterwards."""
    setup = Setup(card=CARD, talker=TalkerSetup(level_db=-45.0, start_s=3.0))
    library = tmp_path / "library"
    with new_device(setup) as device:
        pushed = unplay_run("device", "push", song, "--port", device.port)
        assert pushed.code == 0, pushed.err
        assert "sent song, 20.0 s" in pushed.out
        press(device)
        wait_for_recording(device.port)
        synced = unplay_run("sync", "--clean", "--json", "--port", device.port, "--library", library)
        assert synced.code == 0, synced.err
    (row,) = json.loads(synced.out)
    assert (row["state"], row["ended"], row["reference"]) == ("cleaned", "length", "song")
    folder = Path(row["folder"])
    microphone, near_end = samples(folder / "mic.flac"), samples(folder / "near_end.flac")
    truth = device.streams.truth(len(microphone)) * 4.0  # microphone_shift 14 of 16
    # Markers and all: what is left of them counts against the result.
    assert si_sdr_db(truth, near_end) > si_sdr_db(truth, microphone) + 30
    facts = json.loads((folder / "session.json").read_text())
    reference = samples(library / "references" / "song.flac")
    pcm = np.round(reference * 32_768).astype(np.int16)
    assert np.array_equal(programme(facts, pcm), np.round(samples(folder / "played.flac") * 32_768))


def test_the_residual_is_that_of_the_canceller_command(
    new_device: NewDevice, song: Path, unplay_run: Run, tmp_path: Path
) -> None:
    """`unplay canceller` on the library's files gives the device's residual bit for bit."""
    library = tmp_path / "library"
    with new_device(Setup(card=CARD)) as device:
        assert unplay_run("device", "push", song, "--port", device.port).code == 0
        assert unplay_run("device", "record", "--seconds", "6", "--port", device.port).code == 0
        assert unplay_run("sync", "--port", device.port, "--library", library).code == 0
    (session,) = Library(library).sessions()
    facts, residual = session.facts, tmp_path / "residual.wav"
    played = tmp_path / "played.wav"  # the reference was cut short
    reference = soundfile.read(library / "references" / "song.flac", dtype="int16")[0]
    soundfile.write(played, reference[: facts["reference_played_samples"]], 16_000)
    delay_s = facts["canceller_delay_samples"] / 16_000
    arguments = (played, session.folder / "mic.flac", "-o", residual, "--delay", delay_s)
    assert unplay_run("canceller", *arguments).code == 0
    mine, theirs = (
        soundfile.read(path, dtype="int16")[0] for path in (residual, session.folder / "residual.flac")
    )
    assert np.array_equal(mine, theirs)


def test_a_sync_that_breaks_off_goes_on(new_device: NewDevice, tmp_path: Path) -> None:
    """The plug is pulled in the middle; the next sync fetches only the rest; nothing is there by halves."""
    setup = Setup(card=CARD, line=LineSetup(kind="usb"))
    library = Library(tmp_path / "library")
    link_path = tmp_path / "port"
    with new_device(setup, link=link_path) as device:
        with DeviceLink(device.port) as link:
            link.record({"reference": "", "seconds": 20})
            for status in link.status():
                if status["state"] == "idle":
                    break

        def pull_the_plug(name: str, done: int, size: int) -> None:
            if name.endswith("mic.pcm") and done > size // 2:
                device.line.unplug()

        with pytest.raises(PortError), DeviceLink(device.port) as link:
            sync(link, library, progress=pull_the_plug)
        assert library.sessions() == []
        device.line.plug()
        begun_at: list[int] = []
        with DeviceLink(device.port) as link:
            fetched = sync(link, library, progress=lambda name, done, size: begun_at.append(done))
        assert len(fetched.sessions) == 1
        assert min(begun_at) > 300_000  # of 640,000 bytes
        with DeviceLink(device.port) as link:
            assert sync(link, library).sessions == []
    (session,) = library.sessions()
    assert session.problem is None
    assert session.facts["frames"] == 313 * 1024


def test_two_devices_at_once(new_device: NewDevice, unplay_run: Run, tmp_path: Path) -> None:
    library = tmp_path / "library"
    with new_device(name="one") as one, new_device(name="two") as two:
        for device in (one, two):
            arguments = ("device", "record", "--reference", "", "--seconds", "2", "--port", device.port)
            assert unplay_run(*arguments).code == 0
        ports = ("--port", one.port, "--port", two.port)
        synced = unplay_run("sync", "--remove", *ports, "--library", library)
        assert synced.code == 0, synced.err
        for device in (one, two):
            with DeviceLink(device.port) as link:
                assert not any(name.startswith("sessions/") for name in link.ls())
    assert {session.device for session in Library(library).sessions()} == {b"one".hex(), b"two".hex()}


def test_a_device_that_was_cut_off_power(new_device: NewDevice, tmp_path: Path) -> None:
    """What it had recorded is fetched, and says how it ended."""
    library = Library(tmp_path / "library")
    with new_device(Setup(card=CARD), speed=4.0) as device:
        with DeviceLink(device.port) as link:
            link.record({"reference": ""})
            while link.call("status")["samples"] < 64_000:
                time.sleep(0.02)
        device.cut_power()
    with new_device(Setup(card=CARD)) as device, DeviceLink(device.port) as link:
        (session,) = sync(link, library).sessions
    assert session.facts["ended"] == "power"
    assert session.facts["frames"] >= 64_000 - 16_000


def test_following_for_longer_than_a_silent_host_is_remembered(new_device: NewDevice) -> None:
    """Who only listens to the status must not be forgotten after ten seconds."""
    with new_device(Setup(card=CARD), speed=1.0) as device, DeviceLink(device.port) as link:
        link.record({"reference": "", "seconds": 12})
        statuses = list(takewhile(lambda status: status["state"] != "idle", link.status()))
    assert statuses[-1]["samples"] >= 12 * 16_000 - 8 * 1024


def test_bad_input(new_device: NewDevice, unplay_run: Run, tmp_path: Path) -> None:
    """One sentence each, and the exit code of what it was."""
    silent, broken = tmp_path / "silent.wav", tmp_path / "broken.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    broken.write_bytes(b"RIFF")
    with new_device() as device:
        port = ("--port", device.port)
        for arguments, code, words in (
            (("push", str(silent)), 2, "silent"),
            (("push", str(broken)), 2, "broken.wav"),
            (("push", str(tmp_path / "none.wav")), 2, "none.wav"),
            (("config", "volume=3"), 2, "there is no setting volume"),
            (("config", "volume_q15=99999"), 2, "99999"),
            (("config", "volume_q15"), 2, "NAME=VALUE"),
            (("record", "--reference", "none"), 5, "none"),
            (("stop",), 5, "not recording"),
            (("pull", "settings.json", str(tmp_path / "s")), 5, "is no name on the device"),
            (("rm", "references/none.pcm"), 5, "none.pcm"),
        ):
            refused = unplay_run("device", *arguments, *port)
            assert (refused.code, refused.err.count("\n")) == (code, 1), refused.err
            assert words in refused.err
    absent = unplay_run("device", "info", "--port", tmp_path / "nowhere")
    assert absent.code == 5
    assert "nowhere" in absent.err


def test_scenes(unplay_run: Run, tmp_path: Path) -> None:
    scene = tmp_path / "scene.toml"
    for text, words in (
        ("[room", "is no scene"),
        ("[kitchen]\nx = 1", "has no [kitchen]"),
        ("[room]\nsize = 3", "has no size"),
        ('[room]\nresponse = "none.wav"\n', "none.wav"),
        ('[room]\necho_db = "loud"\n', "'loud'"),
        ('[line]\nkind = "radio"\n', "'radio'"),
        ("[device]\nheap_kb = true\n", "True"),
    ):
        scene.write_text(text)
        refused = unplay_run("virtual-device", "--storage", tmp_path / "device", "--scene", scene)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert words in refused.err
    refused = unplay_run("virtual-device", "--storage", scene)
    assert refused.code == 2
    assert "cannot be used for storage" in refused.err
