"""Puts unplay on a board that has MicroPython: only files that differ, checked before they count."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unplay.board.faults import TransferError
from unplay.board.finding import virtual_ports
from unplay.board.firmware import MAIN, VIRTUAL, build
from unplay.board.flash import only_port
from unplay.board.link import DeviceLink, keep_trying
from unplay.board.ports import candidates
from unplay.board.repl import Repl, open_repl
from unplay.errors import BadInputError, DeviceUnreachableError

MPY_VERSION = (6, 3)
"""Of the compiled files; MicroPython 1.23 and later read it."""

ARCHITECTURES = {2: VIRTUAL, 4: "armv6m", 7: "armv7emsp", 10: "xtensawin"}
"""Numbers of MicroPython's `sys.implementation._mpy`."""

FIRST_SETTINGS: dict[str, dict[str, Any]] = {"pico": {"block": 512, "tail_ms": 64}}
"""Where the usual ones do not fit: device/README.md, RAM of a Pico."""

ONE_I2S = ("ESP32C", "ESP32-C", "ESP32S2", "ESP32-S2", "ESP32H", "ESP32-H")

SETTINGS = "/settings.json"
NEW = ".new"
FOREIGN_MAIN = "/main-before-unplay.py"
START_S = 20.0
"""From reset to the application's first answer, card and USB included."""

Progress = Callable[[str, float], None]
"""Is told what is done, and how much of it (0 to 1)."""

_HELPERS = """
import os, json, hashlib, binascii
def digest(path):
    sha = hashlib.sha256()
    buffer = bytearray(512)
    with open(path, "rb") as file:
        while True:
            n = file.readinto(buffer)
            if not n:
                break
            sha.update(memoryview(buffer)[:n])
    return binascii.hexlify(sha.digest()).decode()
def walk(path, found):
    try:
        entries = list(os.ilistdir(path))
    except OSError:
        return
    for entry in entries:
        inner = path + "/" + entry[0]
        if entry[1] & 0x4000:
            walk(inner, found)
        else:
            found[inner] = digest(inner)
def make(path):
    done = ""
    for part in path.split("/")[1:-1]:
        done += "/" + part
        try:
            os.mkdir(done)
        except OSError:
            pass
def take_over(stale, changed):
    for path in stale:
        os.remove(path)
    for path in changed:
        try:
            os.remove(path)
        except OSError:
            pass
        os.rename(path + ".new", path)
"""

_LOOK = """
import sys
found = {}
for folder in ("/lib/unplay_shared", "/lib/unplay_device"):
    walk(folder, found)
names = os.listdir("/")
if "main.py" in names:
    found["/main.py"] = digest("/main.py")
stat = os.statvfs("/")
print(json.dumps({
    "platform": sys.platform,
    "machine": getattr(sys.implementation, "_machine", ""),
    "firmware": list(sys.implementation.version)[:3],
    "mpy": getattr(sys.implementation, "_mpy", 0),
    "free_bytes": stat[0] * stat[3],
    "has_settings": "settings.json" in names,
    "main_is_ours": "main.py" in names and "unplay_device" in open("/main.py").read(),
    "files": found,
}))
"""


@dataclass(frozen=True)
class Installed:
    """What was done. started: whether the application answered after the reset; None: was not waited for."""

    port: str
    board: str
    firmware: str
    written: list[str]
    removed: list[str]
    kept: int
    dry_run: bool
    started: bool | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def install(
    port: str | None, *, board: str = "", dry_run: bool = False, progress: Progress = lambda *_: None
) -> Installed:
    """Bring the board at a serial port (None: the only one) up to date, and start it. Settings stay.

    New files are written beside the old ones, compared by their hash on the board, and only then renamed:
    a transfer that breaks off leaves what was there. board: for the settings of a new installation; empty:
    found out. Raises BadInputError for a board that cannot do it, DeviceUnreachableError for a bad line.
    """
    port = port or only_port([*candidates(), *virtual_ports()])
    refuse_while_recording(port)
    with open_repl(port) as repl, tempfile.TemporaryDirectory() as folder:
        progress("looking at the board", 0.0)
        found = repl.run(_HELPERS + _LOOK)
        name = board or board_name(found)
        wanted = _build(Path(folder), processor(found), progress)
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in wanted.items()}
        changed = [path for path in wanted if found["files"].get(path) != digests[path]]
        stale = sorted(set(found["files"]) - set(wanted) - {path + NEW for path in changed})
        if not found["has_settings"]:
            wanted[SETTINGS] = json.dumps({"board": name, **FIRST_SETTINGS.get(name, {})}).encode()
            digests[SETTINGS] = hashlib.sha256(wanted[SETTINGS]).hexdigest()
            changed.append(SETTINGS)
        done = Installed(
            port=port,
            board=name,
            firmware="MicroPython " + ".".join(map(str, found["firmware"])),
            written=changed,
            removed=stale,
            kept=len(wanted) - len(changed),
            dry_run=dry_run,
        )
        if not dry_run:
            _require_room(found["free_bytes"], sum(len(wanted[path]) for path in changed))
            _write(repl, {path: wanted[path] for path in changed}, progress)
            _check(repl, {path: digests[path] for path in changed})
            keep_main = "/main.py" in found["files"] and not found["main_is_ours"]
            _take_over(repl, changed, stale, keep_main)
        progress("starting the board", 1.0)
        repl.leave("import machine\nmachine.reset()")
    return done if dry_run else replace(done, started=wait_for_start(port))


