"""`unplay sessions`: what has been recorded, where it is, how well it went."""

from __future__ import annotations

import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unplay.cli import printing
from unplay.cli.clean import Method
from unplay.errors import BadInputError, UnplayError

if TYPE_CHECKING:
    from unplay.sessions import Library, Session, Trend

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What devices have recorded, where it is, how well it went.\n\nExample: unplay sessions list",
)

LibraryPath = Annotated[
    Path | None,
    typer.Option("--library", metavar="DIR", help="The folder of sessions. [where this system keeps data]"),
]
Name = Annotated[
    str, typer.Argument(metavar="SESSION", help="ID or DEVICE/ID, or as much of it as is unique.")
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="Only sessions of this device.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


@app.command("list")
def list_(library: LibraryPath = None, device: Device = None, as_json: AsJson = False) -> None:
    """All sessions, worst first: damaged, not cleanable, ended early, not cleaned, then by confidence.

    Example: unplay sessions list --device kitchen
    """
    sessions = _library(library).sessions(device)
    if as_json:
        printing.print_json([as_row(session) for session in sessions])
    elif sessions:
        print_sessions(sessions)
    else:
        print(f"no sessions {f'of {device} ' if device else ''}in {_library(library).path}")


@app.command()
def show(name: Name, library: LibraryPath = None, as_json: AsJson = False) -> None:
    """All that is known of a session.

    Example: unplay sessions show 20261127
    """
    session = _library(library).session(name)
    if as_json:
        printing.print_json(as_row(session) | {"session": dict(session.facts), "log": session.log})
    else:
        print_session(session)


@app.command("open")
def open_(name: Name, library: LibraryPath = None) -> None:
    """Open the page of a session in a browser.

    Example: unplay sessions open kitchen/20261127-101500-3f2a
    """
    session = _library(library).session(name)
    page = session.folder / "report.html"
    if not page.exists():
        raise BadInputError(f"{session.name} has no page: {_why_no_page(session)}")
    print(page)
    webbrowser.open(page.absolute().as_uri())


@app.command()
def clean(
    names: Annotated[list[str] | None, typer.Argument(metavar="[SESSION]...", help="Which ones.")] = None,
    library: LibraryPath = None,
    new: Annotated[bool, typer.Option("--new", help="All that this version has not cleaned.")] = False,
    device: Device = None,
    method: Annotated[Method, typer.Option(help="As of `unplay clean`.")] = Method.AUTO,
    as_json: AsJson = False,
) -> None:
    """Clean sessions, anew if need be: near_end.flac, removed.flac, log.json and report.html beside each.

    Example: unplay sessions clean --new

    Exit codes: as of `unplay clean`, the least of those that are not 0.
    """
    kept = _library(library)
    chosen = [kept.session(name) for name in names or []]
    if new:
        chosen += filter(is_new, kept.sessions(device))
    if not chosen and not new:
        raise BadInputError("No session is named: name some, or add --new for all that are new.")
    chosen = list(dict.fromkeys(session.name for session in chosen))
    codes = [_clean_one(kept, name, method.value) for name in chosen]
    if as_json:
        printing.print_json([as_row(kept.session(name)) for name in chosen])
    raise typer.Exit(min((code for code in codes if code), default=0))


@app.command()
def export(
    name: Name,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="In it, DEVICE-ID/ is made.")
    ] = Path(),
    library: LibraryPath = None,
) -> None:
    """Copy a session out of the library: WAV files, the reference among them, and JSON.

    Example: unplay sessions export 20261127 -o for-the-lab
    """
    kept = _library(library)
    print(f"wrote {kept.export(kept.session(name), folder)}")


