"""What to clean: a manifest (CSV or JSON lines), or a folder whose file names say what belongs together.

A manifest has the columns `reference` and `recording` (paths, relative to the manifest's folder) and may have
`id`, the name of the folder of the results; without it the recording's path serves, without its suffix.
Other columns are carried over to the results.

In a folder and the folders below it, `NAME_reference.*` was played for `NAME.*` or `NAME_recording.*` beside
it; for every other recording the nearest `reference.*` counts, beside it or in a folder above. What `unplay`
writes (`*_near_end.*`, `*_removed.*`) is passed over.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from unplay.batch.results import FILES, NAME, PAGE_NAME
from unplay.errors import BadInputError

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".w64", ".rf64")
WRITTEN_BY_UNPLAY = ("_near_end", "_removed")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
LINES_SUFFIXES = (".jsonl", ".ndjson")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One recording. reference is None where a folder has none for it; columns: what else was said of it."""

    id: str
    reference: Path | None
    recording: Path
    columns: dict[str, Any] = field(default_factory=dict)


def rows_of(source: Path, passed_over: Path | None = None) -> Iterator[Row]:
    """The rows of a manifest or folder, in order, one at a time.

    passed_over: a folder within the source that is not searched. Raises BadInputError, with the line, where
    a manifest cannot be understood.
    """
    if source.is_dir():
        yield from _rows_of_folder(source, passed_over)
        return
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            for number, entries in _lines(source, file):
                yield _row(f"{source}, line {number}", source.parent, entries)
    except OSError as error:
        raise BadInputError(f"{source} cannot be opened ({error.strerror}): check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{source} is not text in UTF-8: save it as such.") from error


def check_rows(rows: Iterator[Row], source: Path) -> Iterator[Row]:
    """The same rows. Raises BadInputError where not each can have a folder of its own, or there are none."""
    seen: dict[str, str] = {}
    for row in rows:
        # some file systems do not tell capitals apart
        key = row.id.casefold()
        if key in seen:
            raise BadInputError(
                f"{source} has two recordings with the id {row.id!r}, {seen[key]} and {row.recording.name}: "
                "give each an id of its own in the column `id` of a manifest, or leave one out."
            )
        if not {NAME, PAGE_NAME, *FILES}.isdisjoint(key.split("/")):
            raise BadInputError(
                f"{source} has a recording with the id {row.id!r}, and a file of the results has that name: "
                "give it another in the column `id` of a manifest."
            )
        seen[key] = row.recording.name
        yield row
    if not seen:
        raise BadInputError(f"{source} names no recordings: see `unplay batch --help` for what it looks for.")


def _lines(source: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and entries of each line that holds any."""
    suffix = source.suffix.lower()
    if suffix in LINES_SUFFIXES:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _json_object(f"{source}, line {number}", line)
        return
    if suffix not in TABLE_SUFFIXES:
        raise BadInputError(
            f"{source} is neither a folder nor a manifest; the name of a manifest ends in "
            f"{', '.join((*TABLE_SUFFIXES, *LINES_SUFFIXES))}."
        )
    heading = file.readline()
    delimiter = max(DELIMITERS, key=heading.count)
    names = [name.strip() for name in next(csv.reader([heading], delimiter=delimiter), [])]
    if not any(names):
        raise BadInputError(f"{source} begins with an empty line: its first line must name the columns.")
    for name in ("reference", "recording"):
        if name not in names:
            raise BadInputError(
                f"{source} has no column {name!r} but {', '.join(map(repr, names))}: its first line must "
                "name the columns."
            )
    reader = csv.DictReader(file, names, delimiter=delimiter, restkey="", restval="")
    for entries in reader:
        if entries.pop("", None):
            raise BadInputError(
                f"{source}, line {reader.line_num + 1} has more entries than there are columns: put quotes "
                "around what holds a delimiter."
            )
        yield reader.line_num + 1, entries


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        entries = json.loads(line, parse_constant=str)  # NaN is no JSON to write later
    except json.JSONDecodeError as error:
        raise BadInputError(f"{where} is not JSON ({error.msg}): write one object a line.") from error
    if not isinstance(entries, dict):
        raise BadInputError(f"{where} is not a JSON object: write one a line.")
    return entries


def _row(where: str, folder: Path, entries: Mapping[str, Any]) -> Row:
    entries = {name: value.strip() if isinstance(value, str) else value for name, value in entries.items()}
    for name in ("reference", "recording"):
        if not isinstance(entries.get(name), str) or not entries[name]:
            raise BadInputError(f"{where} names no {name}: give its path.")
    recording = Path(entries["recording"])
    given = entries.get("id")
    name = str(given) if given not in (None, "") else _id_of(recording)
    if PurePosixPath(name).is_absolute() or not all(_is_plain(part) for part in name.split("/")):
        raise BadInputError(
            f"{where} has the id {name!r}, which cannot be the name of a folder: use another."
        )
    columns = {key: v for key, v in entries.items() if key not in ("reference", "recording", "id")}
    return Row(name, folder / entries["reference"], folder / recording, columns)


def _is_plain(part: str) -> bool:
    return bool(part) and not part.startswith(".") and not set(part) & set('<>:"\\|?*\0')


def _id_of(recording: Path) -> str:
    """The path without its suffix; the name alone where the recording lies elsewhere."""
    elsewhere = recording.is_absolute() or ".." in recording.parts
    return recording.stem if elsewhere else recording.with_suffix("").as_posix()


def _rows_of_folder(source: Path, passed_over: Path | None) -> Iterator[Row]:
    above: dict[Path, Path | None] = {source.parent: None}
    for name, folders, files in os.walk(source):
        folder = Path(name)
        folders[:] = sorted(f for f in folders if f[0] != "." and folder / f != passed_over)
        sounds = sorted(Path(f) for f in files if f[0] != "." and Path(f).suffix.lower() in AUDIO_SUFFIXES)
        own = {
            path.stem.removesuffix("_reference"): path for path in sounds if path.stem.endswith("_reference")
        }
        common = next((folder / path for path in sounds if path.stem == "reference"), above[folder.parent])
        above[folder] = common
        for path in sounds:
            if path.stem == "reference" or path.stem.endswith(("_reference", *WRITTEN_BY_UNPLAY)):
                continue
            partner = own.get(path.stem.removesuffix("_recording"))
            reference = common if partner is None else folder / partner
            recording = folder / path
            yield Row(_id_of(recording.relative_to(source)), reference, recording)
