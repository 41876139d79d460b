"""The page of a batch: every recording, worst first, with a link to its own page and sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from unplay.batch.results import OUTCOMES, Results
from unplay.report.page import environment


def batch_page(source: Path, folder: Path, results: Results) -> Iterator[str]:
    """The page (HTML) piece by piece, to be written to a file in `folder`; links are relative to it."""
    return (
        environment(link=lambda path: quote(Path(os.path.relpath(path, folder)).as_posix()))
        .get_template("batch.html")
        .generate(
            name=source.name,
            outcomes=OUTCOMES,
            counts=results.counts,
            results=results.worst_first(),
        )
    )
