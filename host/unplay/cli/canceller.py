"""`unplay canceller`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unplay.cli import printing

if TYPE_CHECKING:
    from unplay.cancelling import Cancelling


class Step(str, Enum):
    """How the canceller finds its step."""

    KALMAN = "kalman"
    NLMS = "nlms"


def canceller(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="What was played, from the recording's beginning on.")
    ],
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="What was recorded.")],
    residual: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RESIDUAL", help="Where to write what is left (.wav, .flac)."),
    ],
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Where to write weights, step and uncertainty over time."),
    ] = None,
    delay: Annotated[
        float, typer.Option(metavar="SECONDS", help="When the recording hears the reference begin.")
    ] = 0.0,
    rate: Annotated[int, typer.Option(metavar="HZ", help="8000 or 16000; files are resampled.")] = 16_000,
    block: Annotated[int, typer.Option(metavar="SAMPLES", help="256, 512 or 1024.")] = 1024,
    tail: Annotated[int, typer.Option(metavar="MS", help="Latest echo followed, 32 to 256 ms.")] = 128,
    method: Annotated[Step, typer.Option(help="Step by state-space model, or fixed.")] = Step.KALMAN,
    step: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="Factor on every step. [1; nlms: 0.25]"),
    ] = None,
    forgetting: Annotated[
        int, typer.Option(metavar="6..14", help="The path is expected to change by 2^-n in 16 ms.")
    ] = 9,
    caution: Annotated[
        int, typer.Option(metavar="0..4", help="One block teaches 2^-n of what theory says.")
    ] = 2,
    smoothing: Annotated[
        int, typer.Option(metavar="0..4", help="One block has weight 2^-n in the near end's power.")
    ] = 1,
    constraint: Annotated[
        int, typer.Option(metavar="BLOCKS", help="From one gradient constraint to the next, 1 to 64.")
    ] = 8,
    recovery: Annotated[
        bool, typer.Option("--recovery/--no-recovery", help="Learn anew when the echo path has moved.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Write over outputs that exist.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON, and nothing else, on stdout.")
    ] = False,
) -> None:
    """Run a device's integer canceller on files: bit for bit what the device would have left.

    Clocks must agree, as they do on a device. The output is mono, 16 bits, at the canceller's rate.

    Example: unplay canceller song.wav recording.wav -o residual.wav
    """
    if step is None:
        step = 0.25 if method is Step.NLMS else 1.0
    settings = {
        "rate_hz": rate,
        "block": block,
        "tail_ms": tail,
        "method": method.value,
        "step_q15": round(step * 32768),
        "forgetting": forgetting,
        "caution": caution,
        "smoothing": smoothing,
        "constraint": constraint,
        "recovery": int(recovery),
    }
    with printing.progress() as progress:
        from unplay.cancelling import cancel_files

        done = cancel_files(
            reference,
            recording,
            residual,
            settings=settings,
            delay_s=delay,
            trace=trace,
            force=force,
            progress=progress,
        )
    if as_json:
        printing.print_json(done.as_json())
    else:
        print_cancelling(done)


def print_cancelling(done: Cancelling) -> None:
    if not done.exact:
        print(
            f"unplay: the files were brought to {done.settings['rate_hz']} Hz, mono and 16 bits first.",
            file=sys.stderr,
        )
    reduced = "silence" if done.reduction_db is None else f"{done.reduction_db:.1f} dB less than there was"
    print(f"wrote what is left to {done.residual}: {reduced}")
    if done.trace is not None:
        print(f"wrote what the canceller knew over time to {done.trace}")
