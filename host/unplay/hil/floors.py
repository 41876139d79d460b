"""What is asked of a device's figures, from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unplay.errors import BadInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).with_name("floors.toml")


@dataclass(frozen=True)
class Floor:
    """The least and the most that a figure may be; None: no limit."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"≥ {self.least:g}" if self.most is None else f"≤ {self.most:g}"


Floors = Mapping[str, Floor]


@dataclass(frozen=True)
class FloorsFile:
    """Floors by figure: for all, by board, by device."""

    default: Floors
    board: Mapping[str, Floors]
    device: Mapping[str, Floors]

    def of(self, device: str, board: str) -> Floors:
        return {**self.default, **self.board.get(board, {}), **self.device.get(device, {})}


def read(path: Path, figures: Mapping[str, Any]) -> FloorsFile:
    """figures: all names that may be in it. Raises BadInputError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} holds no floors: {error}.") from error
    unknown = sorted(set(table) - {"default", "board", "device"})
    if unknown:
        raise BadInputError(f"{path} has [{unknown[0]}]: write [default], [board.NAME] or [device.NAME].")
    board, device = (
        {name: _floors(path, floors, figures) for name, floors in _table(path, table.get(group, {})).items()}
        for group in ("board", "device")
    )
    return FloorsFile(_floors(path, table.get("default", {}), figures), board, device)


def _floors(path: Path, entries: Any, figures: Mapping[str, Any]) -> Floors:
    return {name: _floor(path, name, entry, figures) for name, entry in _table(path, entries).items()}


def _table(path: Path, entries: Any) -> Mapping[str, Any]:
    if not isinstance(entries, Mapping):
        raise BadInputError(f"{path}: {entries!r} is no table of floors.")
    return entries


def _floor(path: Path, name: str, entry: Any, figures: Mapping[str, Any]) -> Floor:
    if name not in figures:
        raise BadInputError(f"{path}: there is no figure {name}: choose from {', '.join(figures)}.")
    fits = isinstance(entry, Mapping) and entry and set(entry) <= {"least", "most"}
    if not fits or not all(isinstance(limit, (int, float)) for limit in entry.values()):
        raise BadInputError(f"{path}: {name} is {entry!r}: write {{ least = … }}, {{ most = … }} or both.")
    return Floor(**entry)
