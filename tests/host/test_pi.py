"""A Raspberry Pi as a device: the device's own program under CPython."""

from __future__ import annotations

import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unplay.board.doctor import examine
from unplay.board.link import DeviceLink
from unplay.board.pi.alsa import AlsaI2S
from unplay.board.references import make_reference, push
from unplay.board.syncing import sync
from unplay.hil.power_cycle import power_cycle
from unplay.removal.canceller import Samples16, cancel
from unplay.sessions import Library
from unplay.virtual.scene import make_scene

SCENE = """
[device]
start_offset_samples = 700
[talker]
level_db = -45.0
start_s = 1.0
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a device in a process of its own, in a computed room, in real time."""
    scene = tmp_path / "scene.toml"
    scene.write_text(SCENE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "unplay", "device", "serve", "--listen", f"tcp://127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "--storage", "storage", "--scene", "scene.toml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_restart_over_tcp(address: str) -> None:
    """The program is another one at the same address, with the same folder."""
    with DeviceLink(address) as link:
        link.config_set({"seconds": 30})
        found = power_cycle(link, "")
    assert found["settings_changed"] == found["files_damaged"] == (0, "")
    lost_s, _ = found["recording_lost_s"]
    assert isinstance(lost_s, float)
    assert 0 <= lost_s < 1


def test_the_doctor_over_tcp(address: str) -> None:
    """A computer does not say how much memory Python has left. Someone talks: that is heard as noise."""
    with DeviceLink(address) as link:
        examination = examine(link)
    assert examination.board == "pi"
    assert {entry.code for entry in examination.findings}.isdisjoint({"memory", "no-canceller", "no-card"})


def samples(path: Path) -> Samples16:
    return np.asarray(soundfile.read(path, dtype="int16")[0], np.int16)


def test_a_session_over_tcp(address: str, tmp_path: Path) -> None:
    """Pushed, recorded, fetched: what its canceller left is what the host's twin leaves, bit for bit."""
    path = tmp_path / "song.wav"
    soundfile.write(path, make_scene(4, reference_s=4.0, duration_s=4.0).reference, 16_000)
    song = make_reference(path)
    for hears in (True, False):
        with DeviceLink(address) as link:
            if hears:
                push(link, song)
                link.record()
            for status in link.status():
                if status["state"] == "idle":
                    break
    with DeviceLink(address) as link:
        (session,) = sync(link, Library(tmp_path / "library")).sessions
    facts = session.facts
    assert (facts["board"], facts["ended"]) == ("pi", "length")
    # The room's offset and direct sound, a full ring of silence, and as long as it took to open the recorder
    # after the player: well below 50 ms.
    assert 0 <= facts["start_offset_samples"] - (700 + 80 + 5120) < 800
    microphone, residual = (samples(session.folder / name) for name in ("mic.flac", "residual.flac"))
    delayed = np.concatenate([np.zeros(facts["canceller_delay_samples"], np.int16), song.pcm])
    assert np.array_equal(residual, cancel(delayed, microphone, facts["canceller"], late=facts["late"]))


def test_without_alsa(unplay_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alsaaudio", None)
    run = unplay_run("device", "serve", "--storage", tmp_path)
    assert (run.code, run.err.count("\n")) == (5, 1)
    assert "pip install 'unplay[pi]'" in run.err


class FakePcm:
    """ALSA's PCM: periods that count upwards, an overrun and an underrun on the way."""

    def __init__(self, kind: int, mode: int, **options: object) -> None:
        self.options = options
        self.reads = 0
        self.written = b""
        self.calls = 0

    def read(self) -> tuple[int, bytes]:
        self.reads += 1
        if self.reads == 3:
            return -32, b""
        frames = np.arange(256, dtype=np.int32) + 256 * self.reads
        return 256, np.repeat(frames, 2).tobytes()

    def write(self, data: bytes) -> int:
        self.calls += 1
        if self.calls == 2:
            return -32
        part = data[: 300 * 8]
        self.written += part
        return len(part) // 8

    def close(self) -> None:
        pass


def test_alsa_as_i2s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size out of periods of another; nothing is lost or doubled where ALSA stumbles."""
    names = ("PCM_PLAYBACK", "PCM_CAPTURE", "PCM_NORMAL", "PCM_FORMAT_S32_LE")
    fake = types.SimpleNamespace(PCM=FakePcm, ALSAAudioError=OSError, **dict.fromkeys(names, 0))
    monkeypatch.setitem(sys.modules, "alsaaudio", fake)
    wires = {"sck": None, "ws": None, "sd": None}
    recorder = AlsaI2S(0, **wires, mode=AlsaI2S.RX, bits=32, format=AlsaI2S.STEREO, rate=16_000, ibuf=40_960)
    assert recorder._pcm.options["periods"] == 20
    heard = bytearray()
    for _ in range(4):
        block = bytearray(8 * 100)
        assert recorder.readinto(block) == len(block)
        heard += block
    frames = np.frombuffer(heard, np.int32).reshape(-1, 2)[:, 0]
    assert np.array_equal(frames, 256 + np.arange(400))
    player = AlsaI2S(1, **wires, mode=AlsaI2S.TX, bits=32, format=AlsaI2S.STEREO, rate=16_000, ibuf=40_960)
    data = bytearray(np.arange(2 * 1024, dtype=np.int32).tobytes())
    assert player.write(data) == len(data)
    assert player._pcm.written == data
