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
    PURSUIT = "pursuit"
    NMF = "nmf"
    NEURAL = "neural"


class Divergence(str, Enum):
    """What `unplay.removal.nmf` minimises; that module is slow to import."""

    KL = "kl"
    IS = "is"


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
    report: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Where to write a page to see, hear and print what was done."),
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
    segment: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="pursuit: short follows movement, long rejects the talker. [6]"),
    ] = None,
    tail: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="pursuit: latest echo looked for. [0.256; weighted 0.5]"),
    ] = None,
    weighted: Annotated[
        bool | None,
        typer.Option(
            "--weighted", help="pursuit: beyond the textbook; the talker's spectrum as weight: deeper."
        ),
    ] = None,
    orthogonal: Annotated[
        bool | None, typer.Option("--orthogonal", help="pursuit: refit what was chosen.")
    ] = None,
    playback_only: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="nmf: the playback recorded alone, in the same room and set-up."),
    ] = None,
    divergence: Annotated[
        Divergence | None, typer.Option(help="nmf: of magnitudes (kl) or powers (is). [kl]")
    ] = None,
    rank_playback: Annotated[
        int | None, typer.Option(metavar="N", help="nmf: patterns of the playback. [40]")
    ] = None,
    rank_rest: Annotated[
        int | None, typer.Option(metavar="N", help="nmf: patterns of all else. [20]")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(metavar="ALPHA", help="nmf: penalty on activations, 0 to 1. [0]")
    ] = None,
    iterations: Annotated[int | None, typer.Option(metavar="N", help="nmf: updates. [100]")] = None,
    block: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="nmf: factorised at a time; inf for the whole file. [60]"),
    ] = None,
    on_device_residual: Annotated[
        bool | None,
        typer.Option("--on-device-residual", help="neural: after the device's canceller, not after fir."),
    ] = None,
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
    settings = {
        "segment_s": segment,
        "tail_s": tail,
        "weighted": weighted,
        "orthogonal": orthogonal,
        "playback_only": playback_only,
        "divergence": None if divergence is None else divergence.value,
        "rank_playback": rank_playback,
        "rank_rest": rank_rest,
        "sparsity": sparsity,
        "n_iterations": iterations,
        "block_s": block,
        "on_device_residual": on_device_residual,
    }
    with printing.progress() as progress:
        from unplay.cleaning import clean as clean_files

        result = clean_files(
            reference,
            recording,
            near_end,
            removed=removed,
            report=report,
            log=log,
            method=method.value,
            settings={name: value for name, value in settings.items() if value is not None},
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
