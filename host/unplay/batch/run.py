"""Clean every recording of a manifest or folder; what fails is a result like any other."""

from __future__ import annotations

import heapq
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import unplay
from unplay.audio import WholeFile
from unplay.batch.manifest import Row, check_rows, rows_of
from unplay.batch.results import FILES, PAGE_NAME, Results
from unplay.batch.workers import Cluster, LocalWorkers, WorkerDiedError, Workers, outcomes
from unplay.errors import BadInputError, UnplayError

FINAL = (0, 3, 4)
"""Exit codes that stand when a batch is run again: cleaned, absent, not confident."""

MEASURED = (
    "confidence",
    "delay_s",
    "drift_ppm",
    "reduction_db",
    "duration_s",
    "near_end",
    "sha256",
    "report",
)
"""What is None in the line of a recording that was not cleaned."""

LOOKED_AHEAD = 1000
"""Of so many recordings the longest is the next."""

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called with how many results there are, of how many, and the newest."""


@dataclass(frozen=True)
class Settings:
    """How each recording is cleaned, as of `unplay.clean`, and which files are written besides."""

    method: str = "auto"
    strength: float = 1.0
    warp: bool = True
    removed: bool = False
    report: bool = False


@dataclass(frozen=True)
class Task:
    """A row, the folder of its results, and how to clean it. Made of plain values: it travels."""

    row: Row
    folder: Path
    settings: Settings


@dataclass(frozen=True)
class Batch:
    """What came of a batch.

    counts: recordings by exit code. exit_code: 0 where all were cleaned, else the least of the others'.
    n_kept: how many stood from an earlier run. worst: the first lines of the page.
    """

    folder: Path
    page: Path
    results: Path
    counts: dict[int, int]
    exit_code: int
    n_kept: int
    worst: list[dict[str, Any]]


def run(
    source: str | Path,
    output: str | Path | None = None,
    *,
    settings: Settings | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Batch:
    """Clean all recordings that a manifest or a folder names (`unplay.batch.manifest` says how).

    output: the folder of the results, by default beside the source with `-cleaned` after its name. In it,
    ID/ holds near_end.wav (or .flac) and log.json of each recording, results.jsonl a line for each as they
    end, index.html the table, worst first. jobs: processes of this machine, by default one a core.
    scheduler: address of a dask scheduler that does the work instead. again=True does everything anew; else
    what an earlier run with the same inputs, settings and version has cleaned or refused stands.

    A script that calls this does so under `if __name__ == "__main__":`, since each process imports it.

    Raises BadInputError where the source, the output folder or the scheduler cannot be used.
    """
    # absolute: workers may be elsewhere
    source, settings = Path(source).absolute(), settings or Settings()
    folder = _beside(source) if output is None else Path(output).absolute()
    _check(source, folder, settings, jobs)
    wanted = {row.id: _identity(row) for row in check_rows(rows_of(source, folder), source)}
    workers: Workers = LocalWorkers(jobs or os.cpu_count() or 1) if scheduler is None else Cluster(scheduler)
    with Results(folder) as results:
        try:
            kept = results.keep(lambda result: not again and _stands(result, wanted, settings))
            tasks = (
                Task(row, folder / row.id, settings) for row in rows_of(source, folder) if row.id not in kept
            )
            for result in _results(tasks, workers):
                results.add(result)
                if progress is not None:
                    progress(sum(results.counts.values()), len(wanted), result)
        finally:
            workers.close()
        page = _write_page(folder, source, results)
        return Batch(
            folder,
            page,
            results.path,
            dict(results.counts),
            results.exit_code,
            len(kept),
            list(results.worst_first(10)),
        )


def clean_row(task: Task) -> dict[str, Any]:
    """Clean one recording into its folder; returns its line of results.jsonl, whatever happens.

    Doing it again is no harm: what an earlier attempt left is replaced.
    """
    began_s = time.perf_counter()
    result = _blank(task)
    try:
        result |= _cleaned(task)
    except UnplayError as error:
        result |= {"exit_code": error.exit_code, "reason": str(error)}
    except OSError as error:
        where = error.filename or task.folder
        reason = f"{where} cannot be used ({error.strerror or error}): name a place where you may write."
        result |= {"exit_code": BadInputError.exit_code, "reason": reason}
    except Exception as error:
        result |= {
            "exit_code": UnplayError.exit_code,
            "reason": f"a bug, or no memory: {type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
    return result | {"seconds": round(time.perf_counter() - began_s, 2)}


def _cleaned(task: Task) -> dict[str, Any]:
    row, folder, settings = task.row, task.folder, task.settings
    if row.reference is None:
        raise BadInputError(
            f"there is no reference for {row.recording}: put what was played beside it as "
            f"{row.recording.stem}_reference.wav or reference.wav."
        )
    _remove_earlier(folder)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".flac" if row.recording.suffix.lower() == ".flac" else ".wav"
    try:
        done = unplay.clean(
            row.reference,
            row.recording,
            folder / f"near_end{suffix}",
            removed=folder / f"removed{suffix}" if settings.removed else None,
            report=folder / "report.html" if settings.report else None,
            log=folder / "log.json",
            method=settings.method,
            strength=settings.strength,
            warp=settings.warp,
        )
    finally:
        _remove_if_empty(folder)
    return {
        "exit_code": 0,
        "reason": None,
        "warnings": done.warnings,
        "confidence": done.confidence,
        "delay_s": done.log["delay_s"],
        "drift_ppm": done.log["drift_ppm"],
        "reduction_db": done.log["reduction_db"],
        "duration_s": done.log["inputs"]["recording"]["n_samples"]
        / done.log["inputs"]["recording"]["sample_rate_hz"],
        "near_end": str(done.near_end),
        "sha256": done.log["outputs"]["near_end"]["sha256"],
        "report": None if done.report is None else str(done.report),
    }


def _blank(task: Task) -> dict[str, Any]:
    """What is known of a result before the work begins."""
    row = task.row
    return {
        "id": row.id,
        "reference": None if row.reference is None else str(row.reference),
        "recording": str(row.recording),
        "columns": row.columns,
        "stamps": _stamps(row.reference, row.recording),
        "settings": vars(task.settings),
        "unplay_version": unplay.__version__,
        "warnings": [],
        **dict.fromkeys(MEASURED),
    }


def _results(tasks: Iterator[Task], workers: Workers) -> Iterator[dict[str, Any]]:
    for task, outcome in outcomes(clean_row, _longest_first(tasks), workers):
        if isinstance(outcome, WorkerDiedError):
            yield _blank(task) | {"exit_code": outcome.exit_code, "reason": str(outcome)}
        else:
            yield outcome


def _longest_first(tasks: Iterable[Task]) -> Iterator[Task]:
    """The same tasks. In the end, when some workers have nothing left to do, the others do short ones."""
    numbered = ((-_size_bytes(task.row.recording), number, task) for number, task in enumerate(tasks))
    waiting = list(islice(numbered, LOOKED_AHEAD))
    heapq.heapify(waiting)
    for later in numbered:
        yield heapq.heappushpop(waiting, later)[-1]
    for *_, task in sorted(waiting):
        yield task


def _size_bytes(path: Path) -> int:
    """Stands for the length, which would have to be read; 0 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _beside(source: Path) -> Path:
    path = source.resolve()
    return path.with_name(f"{path.name if path.is_dir() else path.stem}-cleaned")


