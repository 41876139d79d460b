"""Which device is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unplay.board.faults import NoAnswerError
from unplay.board.link import DeviceLink
from unplay.board.ports import candidates
from unplay.errors import BadInputError, DeviceUnreachableError

QUICK_S = 1.5
"""How long a port may take to answer while devices are looked for."""


@dataclass(frozen=True)
class Found:
    """A port. welcome: what the device there says of itself; None, and why, where none answers."""

    port: str
    welcome: dict[str, Any] | None
    reason: str = ""


def look(extra: list[str] | None = None) -> list[Found]:
    """Every USB serial port, and running virtual devices, with what answers there."""
    return [_ask(port) for port in [*candidates(), *virtual_ports(), *(extra or [])]]


def _ask(port: str) -> Found:
    try:
        with DeviceLink(port, raise_baud=False, patience_s=QUICK_S) as link:
            return Found(port, link.welcome)
    except DeviceUnreachableError as error:
        return Found(port, None, str(error))


def the_only_port() -> str:
    """The port of the only device there is. Raises NoAnswerError for none, BadInputError for several."""
    found = look()
    devices = [entry for entry in found if entry.welcome is not None]
    if len(devices) == 1:
        return devices[0].port
    if devices:
        names = " and ".join(f"{entry.port} ({_called(entry)})" for entry in devices)
        raise BadInputError(f"there is more than one device, {names}: choose one with --port.")
    reasons = "; ".join(entry.reason for entry in found)
    raise NoAnswerError(
        f"no device was found: {reasons or 'there is no USB serial port'}. Connect one, name its port with "
        "--port, or try `unplay virtual-device`."
    )


def _called(entry: Found) -> str:
    assert entry.welcome is not None
    return str(entry.welcome.get("device", "?"))


def virtual_folder() -> Path:
    """Where running virtual devices are linked."""
    from platformdirs import user_state_path

    return user_state_path("unplay", appauthor=False) / "devices"


def virtual_ports() -> list[str]:
    """Links to the ports of running virtual devices; those of dead ones are removed."""
    folder = virtual_folder()
    ports = []
    for link in sorted(folder.glob("*")) if folder.is_dir() else []:
        if link.exists():
            ports.append(str(link))
        else:
            link.unlink(missing_ok=True)
    return ports
