"""Puts MicroPython on a board, whichever way its chip takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unplay.board.esp import flash_esp
from unplay.board.images import read_firmware
from unplay.board.ports import candidates
from unplay.board.uf2 import flash_uf2
from unplay.errors import BadInputError, DeviceUnreachableError

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Flashed:
    """What was done. place: the port or drive that the firmware went to.

    bytes: of the file; written_bytes: of these, what the board did not hold yet; with dry_run, what would be.
    """

    firmware: str
    chip: str
    board: str
    place: str
    bytes: int
    written_bytes: int
    dry_run: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def flash(
    path: Path,
    port: str | None = None,
    *,
    drive: Path | None = None,
    erase: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda *_: None,
) -> Flashed:
    """Write a firmware file to a board. Nothing is written where file and board do not fit.

    port: the board's; None: the only one there is. drive: of a Pico in its bootloader. erase: an ESP32's
    whole flash before. dry_run: check all, write nothing. Raises BadInputError, DeviceUnreachableError.
    """
    firmware = read_firmware(path)
    if firmware.kind == "uf2":
        if erase:
            raise BadInputError("--erase is for an ESP32; a Pico's files go with flash_nuke.uf2")
        if port is None and drive is None and len(candidates()) == 1:
            port = candidates()[0]
        place = str(flash_uf2(firmware, port, dry_run=dry_run, progress=progress, drive=drive))
        written_bytes = len(firmware.data)
    elif drive is not None:
        raise BadInputError(
            f"--drive is for a Pico (.uf2); {path} is for an {firmware.chip}, which has a port"
        )
    else:
        place = port or only_port()
        written_bytes = flash_esp(firmware, place, erase=erase, dry_run=dry_run, progress=progress)
    n_bytes = len(firmware.data)
    return Flashed(str(path), firmware.chip, firmware.board, place, n_bytes, written_bytes, dry_run)


def only_port(ports: list[str] | None = None) -> str:
    """The only serial port (on USB). Raises BadInputError for several, DeviceUnreachableError for none."""
    ports = candidates() if ports is None else ports
    if len(ports) > 1:
        raise BadInputError(f"there are several serial ports: {' and '.join(ports)}; choose one with --port")
    if not ports:
        raise DeviceUnreachableError(
            "no board is plugged in: no serial port on USB is there; is it a data cable?"
        )
    return ports[0]
