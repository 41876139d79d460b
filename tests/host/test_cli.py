"""The command line: what it prints, where, and the code it ends with."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unplay
from unplay.cleaning import METHODS
from unplay.cli.clean import Method
from unplay.removal.neural import why_no_runtime
from unplay.virtual import demonstration
from unplay.virtual.scene import Scene, make_scene

needs_runtime = pytest.mark.skipif(
    bool(why_no_runtime()) and "CI" not in os.environ, reason=why_no_runtime() or ""
)
CLEAN = ("clean", "reference.wav", "recording.wav", "--method", "fir")


def test_version(unplay_run) -> None:
    run = unplay_run("--version")
    assert (run.code, run.out) == (0, f"unplay {unplay.__version__}\n")


@pytest.mark.parametrize("command", [[], ["clean"], ["compare"], ["demo"], ["canceller"]])
def test_help_has_an_example(command: list[str], unplay_run) -> None:
    run = unplay_run(*command, "--help")
    assert run.code == 0
    assert f"Example: unplay {'clean' if not command else command[0]} " in run.out


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys; from unplay.cli import main\n"
        "sys.argv = ['unplay', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'scipy', 'soundfile', 'soxr', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_methods_on_the_command_line_are_those_there_are() -> None:
    assert {method.value for method in Method} == set(METHODS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clean"], "Missing argument 'REFERENCE'"),
        (["clean", "a.wav"], "Missing argument 'RECORDING'"),
        (["clean", "a.wav", "b.wav", "--method", "magic"], "'magic' is not one of 'auto'"),
        (["clean", "a.wav", "b.wav", "--strength", "much"], "Invalid value for '--strength'"),
        (["clean", "a.wav", "b.wav", "--segment", "2"], "--segment belongs to the method pursuit, and the"),
        (["clean", "a.wav", "b.wav", "--method", "pursuit", "--block", "9"], "or give --method nmf"),
        (["clean", "a.wav", "b.wav", "--method", "pursuit", "--segment", "0"], "The segments are 0 s long"),
        (["clean", "a.wav", "b.wav", "--method", "pursuit", "--tail", "nan"], "The tail is nan s long"),
        (["clean", "a.wav", "b.wav", "--method", "nmf", "--block", "1"], "The blocks are 1 s long"),
        (["clean", "a.wav", "b.wav", "--method", "nmf", "--rank-rest", "0"], "The rank of the rest is 0"),
        (["clean", "a.wav", "b.wav", "--method", "nmf", "--sparsity", "-1"], "The sparsity is -1"),
        (["clean", "a.wav", "b.wav", "--method", "nmf", "--divergence", "beta"], "'beta' is not one of 'kl'"),
        (["clean", "a.wav", "b.wav", "--method", "nmf", "--playback-only", "c.wav"], "a.wav"),
        (["polish"], "No such command 'polish'"),
        (["clean", "a.wav", "b.wav", "--polish"], "No such option: --polish"),
    ],
)
def test_bad_usage(arguments: list[str], says: str, unplay_run) -> None:
    run = unplay_run(*arguments)
    assert (run.code, run.out) == (2, "")
    assert says in run.err


def test_clean(recorded: Scene, unplay_run) -> None:
    run = unplay_run(*CLEAN, "--removed", "removed.wav")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert lines[0].startswith("found the reference +1.3")
    assert lines[1].startswith("wrote what is left to recording_near_end.wav (confidence ")
    assert lines[2] == "wrote what was taken out to removed.wav"
    assert soundfile.info("recording_near_end.wav").frames == len(recorded.recording)


def test_json_is_one_document_and_nothing_else(recorded: Scene, unplay_run) -> None:
    run = unplay_run(*CLEAN, "--json", "--log", "log.json")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out) == json.loads(Path("log.json").read_text())


def test_verbose_names_the_stages(recorded: Scene, unplay_run) -> None:
    run = unplay_run(*CLEAN, "-v", "--json")
    assert run.code == 0
    assert "fir used" in run.err
    assert json.loads(run.out)["found"] is True


def test_force_writes_over(recorded: Scene, unplay_run) -> None:
    Path("recording_near_end.wav").write_text("mine")
    assert unplay_run(*CLEAN).code == 2
    assert unplay_run(*CLEAN, "--force").code == 0
    assert soundfile.info("recording_near_end.wav").frames == len(recorded.recording)


def test_absent_reference_is_exit_code_3(recorded: Scene, unplay_run) -> None:
    soundfile.write("reference.wav", make_scene(5, duration_s=8.0, reference_s=8.0).reference, 16_000)
    run = unplay_run(*CLEAN, "--json")
    assert run.code == 3
    assert run.err.startswith("unplay: reference.wav is not in recording.wav: ")
    assert run.err.count("\n") == 1
    assert not Path("recording_near_end.wav").exists()


def test_the_command_in_the_log_repeats_the_run(recorded: Scene, unplay_run) -> None:
    log = json.loads(unplay_run(*CLEAN, "--no-warp", "--strength", "0.7", "--json").out)
    before = Path("recording_near_end.wav").read_bytes()
    Path("recording_near_end.wav").write_bytes(b"")
    assert unplay_run(*shlex.split(log["command"])[1:]).code == 0
    assert Path("recording_near_end.wav").read_bytes() == before


@pytest.mark.parametrize(
    "settings",
    [
        ("pursuit", "--segment", "2", "--tail", "0.1", "--orthogonal"),
        ("pursuit", "--weighted", "--tail", "0.1"),
        pytest.param(("neural", "--on-device-residual"), marks=needs_runtime),
        ("nmf", "--divergence", "is", "--rank-playback", "20", "--rank-rest", "9", "--iterations", "5"),
        ("nmf", "--playback-only", "reference.wav", "--sparsity", "0.1", "--block", "3", "--iterations", "5"),
    ],
)
def test_methods_with_settings(settings: tuple[str, ...], recorded: Scene, unplay_run) -> None:
    """The settings are in the log, its command repeats the run, and both outputs add up."""
    run = unplay_run(*CLEAN[:3], "--removed", "removed.wav", "--json", "--method", *settings)
    assert (run.code, run.err) == (0, "")
    log = json.loads(run.out)
    assert log["settings"]["method"] == settings[0]
    assert len(log["settings"]) == 3 + sum(word.startswith("--") for word in settings)
    near_end, removed, recording = (
        soundfile.read(f"{name}.wav", dtype="int16")[0].astype(int)
        for name in ("recording_near_end", "removed", "recording")
    )
    # to one step of 16 bits
    assert np.max(np.abs(near_end + removed - recording)) <= 1
    if settings[0] == "nmf":
        # at the start and after each iteration, in every block; with a dictionary given none is trained
        assert all(len(stage["costs"]) == 6 for stage in log["stages"])
        assert all(("training_costs" in stage) != ("--playback-only" in settings) for stage in log["stages"])
    assert np.sum(near_end**2) < 0.5 * np.sum(recording**2)
    before = Path("recording_near_end.wav").read_bytes()
    assert unplay_run(*shlex.split(log["command"])[1:]).code == 0
    assert Path("recording_near_end.wav").read_bytes() == before


def test_a_playback_recorded_alone_must_not_be_silent(recorded: Scene, unplay_run) -> None:
    soundfile.write("alone.wav", np.zeros(16_000), 16_000)
    run = unplay_run(*CLEAN[:3], "--method", "nmf", "--playback-only", "alone.wav")
    assert run.code == 2
    assert run.err.startswith("unplay: alone.wav is silent from end to end: ")
    assert unplay_run(*CLEAN[:3], "--method", "nmf", "--playback-only", "gone.wav").code == 2
    run = unplay_run(
        *CLEAN[:3], "--method", "nmf", "--playback-only", "alone.wav", "-o", "alone.wav", "--force"
    )
    assert "would be written over an input" in run.err


needs_micropython = pytest.mark.skipif(
    "CI" not in os.environ and not (sys.platform == "linux" and platform.machine() == "x86_64"),
    reason="MicroPython's wheels are for Linux x86_64",
)


@needs_micropython
def test_demo(tmp_path: Path, unplay_run) -> None:
    """The talker is 10 dB weaker than the music. 22 dB of gain were measured on the device, 50 cleaned."""
    folder = tmp_path / "new" / "demo"
    run = unplay_run("demo", "--folder", folder, "--json")
    assert (run.code, run.err) == (0, "")
    figures = json.loads(run.out)
    assert figures["recording_db"] == pytest.approx(-9.6, abs=1.0)
    assert figures["on_device_db"] > figures["recording_db"] + 15
    assert figures["cleaned_db"] > figures["recording_db"] + 40
    for name in ("mic", "residual", "near_end", "talker"):
        assert (folder / f"{name}.wav").exists()


@needs_micropython
def test_demo_says_where_to_listen(tmp_path: Path, unplay_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "SONG_S", 5.0)
    for _ in range(2):
        run = unplay_run("demo")
        assert run.code == 0, run.err
        assert "Listen: unplay-demo/mic.wav, unplay-demo/residual.wav, unplay-demo/near_end.wav;" in run.out
        assert "talker above the rest" in run.out
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    run = unplay_run("demo", "--folder", "other")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "other is not empty" in run.err
