"""What the pytest plugin gives to tests: a device on a port, a virtual one, or the recording of one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from unplay.board.link import DeviceLink
from unplay.board.references import Reference, push
from unplay.errors import BadInputError
from unplay.hil.choosing import Choice
from unplay.hil.takes import Take, fetch, load, record
from unplay.virtual.device import VirtualDevice
from unplay.virtual.setup import read

ABOUT = "device.json"


class Source(Protocol):
    """Where takes come from. welcome: what the device says of itself."""

    is_virtual: bool
    welcome: dict[str, Any]

    def take(self, test: str, call: int, reference: Reference | None, seconds: int) -> Take: ...


class Device:
    """One device, for one test: the fixture `device`."""

    def __init__(self, source: Source, test: str, keep: Path | None = None) -> None:
        self._source, self._test, self._keep = source, test, keep
        self._calls = 0
        self.is_virtual = source.is_virtual
        self.welcome = source.welcome

    @property
    def live(self) -> LiveDevice:
        """The device itself; a test that needs it is skipped where only its recording is there."""
        if not isinstance(self._source, LiveDevice):
            pytest.skip("needs the device itself: pass --unplay-device instead of --unplay-replay")
        return self._source

    @property
    def port(self) -> str:
        return self.live.port

    @property
    def link(self) -> DeviceLink:
        return self.live.link

    @property
    def virtual(self) -> VirtualDevice:
        """The virtual device and the world around it; the test is marked `virtual_only`."""
        virtual = self.live.virtual
        assert virtual is not None, "mark the test with pytest.mark.virtual_only"
        return virtual

    def restart(self) -> None:
        """Start it again: a virtual device loses power, a board is reset."""
        self.live.restart()

    def record(self, reference: Reference | None = None, seconds: int = 0) -> Take:
        """Play a reference, or nothing, and record: to its end, or for so many seconds.

        With --unplay-record the take is kept, with --unplay-replay it is one that was.
        """
        self._calls += 1
        take = self._source.take(self._test, self._calls, reference, seconds)
        if self._keep is not None:
            folder = self._keep / self._test
            if self._calls == 1:
                shutil.rmtree(folder, ignore_errors=True)
            take.save(folder / str(self._calls))
        return take


class LiveDevice:
    """A device that answers, from the first test that needs it to the last."""

    def __init__(self, choice: Choice, storage: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._pushed: set[str] = set()
        self.virtual: VirtualDevice | None = None
        if choice.is_virtual:
            scene = Path(choice.scene) if choice.scene else None
            device = VirtualDevice(storage, read(scene), name=choice.id)
            self.virtual = self._stack.enter_context(device)
        self.port = self.virtual.port if self.virtual else choice.port
        self.is_virtual = choice.is_virtual
        try:
            self.link = DeviceLink(self.port)
        except BaseException:
            self._stack.close()
            raise
        self.welcome = self.link.welcome

    def close(self) -> None:
        self.link.close()
        self._stack.close()

    def restart(self) -> None:
        if self.virtual is None:
            self.link.restart()
            return
        self.link.close()
        self.virtual.cut_power()
        self.virtual.start()
        self.link = DeviceLink(self.port)

    def take(self, test: str, call: int, reference: Reference | None, seconds: int) -> Take:
        name = ""
        if reference is not None:
            name = reference.name
            if reference.sha256 not in self._pushed:
                push(self.link, reference, select=False)
                self._pushed.add(reference.sha256)
        take = fetch(self.link, record(self.link, name, seconds))
        if self.virtual is None:
            return take
        truth = self.virtual.streams.truth(len(take.microphone))
        return Take(take.facts, take.microphone, take.residual, truth)

    def about(self, folder: Path) -> None:
        """Note what was recorded, for its replay."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"is_virtual": self.is_virtual, "welcome": self.welcome}, indent=2)
        (folder / ABOUT).write_text(text, "utf-8")


@dataclass
class RecordedDevice:
    """What --unplay-record kept in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        about = json.loads((self.folder / ABOUT).read_text("utf-8"))
        self.is_virtual, self.welcome = about["is_virtual"], about["welcome"]

    def take(self, test: str, call: int, reference: Reference | None, seconds: int) -> Take:
        folder = self.folder / test / str(call)
        if not folder.is_dir():
            raise BadInputError(
                f"{folder} is not there: recording {call} of this test was not kept. Run it on the device "
                "with --unplay-record."
            )
        return load(folder)


def recorded_ids(folder: Path) -> list[str]:
    """Devices whose recordings are in a folder. Raises BadInputError where there are none."""
    ids = sorted(path.parent.name for path in folder.glob(f"*/{ABOUT}"))
    if not ids:
        raise BadInputError(f"{folder} holds no recordings: make them with --unplay-record.")
    return ids


def folder_of(nodeid: str) -> str:
    """A test's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid).strip("-.")
