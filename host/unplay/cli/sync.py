"""`unplay sync`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing
from unplay.cli.device import transfer
from unplay.cli.sessions import as_row
from unplay.errors import DeviceUnreachableError, UnplayError

if TYPE_CHECKING:
    from unplay.board.syncing import Fetched, Progress
    from unplay.sessions import Library


def sync(
    ports: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="PORT", help="May be given several times. [all devices found]"),
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Clean what is new.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove sessions from the device once they are here.")
    ] = False,
    library: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of sessions. [where this system keeps data]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")] = False,
) -> None:
    """Fetch new sessions from devices into the library, verified; goes on where an earlier sync broke off.

    Example: unplay sync --clean
    """
    from unplay.board.finding import look
    from unplay.sessions import Library, default_library

    kept = Library(library or default_library())
    chosen = ports or [entry.port for entry in look() if entry.welcome is not None]
    if not chosen:
        raise DeviceUnreachableError("no device was found: connect one, or name its port with --port.")
    with transfer() as progress, ThreadPoolExecutor(len(chosen)) as pool:
        done = list(pool.map(lambda port: _sync_one(port, kept, remove, progress), chosen))
    fetched = [result for result in done if not isinstance(result, UnplayError)]
    failed = [result for result in done if isinstance(result, UnplayError)]
    names = [session.name for result in fetched for session in result.sessions]
    if clean:
        for name in names:
            _clean(kept, name)
    _report(kept, fetched, names, as_json)
    for error in failed:
        print(f"unplay: {error}", file=sys.stderr)
    raise typer.Exit(max((error.exit_code for error in failed), default=0))


def _sync_one(port: str, library: Library, remove: bool, progress: Progress) -> Fetched | UnplayError:
    from unplay.board.link import DeviceLink
    from unplay.board.syncing import sync

    try:
        with DeviceLink(port) as link:
            return sync(link, library, remove=remove, progress=progress)
    except UnplayError as error:
        return error


def _clean(library: Library, name: str) -> None:
    session = library.session(name)
    if session.facts["reference"] is None:
        return
    try:
        with printing.progress() as progress:
            library.clean(session, progress=lambda doing, share: progress(f"{name}: {doing}", share))
    except UnplayError as error:
        print(f"unplay: {name}: {error}", file=sys.stderr)


def _report(library: Library, fetched: list[Fetched], names: list[str], as_json: bool) -> None:
    if as_json:
        printing.print_json([as_row(library.session(name)) for name in names])
        return
    for result in fetched:
        for id, reason in result.skipped.items():
            print(f"{result.device}/{id}: left there, {reason}", file=sys.stderr)
    for name in names:
        session = library.session(name)
        print(f"{session.folder}: {session.duration_s:.1f} s, {session.state}")
    if fetched and not names:
        print("nothing new")
