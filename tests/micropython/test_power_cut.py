"""The power goes while a session is written: what is left must be a valid, shorter session."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unplay.board.link import DeviceLink
from unplay.virtual.device import FLASH_BYTES, VirtualDevice
from unplay.virtual.setup import CardSetup, Setup

NewDevice = Callable[..., VirtualDevice]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
N_CUTS = 200
RATE_HZ = 16_000
SETTLING_SAMPLES = 5 * 1024
"""Thrown away at the beginning: `settle_ms` in whole blocks."""

FIRST_BYTES = 32 * 2048
"""Two seconds in whole blocks."""

CARD = CardSetup(mb=16, block_ms=0.0)
SYSTEMS = {"fat": (Setup(card=CARD), CARD.mb << 20), "lfs": (Setup(card=None), FLASH_BYTES)}


@dataclass(frozen=True)
class Write:
    """One that reached the storage when so many samples of the second session had been read."""

    position: int
    data: bytes
    n_heard: int


class Journal:
    """All writes of a device since `begin`."""

    def __init__(self) -> None:
        self.writes: list[Write] | None = None
        self.device: VirtualDevice | None = None

    def begin(self, device: VirtualDevice) -> None:
        self.device, self.writes = device, []
        self.earlier = device.streams.heard  # another list takes its place when sound begins

    def __call__(self, position: int, data: bytes) -> None:
        if self.device is not None and self.writes is not None:
            heard = self.device.streams.heard
            n_heard = 0 if heard is self.earlier else sum(n for _, n in heard) - SETTLING_SAMPLES
            self.writes.append(Write(position, data, max(n_heard, 0)))


def record(link: DeviceLink, seconds: int) -> str:
    name = link.record({"reference": "", "seconds": seconds})["id"]
    for status in link.status():
        if status["state"] == "idle":
            break
    return name


@pytest.fixture(scope="module", params=SYSTEMS)
def recorded(
    request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, bytes, list[Write]]:
    """The file system, the image before the second session, and what that wrote."""
    import shutil

    setup, _ = SYSTEMS[request.param]
    storage = tmp_path_factory.mktemp("device") / request.param
    shutil.copytree(images, storage)
    image = storage / ("card.img" if setup.card else "flash.img")
    journal = Journal()
    with VirtualDevice(storage, setup, on_write=journal) as device, DeviceLink(device.port) as link:
        link.config_set({"storage": "sd" if setup.card else "flash"})
        record(link, 2)
        before = image.read_bytes()
        journal.begin(device)
        record(link, 8)
    assert journal.writes is not None
    return request.param, before, journal.writes


def recover(micropython: str, kind: str, images: list[Path]) -> list[dict[str, Any]]:
    """What a device finds on each image."""
    _, n_bytes = SYSTEMS[kind]
    lines = "".join(f"{kind} {image} {n_bytes}\n" for image in images)
    sources = [str(ROOT / "shared"), str(ROOT / "device")]
    done = subprocess.run(
        [micropython, str(HERE / "recover.py"), *sources], input=lines, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def cut_at(image: bytearray, write: Write, rng: np.random.Generator) -> None:
    """The last write gets as far as a sector of it."""
    torn = 512 * int(rng.integers(0, len(write.data) // 512 + 1))
    image[write.position : write.position + torn] = write.data[:torn]


def test_two_hundred_power_cuts(
    micropython: str, recorded: tuple[str, bytes, list[Write]], tmp_path: Path
) -> None:
    kind, before, writes = recorded
    rng = np.random.default_rng(0)
    image = bytearray(before)
    cuts: NDArray = np.sort(rng.integers(0, len(writes), N_CUTS))
    done = 0
    for first in range(0, N_CUTS, 20):  # images in batches: they are big
        batch, paths = cuts[first : first + 20], []
        for number, cut in enumerate(batch):
            while done < cut:
                write = writes[done]
                image[write.position : write.position + len(write.data)] = write.data
                done += 1
            torn = bytearray(image)
            cut_at(torn, writes[cut], rng)
            paths.append(tmp_path / f"{number}.img")
            paths[-1].write_bytes(torn)
        for cut, found in zip(batch, recover(micropython, kind, paths), strict=True):
            check(found, writes[cut])


def check(found: dict[str, Any], last: Write) -> None:
    """The first session is untouched; the second is listed, valid, at most a second short."""
    assert "error" not in found, found
    sessions = found["sessions"]
    first = sessions.pop("unset-0001")
    assert first["ended"] == "length"
    assert first["sizes"]["mic.pcm"] == FIRST_BYTES
    assert set(first["sizes"]) == {"mic.pcm", "session.json"}
    if not sessions:
        assert last.n_heard == 0, last.n_heard
        return
    session = sessions["unset-0002"]
    n_samples = session["sizes"].get("mic.pcm", 0) // 2
    assert n_samples >= last.n_heard - RATE_HZ
    assert session["ended"] in ("power", "length")
