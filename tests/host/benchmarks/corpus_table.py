"""Print how deep unplay goes on every case of the corpus, what it must reach, and what else reaches.

    python tests/host/benchmarks/corpus_table.py
    python tests/host/benchmarks/corpus_table.py --cases 'drift_*' --stage plan --no-peers
    python tests/host/benchmarks/corpus_table.py --without mask
    python tests/host/benchmarks/corpus_table.py --markdown docs/corpus.md

Needs the corpus beside the repository (or its folder in UNPLAY_CORPUS), libspeexdsp1 for SpeexDSP and
`pip install 'unplay[bench]'` for AECMOS; without the last two it says so and goes on, but fails where CI
is set. Ends with 0 when all that was measured reaches its target, otherwise with 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import scipy
from cases import case_folders, corpus_folder, load_case
from cleaners import CLEANERS
from peers import PEERS, why_no_speexdsp
from scoring import GROUPS, Row, Verdict, score, verdicts

import unplay
from unplay.metrics import why_no_aecmos
from unplay.removal import plan


def main() -> None:
    arguments = parse_arguments()
    folders = [path for path in case_folders(corpus_folder()) if asked_for(path.name, arguments.cases)]
    if not folders:
        sys.exit(f"No case matches {arguments.cases!r} in {corpus_folder()}; UNPLAY_CORPUS names its folder.")
    speexdsp, with_aecmos = available(why_no_speexdsp), available(why_no_aecmos)
    peers = [] if arguments.no_peers else [name for name in PEERS if name != "SpeexDSP" or speexdsp]
    run = partial(
        run_case,
        method=arguments.method,
        stage=arguments.stage,
        without=arguments.without,
        peers=peers,
        with_aecmos=with_aecmos,
    )
    rows = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(run, folders):
            rows.append(row)
            print(f"{len(rows)}/{len(folders)} {row.name}", file=sys.stderr)
    lines = verdicts(rows)
    text = report(rows, lines)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(rows, lines), indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(f"{heading()}\n\n{text}\n")
    sys.exit(any(line.passed is False for line in lines))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default="*", metavar="GLOB", help="names of cases, as in 'drift_*,agc'")
    parser.add_argument(
        "--method", default="auto", help="as of `unplay clean`; with settings as in 'nmf divergence=is'"
    )
    parser.add_argument(
        "--stage",
        default="files",
        choices=CLEANERS,
        help="files: as a user would; plan: on arrays; true-alignment: removal alone",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="cases at a time; 1 for times that mean something"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=STAND_INS, help="leave a last step of `auto` out"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave SpeexDSP and the FIR filter out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables, with date and versions"
    )
    return parser.parse_args()


def asked_for(name: str, globs: str) -> bool:
    return any(fnmatch(name, glob) for glob in globs.split(","))


def available(why_not: Callable[[], str | None]) -> bool:
    """Says what is missing; ends the run where CI is set, since a skipped score would look like a pass."""
    sentence = why_not()
    if sentence and "CI" in os.environ:
        sys.exit(sentence)
    if sentence:
        print(sentence, file=sys.stderr)
    return sentence is None


STAND_INS: dict[str, tuple[str, Callable[..., Any]]] = {
    "mask": ("suppress_residual_echo", lambda residual, echo, rate_hz: (residual, 0.0)),
    "network": ("why_no_runtime", lambda: "left out"),
}
"""What takes the place of a function of the plan, so that its step does nothing."""


def run_case(
    folder: Path, *, method: str, stage: str, without: list[str], peers: list[str], with_aecmos: bool
) -> Row:
    case = load_case(folder)
    with ExitStack() as patches:
        for step in without:
            patches.enter_context(patch.object(plan, *STAND_INS[step]))
        outcome = CLEANERS[stage](case, method)
    peer_outputs = {name: PEERS[name](case) for name in peers}
    return score(case, outcome, peer_outputs, with_aecmos=with_aecmos)


def report(rows: list[Row], lines: list[Verdict]) -> str:
    return "\n\n".join(
        [
            "Targets",
            table(["what", "target", "measured", ""], [verdict_cells(line) for line in lines]),
            "Groups: median SI-SDR gain, dB",
            table(["group", "unplay", *PEERS, "best peer", "best of today's tools*"], group_cells(rows)),
            "\\* measured once, when the corpus was made: WebRTC AEC3, NKF and DTLN-aec beside these two.",
            "Cases",
            table(CASE_HEADER, [case_cells(row) for row in rows]),
            "\n".join(f"- {row.name}: {row.note}" for row in rows if row.note),
        ]
    ).rstrip()


def verdict_cells(line: Verdict) -> list[str]:
    return [line.what, line.target, line.measured, {True: "pass", False: "FAIL", None: ""}[line.passed]]


def group_cells(rows: list[Row]) -> Iterator[list[str]]:
    for name, group in GROUPS.items():
        members = [row for row in rows if row.name in group.cases]
        if len(members) < len(group.cases):
            continue
        peers = [median_or_none(row.peer_gain_db(peer) for row in members) for peer in PEERS]
        best = median_or_none(row.best_peer_gain_db for row in members)
        gain = median_or_none(row.gain_db for row in members)
        yield [name, *map(decimal, [gain, *peers, best, group.peers_db])]


CASE_HEADER = [
    "case",
    "exit",
    "recording, dB",
    "output, dB",
    "gain",
    *(f"{name} gain" for name in PEERS),
    "echo reduction",
    "best peer's",
    "drift error, ppm",
    "AECMOS echo, degradation",
    "of real time",
]


def case_cells(row: Row) -> list[str]:
    return [
        row.name,
        str(row.exit_code),
        decimal(row.recording_db),
        decimal(row.output_db),
        decimal(row.gain_db),
        *(decimal(row.peer_gain_db(name)) for name in PEERS),
        decimal(row.echo_reduction_db),
        decimal(max(row.peer_reductions_db.values(), default=None)),
        decimal(row.drift_error_ppm, places=3),
        aecmos_change(row),
        decimal(row.times_realtime, places=2),
    ]


def aecmos_change(row: Row) -> str:
    before, after = row.recording_aecmos, row.output_aecmos
    if before is None or after is None:
        return ""
    return f"{before.echo:.2f} → {after.echo:.2f}, {before.degradation:.2f} → {after.degradation:.2f}"


def decimal(value: float | None, places: int = 1) -> str:
    return "" if value is None else f"{value:.{places}f}"


def median_or_none(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table whose columns also line up on a terminal."""
    cells = [header, *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [" | ".join(map(str.ljust, line, widths)) for line in cells]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def heading() -> str:
    versions = f"unplay {unplay.__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
    return (
        f"Measured on {datetime.date.today()} with {versions}, Python {platform.python_version()}, "
        f"{platform.machine()}, by `python {' '.join(sys.argv)}`."
    )


def as_json(rows: list[Row], lines: list[Verdict]) -> dict[str, object]:
    return {
        "heading": heading(),
        "cases": [dataclasses.asdict(row) for row in rows],
        "targets": [dataclasses.asdict(line) for line in lines],
    }


if __name__ == "__main__":
    main()
