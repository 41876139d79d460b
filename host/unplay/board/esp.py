"""Writes MicroPython to an ESP32 or ESP32-S3, through esptool's API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from unplay.board.images import ESP_BOARDS, Firmware, where_from
from unplay.errors import BadInputError, DeviceUnreachableError

if TYPE_CHECKING:
    from esptool.loader import ESPLoader

FAST_BAUD = 460_800

BY_HAND = (
    "hold the board's BOOT button down, press and release EN (or RST), let go of BOOT, and repeat the command"
)

Progress = Callable[[str, float], None]


def flash_esp(firmware: Firmware, port: str, *, erase: bool, dry_run: bool, progress: Progress) -> None:
    """Check chip, revision and flash size, then write, verify and restart.

    erase: all of the flash first, settings and recordings included. Raises BadInputError where image and
    board do not fit, DeviceUnreachableError where the board does not answer or breaks off.
    """
    from esptool.cmds import attach_flash, reset_chip, run_stub, verify_flash, write_flash

    with _esptool(progress), _connected(port) as rom:
        _require_chip(firmware, rom)
        esp = run_stub(rom)
        if esp.IS_STUB and "://" not in port:
            esp.change_baud(FAST_BAUD)
        attach_flash(esp)
        _require_room(firmware, esp)
        if not dry_run:
            place = [(esp.BOOTLOADER_FLASH_OFFSET, firmware.data)]
            write_flash(esp, list(place), erase_all=erase)
            verify_flash(esp, list(place))
        reset_chip(esp, "hard-reset")


@contextlib.contextmanager
def _connected(port: str) -> Iterator[ESPLoader]:
    """The chip at a port, in its bootloader; esptool's exceptions as ours."""
    import serial
    from esptool.cmds import detect_chip
    from esptool.util import FatalError

    try:
        esp = detect_chip(port, connect_attempts=3)
    except (FatalError, OSError) as error:
        raise DeviceUnreachableError(
            f"no ESP32 in its bootloader answers at {port} ({_first_line(error)}): {BY_HAND}"
        ) from error
    try:
        yield esp
    except (FatalError, OSError, serial.SerialException) as error:
        raise DeviceUnreachableError(
            f"writing to the board at {port} broke off ({_first_line(error)}). It has no whole firmware now, "
            "which does it no harm: plug it in again and repeat the command. If it does not answer then, "
            + BY_HAND
        ) from error
    finally:
        with contextlib.suppress(Exception):
            esp._port.close()


def _require_chip(firmware: Firmware, esp: ESPLoader) -> None:
    chip = esp.CHIP_NAME
    if chip != firmware.chip:
        advice = where_from(ESP_BOARDS.get(chip, ""))
        raise BadInputError(f"{firmware.path} is for {firmware.chip} and the board has an {chip}. {advice}")
    revision = esp.get_chip_revision()
    if revision < firmware.least_revision:
        raise BadInputError(
            f"{firmware.path} needs a chip of revision {firmware.least_revision / 100:.2f} or later, and the "
            f"board's has {revision / 100:.2f}; take an older firmware or a newer board"
        )


def _require_room(firmware: Firmware, esp: ESPLoader) -> None:
    from esptool.cmds import detect_flash_size

    size = detect_flash_size(esp)
    if size is None:
        return
    room = int(size.removesuffix("MB")) << 20 if size.endswith("MB") else int(size.removesuffix("KB")) << 10
    needed = esp.BOOTLOADER_FLASH_OFFSET + len(firmware.data)
    if needed > room:
        raise BadInputError(
            f"{firmware.path} needs {needed} bytes of flash and the board has {size}; take a smaller one"
        )


@contextlib.contextmanager
def _esptool(progress: Progress) -> Iterator[None]:
    """esptool's talk goes nowhere, its progress to ours."""
    from esp_pylib.logger import EspLog
    from esptool.logger import TemplateLogger, log

    class Quiet(TemplateLogger):
        def print(self, *args: Any, **kwargs: Any) -> None: ...

        def note(self, message: str) -> None: ...

        def warning(self, message: str) -> None: ...

        def error(self, message: str) -> None: ...

        def stage(self, finish: bool = False) -> None: ...

        def set_verbosity(self, verbosity: str) -> None: ...

        def progress_bar(self, cur_iter: int, total_iters: int, *_: Any, **__: Any) -> None:
            progress("writing", cur_iter / max(total_iters, 1))

    before = EspLog.instance
    log.set_logger(Quiet())  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        EspLog.instance = before


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
