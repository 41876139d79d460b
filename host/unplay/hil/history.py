"""Validations in the library, LIBRARY/validations/DEVICE/TIME.json, and whether a device gets worse."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unplay.audio import write_whole
from unplay.errors import BadInputError
from unplay.hil.validation import FIGURES, FORMAT, Validation
from unplay.sessions import VALIDATIONS, folder_name
from unplay.trends import worse_by


@dataclass(frozen=True)
class Trend:
    """A figure of a device over its runs, the oldest first, with this one at the end; None: not measured.

    worse: how much worse than it was, in its unit, as `unplay.trends.worse_by` says.
    """

    name: str
    values: list[float | None]
    worse: float | None


def save(validation: Validation, library: Path) -> Path:
    """Add a run to those of its device."""
    folder = _folder(library, validation.device)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{validation.started.replace(':', '').removesuffix('+0000')}.json"
    write_whole(path, f"{json.dumps(validation.as_json(), indent=2, allow_nan=False)}\n".encode())
    return path


def require_folders(library: Path, *paths: Path | None) -> None:
    """Raises BadInputError where the library or a file could not be written when all has been measured."""
    try:
        (library / VALIDATIONS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{library} cannot be the library ({error.strerror}): name a folder with --library."
        ) from error
    for path in paths:
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadInputError(f"{path} cannot be written: name a file in a folder that is there.")


def earlier(validation: Validation, library: Path) -> list[dict[str, Any]]:
    """The runs of the same device and plan before this one, the oldest first, of those that can be read."""
    runs = [_read(path) for path in _folder(library, validation.device).glob("*.json")]
    alike = [run for run in runs if run is not None and run["plan"] == asdict(validation.plan)]
    return sorted((run for run in alike if run["started"] < validation.started), key=lambda r: r["started"])


def _read(path: Path) -> dict[str, Any] | None:
    """None where it is of another format, or damaged."""
    try:
        run = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) and run.get("format") == FORMAT else None


def trends(validation: Validation, runs: list[dict[str, Any]]) -> dict[str, Trend]:
    """By name of the figure; runs: those before."""
    return {row.name: _trend(row.name, row.value, runs) for row in validation.rows}


def _trend(name: str, value: float | None, runs: list[dict[str, Any]]) -> Trend:
    values = [*(_value(run, name) for run in runs), value]
    return Trend(name, values, worse_by(values, FIGURES[name]))


def _value(run: dict[str, Any], name: str) -> float | None:
    return next((row["value"] for row in run["rows"] if row["name"] == name), None)


def _folder(library: Path, device: str) -> Path:
    return library / VALIDATIONS / folder_name(device)
