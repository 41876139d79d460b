"""`unplay compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing

if TYPE_CHECKING:
    from unplay.comparing import Comparison


def compare(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="What was played: WAV, FLAC, MP3, Ogg or Opus.")
    ],
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="What was recorded.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="NEAR_END", help="The talker alone, if known, aligned with RECORDING."),
    ] = None,
    playback_only: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The playback recorded alone; nmf learns from it once more."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Where to write a page to see and hear all of them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a page that exists.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON, and nothing else, on stdout.")
    ] = False,
) -> None:
    """Run every method on one recording and say how deep each goes, and why.

    With --truth each result is scored against it (SI-SDR, SDR, STOI). Without, by what can be measured
    blindly: correlation with the reference, echo reduction where the reference most likely sounds alone,
    and AECMOS where speechmos is installed.

    Example: unplay compare song.flac recording.wav --truth talker.wav
    """
    with printing.progress() as progress:
        from unplay import comparing

        comparison = comparing.compare(
            reference,
            recording,
            truth=truth,
            playback_only=playback_only,
            report=report,
            force=force,
            progress=progress,
        )
    if as_json:
        printing.print_json(comparison.as_json())
    else:
        print_comparison(comparison)


def print_comparison(comparison: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from unplay.comparing import BLIND_FIGURES, FIGURES
    from unplay.removal.clock import pace

    shown = [name for name in FIGURES if any(getattr(row, name) is not None for row in comparison.rows)]
    table = Table("", box=box.SIMPLE)
    for name in shown:
        table.add_column(FIGURES[name][0], justify="right", no_wrap=True)
    for row in comparison.rows:
        values = [(getattr(row, name), FIGURES[name][1]) for name in shown]
        table.add_row(row.name, *("" if value is None else form.format(value) for value, form in values))
    Console().print(table)
    if "reference_correlation" in shown:
        print(BLIND_FIGURES, end="\n\n")
    print(
        f"The reference begins {comparison.delay_s:+.3f} s into the recording, its clock "
        f"{pace(comparison.drift_ppm)}."
    )
    for row in comparison.rows[1:]:
        print(f"{row.name}: {row.reason}")
    for note in comparison.notes:
        print(note)
