"""What the commands print: answers on stdout; warnings and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unplay.cleaning import Result


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A bar with the time left, on stderr where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda doing, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)


@contextmanager
def live() -> Iterator[Callable[[str], None]]:
    """A line on stderr that changes, where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live("", console=Console(stderr=True), transient=True) as line:
        yield line.update


def print_result(result: Result) -> None:
    """Where the outputs are and how the reference was found, in a few lines."""
    from unplay.removal.clock import pace

    alignment = result.alignment
    print(
        f"found the reference {alignment.delay_s:+.3f} s into the recording, its clock "
        f"{pace(alignment.drift_ppm, alignment.drift_sigma_ppm)}"
    )
    print(f"wrote what is left to {result.near_end} (confidence {result.confidence:.2f})")
    if result.removed is not None:
        print(f"wrote what was taken out to {result.removed}")
    if result.report is not None:
        print(f"wrote the page to {result.report}")


COSTS = {
    "training_costs": "training, cost per value before the first iteration",
    "costs": "separation, cost per value before the first iteration",
}


def print_decisions(result: Result) -> None:
    """The stages that the plan weighed, one a line, on stderr."""
    print(result.alignment.reason, file=sys.stderr)
    for stage in result.stages:
        effect_db = "" if stage["effect_db"] is None else f" {stage['effect_db']:+.1f} dB"
        where = f"{stage['start_s']:.1f} to {stage['stop_s']:.1f} s, channel {stage['channel'] + 1}"
        decision = "used" if stage["used"] else "refused"
        print(f"{where}: {stage['name']} {decision}{effect_db}: {stage['reason']}", file=sys.stderr)
        for name, text in COSTS.items():
            if name in stage:
                costs = stage[name]
                print(f"  {text}: {costs[0]:.4g}, after {len(costs) - 1}: {costs[-1]:.4g}", file=sys.stderr)


def print_warnings(result: Result) -> None:
    for warning in result.warnings:
        print(f"unplay: {warning}", file=sys.stderr)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
