"""Ways to run unplay on a case: whole files as a user would, or single stages on arrays."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, Signal, read_if_there
from scoring import NOT_FOUND, Outcome

import unplay
from unplay.errors import UnplayError
from unplay.removal.alignment import align, aligned_reference
from unplay.removal.methods import Method, method_named
from unplay.removal.plan import Removal, remove
from unplay.removal.warp import warp

Cleaner = Callable[[Case, str], Outcome]


def clean_files(case: Case, method: str) -> Outcome:
    """From file to file through the public function."""
    name, settings = name_and_settings(method)
    exit_code, drift_ppm, note = 0, None, ""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "near_end.wav"
        started = time.perf_counter()
        try:
            result = unplay.clean(
                case.reference_path, case.recording_path, target, method=name, settings=settings
            )
            drift_ppm = result.alignment.drift_ppm
            note = named(stage["name"] for stage in result.stages if stage["used"])
        except UnplayError as error:
            exit_code, note = error.exit_code, str(error).replace(f"{case.folder}/", "")
        seconds = time.perf_counter() - started
        return Outcome(read_if_there(target), seconds, exit_code, drift_ppm, note)


def clean_arrays(case: Case, method: str) -> Outcome:
    """Alignment and removal in one block, without files and without the refusals of the file level."""
    started = time.perf_counter()
    alignment = align(case.reference, case.recording, case.sample_rate_hz)
    if not alignment.found:
        return Outcome(None, time.perf_counter() - started, NOT_FOUND, note=alignment.reason)
    x = aligned_reference(case.reference, alignment, 0, len(case.recording))
    removal = remove(x, case.recording, case.sample_rate_hz, method=with_settings(method))
    return outcome_of(removal, time.perf_counter() - started, alignment.drift_ppm)


def clean_with_true_alignment(case: Case, method: str) -> Outcome:
    """Removal alone: the reference is put where the case says that it was played."""
    started = time.perf_counter()
    x = truly_aligned(case)
    removal = remove(x, case.recording, case.sample_rate_hz, method=with_settings(method))
    return outcome_of(removal, time.perf_counter() - started)


def name_and_settings(method: str) -> tuple[str, dict[str, Any]]:
    """Of "nmf divergence=is n_iterations=50", for one."""
    name, *words = method.split()
    pairs = (word.partition("=")[::2] for word in words)
    return name, {setting: value_of(text) for setting, text in pairs}


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def with_settings(method: str) -> Method | str:
    name, settings = name_and_settings(method)
    return method_named(name, settings) if settings else name


def truly_aligned(case: Case) -> Signal:
    """By playback_offset_s and drift_ppm; by the measured delay where nobody knows them."""
    if case.true_drift_ppm is None:
        return case.reference_from(case.first_arrival_s)
    since_start = np.arange(len(case.recording)) - case.facts["playback_offset_s"] * case.sample_rate_hz
    return warp(case.reference, since_start * (1 + case.true_drift_ppm * 1e-6)).astype(np.float64)


def outcome_of(removal: Removal, seconds: float, drift_ppm: float | None = None) -> Outcome:
    note = named(stage.name for stage in removal.stages if stage.used)
    return Outcome(removal.near_end.astype(np.float64), seconds, drift_ppm=drift_ppm, note=note)


def named(stages: Iterable[str]) -> str:
    """In the order of their first use, over all blocks."""
    return ", ".join(dict.fromkeys(stages))


CLEANERS: dict[str, Cleaner] = {
    "files": clean_files,
    "plan": clean_arrays,
    "true-alignment": clean_with_true_alignment,
}
