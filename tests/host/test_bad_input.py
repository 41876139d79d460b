"""What a user reads when a file cannot be used: one sentence, an exit code, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unplay.removal import alignment
from unplay.virtual.scene import Scene

pytestmark = pytest.mark.usefixtures("recorded")

RATE_HZ = 16_000
NOISE = 0.1 * np.random.default_rng(1).standard_normal(2 * RATE_HZ)


def write(samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> None:
    soundfile.write("bad.wav", samples, rate_hz, subtype)


def with_one_bad(value: float) -> np.ndarray:
    samples = NOISE.copy()
    samples[8000] = value
    return samples


MAKERS: dict[str, tuple[Callable[[], object], str]] = {
    "missing": (
        lambda: None,
        "unplay: bad.wav cannot be opened (No such file or directory): check the path.",
    ),
    "empty": (
        lambda: Path("bad.wav").touch(),
        "unplay: bad.wav is empty (0 bytes); its copy or download may have failed: get it again.",
    ),
    "folder": (
        lambda: Path("bad.wav").mkdir(),
        "unplay: bad.wav is a folder: name one audio file in it.",
    ),
    "pipe": (
        lambda: os.mkfifo("bad.wav"),
        "unplay: bad.wav is not a regular file, and it must be read more than once: save it first.",
    ),
    "text": (
        lambda: Path("bad.wav").write_text("Dear diary, today I recorded nothing.\n"),
        "unplay: bad.wav is not audio that can be read; WAV, FLAC, MP3, Ogg and Opus can: convert it to one "
        "of them.",
    ),
    "header alone": (
        lambda: write(np.zeros(0)),
        "unplay: bad.wav holds no samples; the recorder may have stopped before it began: look for another "
        "copy.",
    ),
    "not a number": (
        lambda: write(with_one_bad(np.nan), subtype="FLOAT"),
        "unplay: bad.wav holds samples that are not numbers (NaN or infinite), 1 of them, the first at "
        "0.500 s; the program that wrote it failed there: export it again.",
    ),
    "infinite": (
        lambda: write(with_one_bad(-np.inf), subtype="DOUBLE"),
        "unplay: bad.wav holds samples that are not numbers (NaN or infinite), 1 of them, the first at "
        "0.500 s; the program that wrote it failed there: export it again.",
    ),
    "absurdly loud": (
        lambda: write(with_one_bad(1e30), subtype="FLOAT"),
        "unplay: bad.wav reaches 1e+30 where full scale is 1; its header may name the wrong sample format: "
        "export it again.",
    ),
    "short": (
        lambda: write(NOISE[:3200]),
        "unplay: bad.wav is 0.20 s long; at least 0.5 s are needed: give more of it.",
    ),
    "slow": (
        lambda: write(NOISE, 100),
        "unplay: bad.wav says its sample rate is 100 Hz, outside 4000 to 768000 Hz; its header may be "
        "damaged: export it again.",
    ),
    "many channels": (
        lambda: write(np.zeros((100, 100))),
        "unplay: bad.wav says it has 100 channels, more than 64; its header may be damaged: export it again, "
        "or fewer channels at a time.",
    ),
}


@pytest.mark.parametrize("role", ["reference", "recording"])
@pytest.mark.parametrize("kind", MAKERS)
def test_sentence(kind: str, role: str, unplay_run) -> None:
    make, sentence = MAKERS[kind]
    make()
    files = ["bad.wav", "recording.wav"] if role == "reference" else ["reference.wav", "bad.wav"]
    run = unplay_run("clean", *files, "-o", "out.wav", "--log", "log.json")
    assert (run.code, run.out, run.err) == (2, "", sentence + "\n")
    assert not Path("out.wav").exists()
    assert not Path("log.json").exists()


def test_silent_reference(unplay_run) -> None:
    write(np.zeros(2 * RATE_HZ))
    run = unplay_run("clean", "bad.wav", "recording.wav")
    assert run.code == 2
    assert run.err == "unplay: bad.wav is silent from end to end: name the file that was played.\n"


def test_silent_recording(unplay_run) -> None:
    write(np.zeros(2 * RATE_HZ))
    run = unplay_run("clean", "reference.wav", "bad.wav", "--log", "log.json")
    assert run.code == 3
    assert run.err == "unplay: bad.wav is silent from end to end: nothing can be in it.\n"
    assert Path("log.json").exists()


@pytest.mark.parametrize("name", ["reference.wav", "copy.flac"])
def test_reference_is_recording(name: str, scene: Scene, unplay_run) -> None:
    soundfile.write("copy.flac", scene.reference, RATE_HZ)
    run = unplay_run("clean", "reference.wav", name)
    assert run.code == 2
    assert run.err == (
        f"unplay: reference.wav and {name} hold the same sound, so nothing would be left; name what was "
        "played first and what was recorded second.\n"
    )


@pytest.mark.parametrize("option", ["-o", "--removed", "--log"])
@pytest.mark.parametrize("name", ["reference.wav", "recording.wav", "link.wav"])
def test_output_is_input(option: str, name: str, unplay_run) -> None:
    Path("link.wav").symlink_to("recording.wav")
    before = Path("recording.wav").read_bytes(), Path("reference.wav").read_bytes()
    run = unplay_run("clean", "reference.wav", "recording.wav", option, name, "--force")
    assert run.code == 2
    assert run.err == f"unplay: {name} would be written over an input: name another output.\n"
    assert (Path("recording.wav").read_bytes(), Path("reference.wav").read_bytes()) == before


def test_one_output_twice(unplay_run) -> None:
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", "a.wav", "--removed", "./a.wav")
    assert run.code == 2
    assert run.err == "unplay: a.wav is named for two outputs: name one for each.\n"


def test_output_exists(unplay_run) -> None:
    Path("recording_near_end.wav").write_text("mine")
    run = unplay_run("clean", "reference.wav", "recording.wav")
    assert run.code == 2
    assert run.err == (
        "unplay: recording_near_end.wav exists already: name another output, or add --force.\n"
    )
    assert Path("recording_near_end.wav").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/out.wav", "No such file or directory): make the folder first."),
        ("recording.wav/out.wav", "Not a directory): name a place where you may write."),
    ],
)
def test_unwritable(name: str, why: str, unplay_run) -> None:
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", name)
    assert (run.code, run.err) == (2, f"unplay: {name} cannot be written ({why}\n")


@pytest.mark.parametrize("option", ["-o", "--removed", "--log"])
def test_no_folder_for_an_output(option: str, unplay_run) -> None:
    run = unplay_run("clean", "reference.wav", "recording.wav", option, "nowhere/out.wav")
    assert run.code == 2
    assert run.err == (
        "unplay: nowhere/out.wav cannot be written (No such file or directory): make the folder first.\n"
    )
    assert sorted(os.listdir()) == ["recording.wav", "reference.wav"]


def test_output_is_a_folder(unplay_run) -> None:
    Path("out.wav").mkdir()
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", "out.wav", "--force")
    assert (run.code, run.err) == (2, "unplay: out.wav is a folder: name a file in it.\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_write_protected_folder(unplay_run) -> None:
    Path("locked").mkdir(mode=0o500)
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", "locked/out.wav")
    assert run.code == 2
    assert "locked/out.wav cannot be written (Permission denied)" in run.err


def test_lossy_output(unplay_run) -> None:
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", "out.mp3")
    assert run.code == 2
    assert run.err == ("unplay: out.mp3: what is written is exact, so its name must end in .wav or .flac.\n")


def test_float_into_flac(scene: Scene, unplay_run) -> None:
    soundfile.write("float.wav", scene.recording, RATE_HZ, "FLOAT")
    run = unplay_run("clean", "reference.wav", "float.wav", "-o", "out.flac")
    assert run.code == 2
    assert "FLAC cannot hold 1 channel of FLOAT at 16000 Hz" in run.err
    assert not list(Path().glob(".*"))


def test_disk_full_while_writing(unplay_run) -> None:
    """The kernel refuses to let a file grow beyond 50 kB, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        run = unplay_run(
            "clean",
            "reference.wav",
            "recording.wav",
            "-o",
            "out.wav",
            "--removed",
            "r.wav",
            "--method",
            "fir",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.code == 2
    assert run.err == (
        "unplay: out.wav cannot be written (File too large): name a place where you may write.\n"
    )
    assert sorted(os.listdir()) == ["recording.wav", "reference.wav"]


def test_disk_full_at_the_end(monkeypatch: pytest.MonkeyPatch, unplay_run) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    run = unplay_run("clean", "reference.wav", "recording.wav", "-o", "out.wav", "--method", "fir")
    assert run.code == 2
    assert run.err == (
        "unplay: out.wav cannot be written (No space left on device): make room or name another place.\n"
    )
    assert sorted(os.listdir()) == ["recording.wav", "reference.wav"]


def test_interrupted(monkeypatch: pytest.MonkeyPatch, unplay_run) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment, "aligned_reference", interrupted)
    run = unplay_run("clean", "reference.wav", "recording.wav", "--removed", "r.wav", "--log", "log.json")
    assert run.code == 130
    assert "Traceback" not in run.err
    assert sorted(os.listdir()) == ["recording.wav", "reference.wav"]


