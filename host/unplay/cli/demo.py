"""`unplay demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing

if TYPE_CHECKING:
    from unplay.virtual.demonstration import Figures


def demo(
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to put the sounds; made if it is not there.")
    ] = Path("unplay-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is found and decided.")] = False,
) -> None:
    """Record a talker over music in a computed room, clean the recording, say how well that went.

    Example: unplay demo --folder listen
    """
    with printing.progress() as progress:
        from unplay.virtual import demonstration

        figures, result = demonstration.run(folder, progress)
    if verbose:
        printing.print_decisions(result)
    if as_json:
        printing.print_json({"folder": str(folder), **asdict(figures), "log": result.log})
    else:
        printing.print_result(result)
        print_figures(figures)
        print(f"\nListen: {folder / 'recording.wav'}, then {folder / 'near_end.wav'};")
        print(f"the talker alone, for comparison: {folder / 'true_near_end.wav'}")


def print_figures(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("")
    for heading in ("recording", "cleaned"):
        table.add_column(heading, justify="right")
    table.add_row(
        "music beside the talker",
        f"{figures.echo_to_talker_before_db:+.1f} dB",
        f"{figures.echo_to_talker_after_db:+.1f} dB",
    )
    table.add_row(
        "talker above the rest (SI-SDR)",
        f"{figures.si_sdr_before_db:+.1f} dB",
        f"{figures.si_sdr_after_db:+.1f} dB",
    )
    Console().print(table)