@app.command()
def remove(
    name: Name,
    library: LibraryPath = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a session and all that was made of it.

    Example: unplay sessions remove 20261127-101500-3f2a --yes
    """
    kept = _library(library)
    session = kept.session(name)
    if not yes and not (
        sys.stdin.isatty() and typer.confirm(f"Remove {session.folder} ({session.duration_s:.0f} s)?")
    ):
        raise BadInputError(f"{session.name} was not removed: confirm, or add --yes.")
    kept.remove(session)
    print(f"removed {session.name}")


@app.command()
def trends(
    library: LibraryPath = None,
    device: Device = None,
    report: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Write a page, every session on it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How the sessions of each device change over time, the oldest first, and what gets worse.

    A figure is worse when the newest session is beyond what is usual, or when it has changed little by little
    over the last thirty.

    Example: unplay sessions trends --device kitchen --report page.html
    """
    kept = _library(library)
    if report is not None:
        from unplay.audio import write_whole
        from unplay.report.sessions_page import sessions_page

        write_whole(report, sessions_page(kept.sessions(device), report.parent).encode())
    found = kept.trends(device)
    if as_json:
        printing.print_json([trend_as_json(trend) for trend in found])
        return
    print_trends(found)
    if report is not None:
        print(f"wrote the page to {report}")


def _library(path: Path | None) -> Library:
    from unplay.sessions import Library, default_library

    if path is not None and path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file: name a folder of sessions.")
    return Library(default_library() if path is None else path)


def _why_no_page(session: Session) -> str:
    if session.reason is not None:
        return session.reason
    if session.facts["reference"] is None:
        return "nothing was played in it, so there is nothing to take out."
    return f"it was not cleaned; do so with `unplay sessions clean {session.id}`."


def is_new(session: Session) -> bool:
    import unplay

    if session.problem is not None or session.facts["reference"] is None:
        return False
    return session.log is None or session.log["unplay_version"] != unplay.__version__


def _clean_one(library: Library, name: str, method: str) -> int:
    """The exit code of what happened, which is told on stderr."""
    session = library.session(name)
    try:
        with printing.progress() as progress:
            result = library.clean(
                session, method=method, progress=lambda doing, share: progress(f"{name}: {doing}", share)
            )
    except UnplayError as error:
        print(f"unplay: {name}: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{name}: cleaned, confidence {result.confidence:.2f}", file=sys.stderr)
    return 0


def as_row(session: Session) -> dict[str, Any]:
    facts = session.facts
    return {
        "device": session.device,
        "id": session.id,
        "folder": str(session.folder),
        "state": session.state,
        "reason": session.reason,
        "started_s": facts.get("started_s"),
        "duration_s": session.duration_s,
        "ended": facts.get("ended"),
        "reference": (facts.get("reference") or {}).get("name"),
        "confidence": session.confidence,
        "reduction_db": session.reduction_db,
    }


def print_sessions(sessions: list[Session]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from unplay.sessions import ENDED_WELL

    table = Table(box=None, pad_edge=False)
    table.add_column("session", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("reference")
    for heading in ("s", "confidence", "dB less"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in map(as_row, sessions):
        table.add_row(
            escape(f"{row['device']}/{row['id']}"),
            row["state"] + ("" if row["ended"] in ENDED_WELL else f" ({row['ended']})"),
            escape(row["reference"] or ""),
            f"{row['duration_s']:.1f}",
            "" if row["confidence"] is None else f"{row['confidence']:.2f}",
            "" if row["reduction_db"] is None else f"{row['reduction_db']:.1f}",
        )
    Console().print(table)


def print_session(session: Session) -> None:
    row = as_row(session) | {"started_s": _time(session.facts.get("started_s"))}
    shown = {name: value for name, value in (dict(session.facts) | row).items() if value is not None}
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {value}")
    print(f"{'files':{width}}  {', '.join(sorted(path.name for path in session.folder.iterdir()))}")


def trend_as_json(trend: Trend) -> dict[str, Any]:
    figure = {"figure": trend.figure.title, "unit": trend.figure.unit}
    return {"device": trend.device, **figure, "values": trend.values, "worse": trend.worse}


def print_trends(found: list[Trend]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from unplay.trends import known, usual

    table = Table(box=None, pad_edge=False)
    for heading in ("device", "figure", "oldest to newest"):
        table.add_column(heading, no_wrap=True)
    for heading in ("usual", "newest", "worse by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trend in found:
        measured, expected = known(trend.values), usual(trend.values)
        if measured:
            figures = (expected and expected[0], measured[-1], trend.worse)
            shown = ("" if value is None else f"{value:.4g}" for value in figures)
            table.add_row(escape(trend.device), trend.figure.heading, sparkline(trend.values), *shown)
    Console().print(table)


def sparkline(values: list[float | None], n: int = 20) -> str:
    """The last n values as bars between their least and their greatest, a gap where there is none."""
    bars = "▁▂▃▄▅▆▇█"
    values = values[-n:]
    known = [value for value in values if value is not None]
    low, span = min(known, default=0), (max(known, default=0) - min(known, default=0)) or 1
    return "".join(" " if v is None else bars[round((v - low) / span * (len(bars) - 1))] for v in values)


def _time(unix_s: float | None) -> str:
    return "" if unix_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
