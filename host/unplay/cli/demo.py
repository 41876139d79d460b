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
        Path, typer.Option(metavar="DIR", help="Where to put everything; made if it is not there.")
    ] = Path("unplay-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is found and decided.")] = False,
) -> None:
    """The whole story on a virtual device: install it, push a song, press its button while someone talks,

    fetch the recording, take the song out of it, say how well that went.

    Example: unplay demo --folder listen
    """
    with printing.progress() as progress:
        from unplay.virtual import demonstration

        story = demonstration.run(folder, progress)
    if verbose:
        printing.print_decisions(story.result)
    if as_json:
        figures = asdict(story.figures)
        printing.print_json({"folder": str(folder), **figures, "log": story.result.log})
        return
    print_figures(story.figures)
    print(f"\nListen: {folder / 'mic.wav'}, {folder / 'residual.wav'}, {folder / 'near_end.wav'};")
    print(f"the talker alone, for comparison: {folder / 'talker.wav'}")
    print(f"Look: {story.session.folder / 'report.html'}")


def print_figures(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "talker above the rest (SI-SDR)")
    table.columns[1].justify = "right"
    table.add_row("the recording", f"{figures.recording_db:+.1f} dB")
    table.add_row("what the device's canceller left while it recorded", f"{figures.on_device_db:+.1f} dB")
    table.add_row("the recording, cleaned", f"{figures.cleaned_db:+.1f} dB")
    Console().print(table)
