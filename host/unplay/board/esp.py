"""Writes MicroPython to an ESP32 or ESP32-S3, through esptool's API."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unplay.board.images import ESP_BOARDS, Firmware, where_from
from unplay.board.ports import require_serial
from unplay.errors import BadInputError, DeviceUnreachableError

if TYPE_CHECKING:
    from esptool.loader import ESPLoader

FAST_BAUD = 460_800
ESPTOOL_URLS = ("socket://", "rfc2217://")
"""Ports that are elsewhere, as pyserial names them."""

REGION_BYTES = 64 << 10
"""What is compared at a time: a block that flash chips erase at once."""

BY_HAND = (
    "hold the board's BOOT button down, press and release EN (or RST), let go of BOOT, and repeat the command"
)

Progress = Callable[[str, float], None]


@dataclass
class Bar:
    """Progress over parts, of which each is reported from 0 to 1."""

    progress: Progress
    total_bytes: int = 1
    before_bytes: int = 0
    part_bytes: int = 0

    def __call__(self, share: float) -> None:
        self.progress("writing", (self.before_bytes + share * self.part_bytes) / self.total_bytes)

    def next(self, part_bytes: int) -> None:
        self.before_bytes += self.part_bytes
        self.part_bytes = part_bytes


def flash_esp(firmware: Firmware, port: str, *, erase: bool, dry_run: bool, progress: Progress) -> int:
    """Check chip, revision and flash size, then write what the flash does not hold yet, verify and restart.

    Returns how many bytes that was, or would be. erase: all of the flash first, settings and recordings
    included. Raises BadInputError where image and board do not fit, DeviceUnreachableError where the board
    does not answer or breaks off, or esptool is missing.
    """
    require_esptool()
    from esptool.cmds import attach_flash, erase_flash, reset_chip, run_stub, verify_flash, write_flash

    bar = Bar(progress)
    with _esptool(bar), _connected(port) as rom:
        _require_chip(firmware, rom)
        esp = run_stub(rom)
        if esp.IS_STUB and not port.startswith(ESPTOOL_URLS):
            esp.change_baud(FAST_BAUD)
        attach_flash(esp)
        _require_room(firmware, esp)
        place = (esp.BOOTLOADER_FLASH_OFFSET, firmware.data)
        if erase and not dry_run:
            erase_flash(esp)
        parts = [place] if erase else list(missing(esp, *place, progress))
        bar.total_bytes = sum(len(data) for _, data in parts)
        if not dry_run:
            for part in parts:
                bar.next(len(part[1]))
                write_flash(esp, [part])
            verify_flash(esp, [place])
        reset_chip(esp, "hard-reset")
        return bar.total_bytes


def require_esptool() -> None:
    """Raises DeviceUnreachableError with the next step where it is not installed."""
    if importlib.util.find_spec("esptool") is None:
        raise DeviceUnreachableError(
            "an ESP32 is flashed with esptool, which is not installed (being under the GPL, it does "
            "not come with unplay): pip install 'unplay[flash]', then repeat the command"
        )


def missing(esp: ESPLoader, address: int, data: bytes, progress: Progress) -> Iterator[tuple[int, bytes]]:
    """(address, data) of what the flash does not hold yet, by the board's own MD5; neighbours are one."""
    end = address + len(data)
    begun = first = address
    while first < end:
        last = min((first // REGION_BYTES + 1) * REGION_BYTES, end)
        progress("comparing", (first - address) / len(data))
        part = data[first - address : last - address]
        if esp.flash_md5sum(first, len(part)) == hashlib.md5(part).hexdigest():
            if begun < first:
                yield begun, data[begun - address : first - address]
            begun = last
        first = last
    if begun < end:
        yield begun, data[begun - address :]


@contextlib.contextmanager
def _connected(port: str) -> Iterator[ESPLoader]:
    """The chip at a port, in its bootloader; esptool's exceptions as ours."""
    import serial
    from esptool.cmds import detect_chip
    from esptool.util import FatalError

    if not port.startswith(ESPTOOL_URLS):
        require_serial(port)  # says why not, which esptool does not
    try:
        esp = detect_chip(port, connect_attempts=3)
    except (FatalError, OSError, ValueError) as error:  # ValueError: of a URL
        raise DeviceUnreachableError(
            f"no ESP32 in its bootloader answers at {port} ({_first_line(error)}): {BY_HAND}"
        ) from error
    try:
        yield esp
    except (FatalError, OSError, serial.SerialException) as error:
        raise DeviceUnreachableError(
            f"writing to the board at {port} broke off ({_first_line(error)}). It has no whole firmware now, "
            "which does it no harm: plug it in again and repeat the command, which goes on where it broke "
            f"off. If it does not answer then, {BY_HAND}"
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
def _esptool(bar: Callable[[float], None]) -> Iterator[None]:
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
            bar(cur_iter / max(total_iters, 1))

    before = EspLog.instance
    log.set_logger(Quiet())  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        EspLog.instance = before


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
