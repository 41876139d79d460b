"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# before numpy is imported: tests run on all cores already, and threads of BLAS wait by spinning
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest
import soundfile

from unplay import cli
from unplay.virtual.scene import Scene, make_scene

BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "corpus"

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of recorded cases: real/CASE and semisynthetic/CASE."""
    folder = Path(os.environ.get("UNPLAY_CORPUS", BESIDE_THE_REPOSITORY))
    if (folder / "semisynthetic").is_dir():
        return folder
    message = f"no corpus at {folder}; name its folder in UNPLAY_CORPUS"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Eight seconds of music under a talker, 1.3 s late, 80 ppm fast. Not to be written to."""
    return make_scene(duration_s=8.0, reference_s=8.0, offset_s=1.3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "corpus" in getattr(item, "fixturenames", ()):
            item.add_marker("corpus")


@dataclass(frozen=True)
class Run:
    """How one run of the command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def unplay_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Runs `unplay ARGUMENTS…` in this process."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["unplay", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        printed = capsys.readouterr()
        return Run(code, printed.out, printed.err)

    return run


@pytest.fixture
def recorded(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The scene as reference.wav and recording.wav in the working folder, which is empty else."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("reference.wav", scene.reference, scene.sample_rate_hz)
    soundfile.write("recording.wav", scene.recording, scene.sample_rate_hz)
    return scene
