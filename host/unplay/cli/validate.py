"""`unplay validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing
from unplay.cli.device import AsJson

if TYPE_CHECKING:
    from unplay.hil.history import Trend
    from unplay.hil.rack import Rack
    from unplay.hil.validation import Row


def validate(
    ports: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="PORT", help="May be given several times. [all devices found]"),
    ] = None,
    floors: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="What is asked of the figures. [the one shipped]")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE.xml", help="Write JUnit XML.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Write a page.")] = None,
    print_floors: Annotated[
        bool, typer.Option("--print-floors", help="Print the floors' file, to be changed, and end.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes instead of twenty.")] = False,
    library: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results are kept. [where this system keeps data]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what devices are worth, and compare with floors; 6 where one is below.

    Plays and records, for twenty minutes, in a room that should be quiet: levels, echo path, start
    offset, drift, lost samples, load, echo reduction, card, link. Results stay in the library, and a figure
    that has become worse is named. What was recorded for it is removed from the device.

    Example: unplay validate --port /dev/ttyUSB0 --report page.html
    """
    from unplay.hil import floors as floors_files
    from unplay.hil.history import require_folders
    from unplay.hil.rack import all_ports, validate_all
    from unplay.hil.validation import FIGURES, QUICK, Plan
    from unplay.sessions import default_library

    asked = floors_files.read(floors or floors_files.SHIPPED, FIGURES)
    if print_floors:
        print((floors or floors_files.SHIPPED).read_text("utf-8"), end="")
        return
    library = library or default_library()
    require_folders(library, junit, report)
    with printing.progress() as progress:
        rack = validate_all(
            list(dict.fromkeys(ports or all_ports())),
            asked,
            QUICK if quick else Plan(),
            library,
            progress,
        )
    if junit:
        rack.write_junit(junit)
    if report:
        rack.write_page(report)
    if as_json:
        printing.print_json(rack.as_json())
    else:
        print_rack(rack)
    rack.require()


def print_rack(rack: Rack) -> None:
    """A table for each device."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for validation, trends in rack.done:
        table = Table(box=box.SIMPLE, title=escape(f"{validation.device}, {validation.board}"))
        table.add_column("figure")
        table.add_column("measured", justify="right", no_wrap=True)
        table.add_column("asked", justify="right", no_wrap=True)
        table.add_column("")
        for row in validation.rows:
            asked = str(row.floor or "")
            table.add_row(row.figure.title, row.measured, asked, remark(row, trends[row.name]))
        Console().print(table)
    for port, reason in list(rack.reasons.items())[1:]:  # the first is what the command ends with
        print(f"{port}: {reason}")


def remark(row: Row, trend: Trend) -> str:
    """Whether it is enough, why it is not known, whether it was better before."""
    parts = ["" if row.passed else "BELOW", row.note]
    if trend.worse is not None:
        parts.append(f"worse than before by {row.figure.amount(trend.worse)}")
    return ", ".join(part for part in parts if part)
