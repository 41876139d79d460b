"""The command line: arguments, printing, exit codes. One file for each group of commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import unplay
from unplay.cli import (
    batch,
    canceller,
    clean,
    compare,
    demo,
    device,
    sessions,
    sync,
    validate,
    virtual_device,
)
from unplay.errors import BadInputError, UnplayError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("clean")(clean.clean)
app.command("compare")(compare.compare)
app.command("batch")(batch.batch)
app.command("demo")(demo.demo)
app.command("canceller")(canceller.canceller)
app.add_typer(device.app, name="device")
app.command("sync")(sync.sync)
app.command("validate")(validate.validate)
app.add_typer(sessions.app, name="sessions")
app.command("virtual-device")(virtual_device.virtual_device)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unplay {unplay.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Remove what was played from what was recorded.

    Example: unplay clean song.flac recording.wav
    """


def main() -> None:
    """Run the command line; ends the process with the exit code of what happened."""
    try:
        app(prog_name="unplay")
    except UnplayError as error:
        print(f"unplay: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"unplay: {error}", file=sys.stderr)
        sys.exit(BadInputError.exit_code)
