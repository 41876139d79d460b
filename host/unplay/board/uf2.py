"""Writes MicroPython to a Pico: its bootloader is a USB drive that takes a UF2 file and restarts."""

from __future__ import annotations

import os
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path

from unplay.board.images import Firmware, where_from
from unplay.board.repl import open_repl
from unplay.errors import BadInputError, DeviceUnreachableError

INFO = "INFO_UF2.TXT"
CHIPS = {"RPI-RP2": "RP2040", "RP2350": "RP2350"}
"""By the Board-ID of a drive's INFO_UF2.TXT."""

BY_HAND = "hold the board's BOOTSEL button down while you plug it in; it appears as a USB drive"
DRIVE_S = 15.0
RESTART_S = 15.0
CHUNK_BYTES = 64 * 1024

Progress = Callable[[str, float], None]


def flash_uf2(
    firmware: Firmware,
    port: str | None,
    *,
    dry_run: bool,
    progress: Progress,
    drive: Path | None = None,
    roots: list[Path] | None = None,
    patience_s: float = DRIVE_S,
) -> Path:
    """Copy the firmware to the board's drive; the drive. port: of a board that runs MicroPython, else None.

    drive: which one, else it is looked for below `roots` (where systems mount drives) after the bootloader
    was started over the port. Raises BadInputError where file and board do not fit or several drives are
    there, DeviceUnreachableError where none comes, or the copy breaks off.
    """
    roots = mount_points() if roots is None else roots
    if drive is None and not drives(roots) and port is not None and not dry_run:
        progress("starting the bootloader", 0.0)
        with open_repl(port) as repl:
            repl.leave("import machine\nmachine.bootloader()")
    found = drive or _wait_for_drive(roots, patience_s if not dry_run else 0.0)
    _require_chip(firmware, found)
    if not dry_run:
        _copy(firmware, found, progress)
        _wait_for_restart(found)
    return found


def mount_points() -> list[Path]:
    """Folders in which this system mounts drives; on Windows the drives themselves."""
    if sys.platform == "win32":
        return [Path(f"{letter}:\\") for letter in string.ascii_uppercase]
    if sys.platform == "darwin":
        return [Path("/Volumes")]
    user = os.environ.get("USER", "")
    return [Path("/run/media") / user, Path("/media") / user, Path("/media"), Path("/mnt")]


def drives(roots: list[Path]) -> list[Path]:
    """Drives of UF2 bootloaders."""
    found = []
    for root in roots:
        try:
            below = sorted(root.iterdir()) if root.is_dir() else []
        except OSError:
            below = []
        found += [folder for folder in [root, *below] if _is_file(folder / INFO)]
    return list(dict.fromkeys(found))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _wait_for_drive(roots: list[Path], patience_s: float) -> Path:
    deadline_s = time.monotonic() + patience_s
    while True:
        found = drives(roots)
        if len(found) > 1:
            names = " and ".join(map(str, found))
            raise BadInputError(f"several boards are in their bootloader: {names}; choose one with --drive")
        if found:
            return found[0]
        if time.monotonic() >= deadline_s:
            places = ", ".join(map(str, roots))
            raise DeviceUnreachableError(
                f"no board's drive is mounted in {places}: {BY_HAND}. A drive that your system does not "
                "mount by itself can be named with --drive"
            )
        time.sleep(0.1)


def _require_chip(firmware: Firmware, drive: Path) -> None:
    try:
        lines = (drive / INFO).read_text(errors="replace").splitlines()
    except OSError as error:
        raise BadInputError(f"{drive} is no board's drive: it has no {INFO} ({error})") from error
    board_id = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Board-ID:")), "")
    chip = CHIPS.get(board_id)
    if chip is None:
        raise BadInputError(f"{drive} is the drive of {board_id or 'an unknown board'}, no Pico")
    if chip != firmware.chip:
        advice = where_from({"RP2040": "pico", "RP2350": "pico2"}[chip])
        raise BadInputError(f"{firmware.path} is for {firmware.chip} and the board has an {chip}. {advice}")


def _copy(firmware: Firmware, drive: Path, progress: Progress) -> None:
    """The board restarts with the last block, maybe before the file is closed: that is no failure."""
    total, done = len(firmware.data), 0
    try:
        with open(drive / "firmware.uf2", "wb", buffering=0) as file:
            while done < total:
                done += file.write(firmware.data[done : done + CHUNK_BYTES])
                progress("writing", done / total)
            os.fsync(file.fileno())
    except OSError as error:
        if done == total:
            return
        raise DeviceUnreachableError(
            f"copying to {drive} broke off after {done} of {total} bytes ({error.strerror}). The board keeps "
            f"its bootloader, so nothing is lost: {BY_HAND}, and repeat the command"
        ) from error


def _wait_for_restart(drive: Path) -> None:
    deadline_s = time.monotonic() + RESTART_S
    while _is_file(drive / INFO):
        if time.monotonic() > deadline_s:
            raise DeviceUnreachableError(
                f"the firmware was copied to {drive}, but the board did not restart: is the copy damaged? "
                f"Unplug it, {BY_HAND}, and repeat the command"
            )
        time.sleep(0.05)
