"""`unplay batch`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unplay.cli import printing
from unplay.cli.clean import Method

if TYPE_CHECKING:
    from unplay.batch.run import Batch


def batch(
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|DIR", help="A table of recordings, or a folder of them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to put the results. [MANIFEST-cleaned]"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes at a time. [one a core]")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Have a dask cluster do it, e.g. tcp://192.0.2.1:8786."),
    ] = None,
    method: Annotated[Method, typer.Option(help="As of `unplay clean`.")] = Method.AUTO,
    strength: Annotated[float, typer.Option(metavar="0..1", help="As of `unplay clean`.")] = 1.0,
    warp: Annotated[bool, typer.Option("--warp/--no-warp", help="As of `unplay clean`.")] = True,
    removed: Annotated[bool, typer.Option("--removed", help="Also write what was taken out.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write a page for each recording.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Do anew what an earlier run has done.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else, on stdout.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for each recording.")] = False,
) -> None:
    """Clean many recordings; one that cannot be cleaned never stops the rest.

    Example: unplay batch takes.csv --jobs 4 --report

    A manifest (.csv, .tsv, .txt, .jsonl, .ndjson) has the columns `reference` and `recording`, paths relative
    to the manifest's folder, and maybe `id`, the folder of the results; other columns are carried over. In a
    folder, NAME_reference.wav was played for NAME.wav or NAME_recording.wav beside it; for every other
    recording the nearest reference.wav counts, beside it or in a folder above.

    DIR gets ID/near_end.wav and ID/log.json of each recording, results.jsonl with a line for each as they
    end, and index.html, worst first. Run again, it goes on where it was stopped: what was cleaned or refused
    stands, while files, settings and version are the same; what failed is tried again.

    Exit codes: 0 all were cleaned; else the least of what `unplay clean` would have ended with: 1 a bug or a
    worker that died, 2 bad usage or bad input, 3 the reference absent, 4 not removed with confidence.
    """
    # what goes wrong there is told by our own exceptions; this would add tracebacks
    logging.getLogger("distributed.client").disabled = True
    with printing.progress() as progress:
        from unplay.batch.run import Settings, run

        def tell(n_done: int, n: int, result: dict[str, Any]) -> None:
            progress(f"{n_done} of {n}", n_done / n)
            if result["exit_code"]:
                print(f"unplay: {result['id']}: {result['reason']}", file=sys.stderr)
            elif verbose:
                print(f"{result['id']}: cleaned, confidence {result['confidence']:.2f}", file=sys.stderr)

        try:
            done = run(
                source,
                output,
                settings=Settings(method.value, strength, warp, removed, report),
                jobs=jobs,
                scheduler=scheduler,
                again=again,
                progress=tell,
            )
        except KeyboardInterrupt:
            print("unplay: interrupted; the same command goes on from here", file=sys.stderr)
            raise
    if as_json:
        printing.print_json(as_document(done))
    else:
        print_batch(done)
    raise typer.Exit(done.exit_code)


def as_document(done: Batch) -> dict[str, Any]:
    from unplay.batch.results import OUTCOMES

    return {
        "folder": str(done.folder),
        "results": str(done.results),
        "page": str(done.page),
        "exit_code": done.exit_code,
        "kept": done.n_kept,
        "counts": {name: done.counts.get(code, 0) for code, name in OUTCOMES.items()},
    }


def print_batch(done: Batch) -> None:
    """The worst recordings, how many ended how, and where all of it is."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from unplay.batch.results import OUTCOMES

    table = Table("worst first", "outcome", box=box.SIMPLE)
    for heading in ("confidence", "less loud, dB", "drift, ppm"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in done.worst:
        figures = (
            ()
            if result["exit_code"]
            else (
                f"{result['confidence']:.2f}",
                f"{result['reduction_db']:.1f}",
                f"{result['drift_ppm']:+.2f}",
            )
        )
        table.add_row(escape(result["id"]), OUTCOMES[result["exit_code"]], *figures)
    Console().print(table)
    n = sum(done.counts.values())
    kept = f" ({done.n_kept} of an earlier run)" if done.n_kept else ""
    counted = ", ".join(f"{done.counts[code]} {OUTCOMES[code]}" for code in sorted(done.counts))
    print(f"{n} recordings{kept}: {counted}")
    print(f"wrote the page to {done.page}, a line for each recording to {done.results}")
