"""`unplay device flash`, `install`, `doctor` and `setup`: what a new board needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing

if TYPE_CHECKING:
    from unplay.board.doctor import Examination
    from unplay.board.flash import Flashed
    from unplay.board.install import Installed

FOUND = 6
"""Exit code of an examination that found something, as of a validation below its floor."""

FIRMWARE = typer.Argument(metavar="FIRMWARE", help="MicroPython's .bin (ESP32) or .uf2 (Pico) file.")
PORT = typer.Option(metavar="PORT", help="Serial port of the board; not needed where there is only one.")
DRIVE = typer.Option(metavar="FOLDER", help="Where the drive of a Pico in its bootloader is mounted.")
BOARD = typer.Option(metavar="NAME", help="esp32, esp32s3, pico or pico2; found out if not given.")
ERASE = typer.Option("--erase", help="Erase an ESP32's whole flash first, settings and recordings included.")
DRY_RUN = typer.Option("--dry-run", help="Check and say what would be done, write nothing.")
JSON = typer.Option("--json", help="Print what was done as JSON, and nothing else, on stdout.")

Port = Annotated[str | None, PORT]
Board = Annotated[str, BOARD]
Drive = Annotated[Path | None, DRIVE]


def flash(
    firmware: Annotated[Path, FIRMWARE],
    port: Port = None,
    drive: Drive = None,
    erase: Annotated[bool, ERASE] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Put MicroPython on a board: an ESP32 or ESP32-S3 over its port, a Pico through its USB drive.

    File and board are compared first (chip, revision, size), and what was written is verified. An ESP32
    gets only what it does not hold yet, so a write that broke off goes on there. Nothing is downloaded;
    the stock MicroPython 1.29 is at https://micropython.org/download/ (ESP32_GENERIC,
    ESP32_GENERIC_S3, RPI_PICO or RPI_PICO2).

    Example: unplay device flash ESP32_GENERIC-v1.29.0.bin --port /dev/ttyUSB0
    """
    done = _flash(firmware, port, drive, erase, dry_run)
    if as_json:
        printing.print_json(done.as_json())
    else:
        print_flashed(done)


def install(
    port: Port = None,
    board: Board = "",
    dry_run: Annotated[bool, DRY_RUN] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Put unplay on a board that has MicroPython, or bring it up to date. Settings stay.

    Example: unplay device install --port /dev/ttyUSB0
    """
    done = _install(port, board, dry_run)
    if as_json:
        printing.print_json(done.as_json())
    else:
        print_installed(done)


def setup(
    firmware: Annotated[Path, FIRMWARE],
    port: Port = None,
    drive: Drive = None,
    board: Board = "",
    erase: Annotated[bool, ERASE] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """A new board, all in one: flash MicroPython, install unplay, examine it as `doctor` does.

    Example: unplay device setup RPI_PICO2-v1.29.0.uf2
    """
    flashed = _flash(firmware, port, drive, erase, False)
    if not as_json:
        print_flashed(flashed)
    from unplay.board.install import wait_for_prompt

    with printing.progress() as progress:
        progress("waiting for MicroPython", 0.0)
        found = wait_for_prompt(port)
    installed = _install(found, board, False)
    if not as_json:
        print_installed(installed)
    examination = _examine(found)
    if as_json:
        steps = {"flash": flashed, "install": installed, "doctor": examination}
        printing.print_json({name: step.as_json() for name, step in steps.items()})
    else:
        print_examination(examination)
    _end(examination)


def doctor(port: Port = None, as_json: Annotated[bool, JSON] = False) -> None:
    """Play and record for a few seconds, and name the wire or setting that is wrong. Be quiet meanwhile.

    Exit code 6 where something was found.

    Example: unplay device doctor
    """
    examination = _examine(port)
    if as_json:
        printing.print_json(examination.as_json())
    else:
        print_examination(examination)
    _end(examination)


def _examine(port: str | None) -> Examination:
    with printing.progress() as progress:
        from unplay.board.doctor import examine
        from unplay.board.finding import the_only_port
        from unplay.board.link import DeviceLink

        with DeviceLink(port or the_only_port()) as link:
            return examine(link, progress)


def _end(examination: Examination) -> None:
    if examination.findings:
        raise typer.Exit(FOUND)


def print_examination(examination: Examination) -> None:
    for entry in examination.findings:
        print(f"{entry.code}: {entry.sentence}")
    if not examination.findings:
        print(f"{examination.board} at {examination.port}: microphone, loudspeaker and card are well")


def _flash(firmware: Path, port: str | None, drive: Path | None, erase: bool, dry_run: bool) -> Flashed:
    with printing.progress() as progress:
        from unplay.board.flash import flash

        return flash(firmware, port, drive=drive, erase=erase, dry_run=dry_run, progress=progress)


def _install(port: str | None, board: str, dry_run: bool) -> Installed:
    with printing.progress() as progress:
        from unplay.board.install import install

        return install(port, board=board, dry_run=dry_run, progress=progress)


def print_flashed(done: Flashed) -> None:
    if done.dry_run:
        would = f"{done.written_bytes} of {done.bytes} bytes would be"
        print(f"{done.firmware} fits the {done.chip} at {done.place}; {would}, nothing was written")
        return
    there = done.bytes - done.written_bytes
    said = f"{done.bytes} bytes" + (f", of which {there} were there already" if there else "")
    print(f"wrote MicroPython to the {done.chip} at {done.place} and verified it ({said})")


def print_installed(done: Installed) -> None:
    writes, removes = ("would write", "would remove") if done.dry_run else ("wrote", "removed")
    print(
        f"{done.board} at {done.port}, {done.firmware}: {writes} {len(done.written)} files, {done.kept} stay"
    )
    for path in done.removed:
        print(f"{removes} {path}, which is no longer part of unplay")
    if done.started is False:
        print("the board does not answer yet: press its reset button, then try `unplay device info`")
    elif done.board.startswith("pico") and not done.dry_run:
        print("a Pico's card needs sdcard.py: mpremote mip install sdcard")
