"""`unplay clean`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from unplay.cli import printing


class Method(str, Enum):
    """What `unplay.cleaning.METHODS` lists; that module is slow to import."""

    AUTO = "auto"
    SUBTRACT = "subtract"
    SPECTRAL = "spectral"
    MATCH = "match"
    FIR = "fir"


def clean(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="What was played: WAV, FLAC, MP3, Ogg or Opus.")
    ],
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="What was recorded.")],
    near_end: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NEAR_END",
            help="Where to write what is left (.wav or .flac). Default: RECORDING_near_end.wav",
        ),
    ] = None,
    removed: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write what was taken out.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="LOG.json", help="Where to write what was found and done.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How to remove; auto finds out what helps.")] = Method.AUTO,
    strength: Annotated[
        float, typer.Option(metavar="0..1", help="How much of what was found to take out.")
    ] = 1.0,
    warp: Annotated[
        bool, typer.Option("--warp/--no-warp", help="Follow the drift of the two clocks, or not.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Write over outputs that exist.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the log, and nothing else, on stdout.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is found and decided.")] = False,
) -> None:
    """Take the sound of REFERENCE out of RECORDING.

    Example: unplay clean song.flac recording.wav -o talker.wav

    Exit codes: 0 done; 2 bad usage or bad input; 3 the reference is not in the recording; 4 it is, but
    could not be removed with confidence. Unless it is 0 nothing is written but the log.
    """
    with printing.progress() as progress:
        from unplay.cleaning import clean as clean_files

        result = clean_files(
            reference,
            recording,
            near_end,
            removed=removed,
            log=log,
            method=method.value,
            strength=strength,
            warp=warp,
            force=force,
            progress=progress,
        )
    printing.print_warnings(result)
    if verbose:
        printing.print_decisions(result)
    if as_json:
        printing.print_json(result.log)
    else:
        printing.print_result(result)
