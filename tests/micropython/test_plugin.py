"""The pytest plugin, in runs of its own: two devices at once, skips, recordings and their replay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

A_TEST = """
import pytest
from unplay.hil import takes

def test_it_hears(device):
    take = device.record(takes.song(2), seconds=3)
    assert take.facts["start_offset_samples"] is not None
    assert take.true_near_end is not None

def test_the_link(device):
    assert device.link.call("status")["state"] == "idle"

@pytest.mark.real_board
def test_a_board(device):
    raise AssertionError

def test_without_a_device():
    pass
"""


def pytest_run(folder: Path, *options: object, embedded: bool = False) -> tuple[int, dict[str, str], str]:
    """Exit code, outcome by test, and what was printed, of a run of pytest in a folder of its own.

    embedded: with pytest-embedded, which is loaded wherever it is installed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-rs", "--strict-markers", "--junit-xml=out.xml"]
    command += [] if embedded else ["-p", "no:pytest_embedded"]
    done = subprocess.run(
        [*command, *map(str, options)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    outcomes: dict[str, str] = {}
    out = folder / "out.xml"
    if out.exists():
        for case in ElementTree.parse(out).iter("testcase"):
            inner = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            outcomes[case.attrib["name"]] = inner[0] if inner else "passed"
        out.unlink()
    return done.returncode, outcomes, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_some.py").write_text(A_TEST)
    return tmp_path


def test_without_an_option_it_says_which(folder: Path):
    code, outcomes, printed = pytest_run(folder)
    assert code == 0
    assert outcomes.pop("test_without_a_device") == "passed"
    assert set(outcomes.values()) == {"skipped"}
    assert "pass --unplay-device virtual, or PORT" in printed


def test_hardware_tests_pass_on_two_virtual_devices_at_once(micropython: str, tmp_path: Path):
    """A process each."""
    out = tmp_path / "out.xml"
    options = (
        "tests/hardware",
        "-k",
        "taken_out or comes_back",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={out}",
    )
    devices = ("--unplay-device", "virtual", "--unplay-device", "virtual")
    code, _, printed = pytest_run(ROOT, *options, *devices, "-n", 2, "--dist", "loadgroup")
    assert code == 0, printed
    cases = {case.attrib["name"] for case in ElementTree.parse(out).iter("testcase")}
    for name in ("virtual-1", "virtual-2"):
        assert f"test_echo_is_taken_out[{name}]" in cases


def test_what_a_device_did_is_replayed_without_it(micropython: str, folder: Path):
    kept = folder / "kept"
    device = ("--unplay-device", "virtual")
    grouped = ("-n", 1, "--dist", "loadgroup")
    code, outcomes, printed = pytest_run(folder, *device, *grouped, "--unplay-record", kept)
    assert code == 0, printed
    assert outcomes["test_it_hears[virtual-1]"] == outcomes["test_the_link[virtual-1]"] == "passed"
    assert outcomes["test_a_board[virtual-1]"] == "skipped"
    code, again, printed = pytest_run(folder, "--unplay-replay", kept)
    assert code == 0, printed
    assert again == {**outcomes, "test_the_link[virtual-1]": "skipped"}
    assert "needs the device itself" in printed
    code, _, printed = pytest_run(folder, "--unplay-replay", folder / "absent")
    assert code != 0
    assert "holds no recordings" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--unplay-device", "virtual", "--unplay-replay", "x"), "leave --unplay-device out"),
        (
            ("--unplay-device", "/dev/ttyX", "-n", 2, "--dist", "load"),
            "several processes would share dev-ttyX",
        ),
    ],
)
def test_options_that_do_not_go_together(folder: Path, options: tuple[object, ...], sentence: str):
    code, _, printed = pytest_run(folder, *options)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert sentence in printed


def test_a_port_without_a_device_fails(folder: Path):
    code, outcomes, printed = pytest_run(folder, "--unplay-device", "/dev/no-such-port")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert outcomes["test_the_link[dev-no-such-port]"] == "error"
    assert "no-such-port" in printed


def test_it_works_beside_pytest_embedded(micropython: str, folder: Path):
    """Both with options of their own, and a test that uses the fixtures of both."""
    (folder / "test_both.py").write_text("def test_both(device, dut): device.link.call('status')")
    options = ("--unplay-device", "virtual", "--port", "/dev/no-such-port", "-n", 1, "--dist", "loadgroup")
    code, outcomes, printed = pytest_run(folder, *options, embedded=True)
    assert code == 0, printed
    assert "embedded" in printed
    assert outcomes["test_it_hears[virtual-1]"] == outcomes["test_both[virtual-1]"] == "passed"


def test_other_fixtures_may_be_called_device(tmp_path: Path):
    """It is a common name."""
    (tmp_path / "test_other.py").write_text(
        "import pytest\n@pytest.fixture\ndef device(): return 7\ndef test_it(device): assert device == 7\n"
    )
    code, outcomes, _ = pytest_run(tmp_path, "--unplay-device", "virtual")
    assert (code, outcomes) == (0, {"test_it": "passed"})
