"""The pytest plugin: the fixture `device`, on virtual devices, on boards, or on what was recorded of them.

pytest loads this wherever unplay is installed, so nothing heavy is imported before a test asks for a device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from unplay.hil.choosing import Choice, choices

if TYPE_CHECKING:
    from unplay.hil.devices import Device, LiveDevice, Source

NO_DEVICE = "needs a device: pass --unplay-device virtual, or PORT, or tcp://HOST:PORT"
MARKERS = (
    "real_board: needs a real board; skipped on a virtual device",
    "virtual_only: needs a virtual device, whose truth is known; skipped on a board",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unplay", "devices that play and record")
    group.addoption(
        "--unplay-device",
        action="append",
        default=[],
        metavar="virtual[:SCENE]|PORT",
        help="run tests that use `device` on it; may be given several times",
    )
    group.addoption("--unplay-record", metavar="DIR", help="keep what `device.record` gives in a folder")
    group.addoption("--unplay-replay", metavar="DIR", help="take it from there, without a device")
    parser.addini("unplay_device", "where no --unplay-device is given", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if config.getoption("unplay_device") and config.getoption("unplay_replay"):
        raise pytest.UsageError("--unplay-replay takes the place of a device: leave --unplay-device out.")
    if config.getoption("unplay_record") and config.getoption("unplay_replay"):
        raise pytest.UsageError("--unplay-replay has nothing new for --unplay-record: leave one out.")
    boards = [choice.id for choice in _choices(config) if not choice.is_virtual]
    if boards and config.getoption("dist", "no") not in ("no", "loadgroup"):
        raise pytest.UsageError(
            f"several processes would share {boards[0]}: add --dist loadgroup (a process a board), or -n 0."
        )


def pytest_report_header(config: pytest.Config) -> str | None:
    if replayed := config.getoption("unplay_replay"):
        return f"unplay: recordings in {replayed}"
    names = ", ".join(choice.id for choice in _choices(config))
    return f"unplay: {names}" if names else None


def _choices(config: pytest.Config) -> list[Choice]:
    return choices(config.getoption("unplay_device") or config.getini("unplay_device"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on each device. Theirs is another fixture's name, so that others may have a `device`, too."""
    if "_unplay_choice" not in metafunc.fixturenames:
        return
    config = metafunc.config
    if folder := config.getoption("unplay_replay"):
        from unplay.errors import BadInputError
        from unplay.hil.devices import recorded_ids

        try:
            made = [Choice(id) for id in recorded_ids(Path(folder))]
        except BadInputError as error:
            raise pytest.UsageError(str(error)) from error
    else:
        made = _choices(config)
    if made:
        metafunc.parametrize("_unplay_choice", [_parameter(config, choice) for choice in made])


def _parameter(config: pytest.Config, choice: Choice) -> object:
    """With xdist's --dist loadgroup one process has all tests of a device."""
    has_xdist = config.pluginmanager.hasplugin("xdist")
    return pytest.param(choice, id=choice.id, marks=[pytest.mark.xdist_group(choice.id)] if has_xdist else [])


@pytest.fixture
def _unplay_choice() -> Choice:
    """Parametrized where devices were named."""
    pytest.skip(NO_DEVICE)


@pytest.fixture(scope="session")
def _unplay_devices() -> Iterator[dict[Choice, LiveDevice]]:
    """Those that answer; each is started by the first test that needs it."""
    started: dict[Choice, LiveDevice] = {}
    yield started
    for device in started.values():
        device.close()


@pytest.fixture
def device(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _unplay_choice: Choice,
    _unplay_devices: dict[Choice, LiveDevice],
) -> Device:
    """A device that plays and records: `device.record(reference)`, `device.link`; see unplay.hil.devices."""
    from unplay.hil.devices import Device, RecordedDevice, folder_of

    config, choice = request.config, _unplay_choice
    test = folder_of(request.node.nodeid.removesuffix(f"@{choice.id}"))  # of xdist's loadgroup
    if folder := config.getoption("unplay_replay"):
        source: Source = RecordedDevice(Path(folder) / choice.id)
        _skip_others(request, source.is_virtual)
        return Device(source, test)
    _skip_others(request, choice.is_virtual)
    if choice not in _unplay_devices:
        _unplay_devices[choice] = _start(choice, tmp_path_factory)
    live = _unplay_devices[choice]
    keep = None
    if folder := config.getoption("unplay_record"):
        keep = Path(folder) / choice.id
        live.about(keep)
    return Device(live, test, keep)


def _skip_others(request: pytest.FixtureRequest, is_virtual: bool) -> None:
    if is_virtual and request.node.get_closest_marker("real_board"):
        pytest.skip("needs a real board: pass --unplay-device PORT, or tcp://HOST:PORT")
    if not is_virtual and request.node.get_closest_marker("virtual_only"):
        pytest.skip("needs a virtual device: pass --unplay-device virtual")


def _start(choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> LiveDevice:
    """A virtual device that cannot be had skips on a desk and fails where CI is set; a board always fails."""
    from unplay.errors import DeviceUnreachableError
    from unplay.hil.devices import LiveDevice

    try:
        return LiveDevice(choice, tmp_path_factory.mktemp(choice.id) / "storage")
    except DeviceUnreachableError as error:
        if choice.is_virtual and "CI" not in os.environ:
            pytest.skip(str(error))
        raise
