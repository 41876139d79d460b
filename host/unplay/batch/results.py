"""What came of each recording: one JSON line each, written as they end, and who is worst."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from unplay.errors import BadInputError

NAME, PAGE_NAME = "results.jsonl", "index.html"
"""In the folder of a batch, beside those of its recordings."""

FILES = ("near_end.wav", "near_end.flac", "removed.wav", "removed.flac", "log.json", "report.html")
"""In the folder of a recording."""

OUTCOMES = {
    0: "cleaned",
    1: "crashed",
    2: "bad input",
    3: "reference absent",
    4: "not confident",
}
"""By the exit code that `unplay clean` would have ended with."""


class Results:
    """`results.jsonl` in a folder, which is made if need be; lines are appended.

    In memory is one pair of numbers for each recording: how bad it is and where its line begins.
    Raises BadInputError where the folder holds something else or cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.counts: Counter[int] = Counter()
        self._ranks: list[tuple[float, int]] = []
        if folder.exists() and not folder.is_dir():
            raise BadInputError(f"{folder} is a file: name a folder as --output.")
        if folder.is_dir() and any(folder.iterdir()) and not self.path.exists():
            raise BadInputError(
                f"{folder} holds files that are not those of an earlier `unplay batch`: name another "
                "--output."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise BadInputError(
                f"{self.path} cannot be written ({error.strerror}): name a place where you may write."
            ) from error

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, stands: Callable[[dict[str, Any]], bool]) -> set[str]:
        """Forget the earlier results but those that stand, whose ids are returned.

        A line that was cut short counts for nothing.
        """
        kept = set()
        earlier, partial = self._file, self.path.with_name(f".{NAME}.partial")
        self._file = partial.open("w+b")
        for result in _lines(earlier):
            if stands(result):
                self.add(result)
                kept.add(result["id"])
        earlier.close()
        partial.replace(self.path)
        return kept

    def add(self, result: dict[str, Any]) -> None:
        offset = self._file.seek(0, 2)
        self._file.write(f"{json.dumps(result, ensure_ascii=False, allow_nan=False)}\n".encode())
        self._file.flush()
        self.counts[result["exit_code"]] += 1
        self._ranks.append((_goodness(result), offset))

    def worst_first(self, n: int | None = None) -> Iterator[dict[str, Any]]:
        """The results, or n of them: what failed, then by confidence."""
        for _, offset in sorted(self._ranks)[:n]:
            self._file.seek(offset)
            yield json.loads(self._file.readline())

    @property
    def exit_code(self) -> int:
        """0 where all were cleaned; else the least of the codes of those that weren't."""
        return min((code for code in self.counts if code), default=0)


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    file.seek(0)
    for line in file:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def _goodness(result: dict[str, Any]) -> float:
    return result["exit_code"] - 10 if result["exit_code"] else result["confidence"]
