"""What can go wrong with a device, each kind with its sentence."""

from __future__ import annotations

import os
from typing import Any

from unplay.errors import DeviceUnreachableError
from unplay_shared import faults


class PortError(DeviceUnreachableError):
    """The port cannot be opened, or has gone."""


class NoAnswerError(DeviceUnreachableError):
    """Nothing on the port answers as unplay does."""


class OtherVersionError(DeviceUnreachableError):
    """The device speaks another version of the link."""


class TransferError(DeviceUnreachableError):
    """A file arrived, but it is not what was sent."""


class RefusedError(DeviceUnreachableError):
    """The device will not; `code` (unplay_shared.faults) and `detail` say why."""

    def __init__(self, code: int, detail: dict[str, Any]) -> None:
        super().__init__(_sentence(code, detail))
        self.code = code
        self.detail = detail


_SENTENCES = {
    faults.BUG: "the device failed ({kind}: {text}); `unplay device log` may say more",
    faults.UNKNOWN_CALL: "the device does not know {call!r}: its program is older than this one; "
    "`unplay device install` brings it up to date",
    faults.BAD_ARGUMENT: "the device cannot use {value!r} for {name}",
    faults.BAD_NAME: "{name!r} is no name on the device; names are references/NAME and sessions/ID/FILE, "
    "up to 96 characters",
    faults.NOT_FOUND: "there is no {name} on the device; `unplay device ls` lists what there is",
    faults.BUSY: "the device is busy {what}; wait for its end, or `unplay device stop`",
    faults.FULL: "the device has {free} bytes free and {needed} are needed; "
    "`unplay sync` fetches what it holds, `unplay device rm` makes room",
    faults.NOT_OPEN: "the device had no file open for this: it was restarted in between; try again",
    faults.TOO_LONG: "more bytes came (offset {offset}) than the {size} announced; try again",
    faults.BAD_HASH: "{name} did not arrive as it was sent, and was discarded; try again",
    faults.NO_SESSION: "the device has forgotten this computer, which had said nothing for 10 s; try again",
    faults.OTHER_VERSION: "the device speaks version {major}.{minor} of the link",
    faults.NO_CARD: "the device has nothing to record to: no card, or one it cannot read; use a FAT32 card",
    faults.NO_AUDIO: "the device's microphone or amplifier does not start ({kind}: {text}); check the wiring",
    faults.NOT_RECORDING: "the device is not recording",
}


def _sentence(code: int, detail: dict[str, Any]) -> str:
    if code == faults.STORAGE:
        return _storage_sentence(detail.get("errno"))
    template = _SENTENCES.get(code)
    try:
        if template is not None:
            return template.format(**detail)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # a newer device has other values
        pass
    return f"the device refuses with number {code} {detail}; it may be newer than this program"


def _storage_sentence(errno: int | None) -> str:
    reason = os.strerror(errno) if isinstance(errno, int) else "unknown reason"
    return (
        f"the device cannot use its card or flash ({reason}); check that the card sits well and is not full"
    )