def _check(source: Path, folder: Path, settings: Settings, jobs: int | None) -> None:
    from unplay.cleaning import METHODS

    if settings.method not in METHODS:
        raise BadInputError(f"There is no method {settings.method!r}; choose one of {', '.join(METHODS)}.")
    if not 0 <= settings.strength <= 1:
        raise BadInputError(f"The strength is {settings.strength}, outside 0 to 1: choose one within.")
    if jobs is not None and jobs < 1:
        raise BadInputError(f"--jobs is {jobs}: one process at least is needed.")
    if source.is_dir() and source.resolve().is_relative_to(folder.resolve()):
        raise BadInputError(f"{folder} holds the recordings: name another --output.")


def _identity(row: Row) -> int:
    """Equal for equal rows; a number, because there may be many."""
    return hash((str(row.reference), str(row.recording), json.dumps(row.columns, sort_keys=True)))


def _stands(result: dict[str, Any], wanted: dict[str, int], settings: Settings) -> bool:
    """Whether an earlier result would come out again: same row, files, settings and version, output there."""
    reference = None if result["reference"] is None else Path(result["reference"])
    row = Row(result["id"], reference, Path(result["recording"]), result["columns"])
    return (
        result["exit_code"] in FINAL
        and wanted.get(row.id) == _identity(row)
        and result["settings"] == vars(settings)
        and result["unplay_version"] == unplay.__version__
        and result["stamps"] == _stamps(row.reference, row.recording)
        and (result["exit_code"] != 0 or Path(result["near_end"]).exists())
    )


def _stamps(*paths: Path | None) -> list[str | None]:
    """Size and time of change of each file; None for one that isn't there."""
    stamps = []
    for path in paths:
        try:
            facts = None if path is None else path.stat()
        except OSError:
            facts = None
        stamps.append(None if facts is None else f"{facts.st_size} bytes, {facts.st_mtime_ns} ns")
    return stamps


def _remove_earlier(folder: Path) -> None:
    """What an earlier attempt wrote, whole or not."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
        for partial in folder.glob(f".{name}.*.partial"):
            partial.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _write_page(folder: Path, source: Path, results: Results) -> Path:
    from unplay.report.batch_page import batch_page

    with WholeFile(folder / PAGE_NAME) as file:
        for piece in batch_page(source, folder, results):
            file.write(piece.encode())
        file.sync()
        file.publish()
        return file.path