def refuse_while_recording(port: str) -> None:
    """Raises BadInputError where unplay answers and records. Also ends what another host left open."""
    try:
        with DeviceLink(port, raise_baud=False, patience_s=0.5) as link:
            state = link.call("status")["state"]
    except DeviceUnreachableError:
        return
    if state != "idle":
        raise BadInputError(f"the device at {port} is recording ({state}); end it with `unplay device stop`")


def processor(found: dict[str, Any]) -> str:
    """mpy-cross's name of what the board runs. Raises BadInputError where its firmware cannot be served."""
    number = found["mpy"]
    version = (number & 0xFF, number >> 8 & 3)
    firmware = ".".join(map(str, found["firmware"]))
    if version != MPY_VERSION:
        raise BadInputError(
            f"MicroPython {firmware} reads compiled files of version {version[0]}.{version[1]}, and unplay "
            f"makes {MPY_VERSION[0]}.{MPY_VERSION[1]}; put a firmware of version 1.29 on the board with "
            "`unplay device flash`"
        )
    try:
        return ARCHITECTURES[number >> 10 & 0x3F]
    except KeyError:
        raise BadInputError(
            f"{found['machine'] or found['platform']} is no ESP32, ESP32-S3, Pico or Pico 2"
        ) from None


def board_name(found: dict[str, Any]) -> str:
    """The board's file, by what its MicroPython says of itself. Raises BadInputError."""
    machine, platform = found["machine"], found["platform"]
    if platform == "rp2":
        return "pico2" if "RP2350" in machine else "pico"
    if platform == "esp32":
        if any(name in machine.upper() for name in ONE_I2S):
            raise BadInputError(
                f"{machine} has one I2S, so it cannot play and record at once; take an ESP32-S3 or a Pico"
            )
        return "esp32s3" if "S3" in machine else "esp32"
    if platform == "linux":
        return "esp32"  # what a virtual device is unless its scene says otherwise
    raise BadInputError(f"{machine or platform} is no ESP32, ESP32-S3, Pico or Pico 2")


def _build(folder: Path, architecture: str, progress: Progress) -> dict[str, bytes]:
    """Paths on the board and what shall lie there; /main.py last."""
    progress("compiling", 0.0)
    paths = build(folder, architecture)
    paths.sort(key=lambda path: path.name == MAIN)
    return {"/" + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _require_room(free_bytes: int, needed_bytes: int) -> None:
    reserve = 16 * 1024
    if free_bytes < needed_bytes + reserve:
        raise BadInputError(
            f"the board's flash has {free_bytes} bytes free and {needed_bytes + reserve} are needed; remove "
            "what you do not need with `mpremote rm`"
        )


def _write(repl: Repl, files: dict[str, bytes], progress: Progress) -> None:
    total = sum(map(len, files.values())) or 1
    before = 0
    for path, data in files.items():
        repl.run(f"make({path!r})")
        repl.write(path + NEW, data, lambda n, b=before, p=path: progress(f"writing {p}", (b + n) / total))
        before += len(data)


def _check(repl: Repl, digests: dict[str, str]) -> None:
    """Raises TransferError where a new file is not what was sent."""
    for path, expected in digests.items():
        if repl.run(f"print(json.dumps(digest({path + NEW!r})))") != expected:
            raise TransferError(f"{path} did not arrive as it was sent; nothing was changed. Try again")


def _take_over(repl: Repl, changed: list[str], stale: list[str], keep_main: bool) -> None:
    """The new files in the place of the old ones."""
    if keep_main:
        repl.run(f"os.rename('/main.py', {FOREIGN_MAIN!r})")
    repl.run(f"take_over({stale!r}, {changed!r})")


def wait_for_start(port: str, patience_s: float = START_S) -> bool:
    """Whether unplay answers at the port, which may be gone for a moment."""
    try:
        keep_trying(lambda: DeviceLink(port, raise_baud=False, patience_s=1.0).close(), patience_s)
    except DeviceUnreachableError:
        return False
    return True


def wait_for_prompt(port: str | None, patience_s: float = START_S) -> str:
    """The port of a board that was just flashed, when MicroPython answers there.

    port: None: the only one there is. Raises BadInputError, DeviceUnreachableError.
    """

    def prompt() -> str:
        found = port or only_port()
        with open_repl(found):
            return found

    return keep_trying(prompt, patience_s)