def test_truncated_recording_is_used(unplay_run) -> None:
    """Half the bytes of a WAV file are evidence all the same."""
    whole = Path("recording.wav").read_bytes()
    Path("cut.wav").write_bytes(whole[: len(whole) // 2])
    run = unplay_run("clean", "reference.wav", "cut.wav", "--method", "fir")
    assert run.code == 0
    assert run.err == (
        "unplay: cut.wav holds 4.00 s of sound where its header promises 8.00 s: it was cut short or is "
        "damaged; what is there is used.\n"
    )
    assert soundfile.info("cut_near_end.wav").frames == (len(whole) // 2 - 44) // 2


@pytest.mark.parametrize(("promised_s", "n_bytes"), [(0, 0), (1, 2 * RATE_HZ), (99, 2 * 99 * RATE_HZ)])
def test_header_that_lies_about_its_size(promised_s: int, n_bytes: int, unplay_run) -> None:
    """Recorders that lose power leave the size of the last time they wrote it."""
    content = bytearray(Path("recording.wav").read_bytes())
    content[40:44] = struct.pack("<I", n_bytes)
    Path("lie.wav").write_bytes(content)
    run = unplay_run("clean", "reference.wav", "lie.wav", "--method", "fir")
    assert run.code == 0
    assert run.err == (
        f"unplay: lie.wav holds 8.00 s of sound where its header promises {promised_s}.00 s: it was cut "
        "short or is damaged; what is there is used.\n"
    )
    assert soundfile.info("lie_near_end.wav").frames == 8 * RATE_HZ


def test_clipped_recording(scene: Scene, unplay_run) -> None:
    loud = np.clip(2 * scene.recording, -1, 1)
    soundfile.write("loud.wav", loud, RATE_HZ)
    run = unplay_run("clean", "reference.wav", "loud.wav", "--method", "fir")
    assert run.code == 0
    assert run.err.startswith("unplay: loud.wav is clipped: ")
    assert run.err.endswith(" at full scale, where less can be removed.\n")
