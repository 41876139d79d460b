"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unplay.virtual.scene import Scene, make_scene

BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "corpus"


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
