"""The page of `validate`: figures against their floors, how they have changed, the echo path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unplay.board.references import RATE_HZ
from unplay.hil.history import Trend
from unplay.hil.junit import sentence
from unplay.hil.validation import Row, Validation
from unplay.report import charts, echo, pictures
from unplay.report.page import environment


@dataclass(frozen=True)
class Line:
    """A row as the page shows it. spark: SVG path of the values over time; empty below two of them."""

    row: Row
    trend: Trend
    spark: str


def validation_page(
    done: Sequence[tuple[Validation, Mapping[str, Trend]]], unreachable: Mapping[str, str]
) -> str:
    """The page (HTML) of one run over several devices, each with the trends of its figures.

    unreachable: ports whose run broke off, and why.
    """
    names = [validation.device for validation, _ in done]
    return (
        environment()
        .get_template("validation.html")
        .render(
            name=", ".join([*names, *unreachable]),
            verdict=_verdict([validation for validation, _ in done], unreachable),
            unreachable=unreachable,
            devices=[_device(validation, trends) for validation, trends in done],
            columns=pictures.COLUMNS,
            spark_box=(charts.SPARK_WIDTH, charts.SPARK_HEIGHT),
        )
    )


def _verdict(done: Sequence[Validation], unreachable: Mapping[str, str]) -> str:
    passed = sum(not validation.failed for validation in done)
    return f"{passed} of {len(done) + len(unreachable)} devices are above all their floors."


def _device(validation: Validation, trends: Mapping[str, Trend]) -> dict[str, Any]:
    lines = [
        Line(row, trends[row.name], charts.sparkline(trends[row.name].values, row.figure.step))
        for row in sorted(validation.rows, key=lambda row: (row.passed, trends[row.name].worse is None))
    ]
    known = len(validation.taps) and validation.taps.any()
    return {
        "run": validation,
        "lines": lines,
        "failed": [sentence(row) for row in validation.failed],
        "worse": [line for line in lines if line.trend.worse is not None],
        "runs": len(lines[0].trend.values),
        "echo": charts.of_echo(echo.of_taps(validation.taps, RATE_HZ)) if known else None,
    }
