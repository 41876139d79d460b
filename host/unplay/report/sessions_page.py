"""The page of a library: which devices get worse, how each figure changes, every session, worst first."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unplay.report import charts, pictures
from unplay.report.page import environment
from unplay.sessions import ENDED_WELL, Session, Trend, by_device, trends_of
from unplay.trends import known, usual


@dataclass(frozen=True)
class Line:
    """A trend as the page shows it. before: the median of the ten before the newest."""

    trend: Trend
    newest: str
    before: str
    spark: str


def sessions_page(sessions: Sequence[Session], folder: Path) -> str:
    """The page (HTML) of these sessions, worst first, to be written to a file in `folder`.

    Links to the pages of sessions are relative to that.
    """
    devices = [_device(name, history) for name, history in by_device(sessions).items()]
    devices.sort(key=lambda shown: not shown["worse"])
    return (
        environment(time=_time, link=lambda path: quote(Path(os.path.relpath(path, folder)).as_posix()))
        .get_template("sessions.html")
        .render(
            verdict=_verdict(devices, len(sessions)),
            devices=devices,
            sessions=sessions,
            ended_well=ENDED_WELL,
            columns=pictures.COLUMNS,
            spark_box=(charts.SPARK_WIDTH, charts.SPARK_HEIGHT),
        )
    )


def _verdict(devices: list[dict[str, Any]], n_sessions: int) -> str:
    worse = [device["name"] for device in devices if device["worse"]]
    which = f"{', '.join(worse)} got worse" if worse else "none got worse"
    return f"{_counted(n_sessions, 'session')} of {_counted(len(devices), 'device')}: {which}."


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _device(name: str, history: list[Session]) -> dict[str, Any]:
    days = [_day(session.facts["started_s"]) for session in (history[0], history[-1])]
    trends = trends_of(name, history)
    worse = [trend for trend in trends if trend.worse is not None]
    return {
        "name": name,
        "n_sessions": _counted(len(history), "session"),
        "days": days,
        "worse": worse,
        "charts": [
            charts.over_sessions(trend.figure, trend.values, days[0] or "oldest", days[1] or "newest")
            for trend in worse
        ],
        "lines": [_line(trend) for trend in sorted(trends, key=lambda trend: trend.worse is None)],
    }


def _line(trend: Trend) -> Line:
    measured, expected = known(trend.values), usual(trend.values)
    return Line(
        trend,
        f"{measured[-1]:.4g}" if measured else "",
        f"{expected[0]:.4g}" if expected else "",
        charts.sparkline(trend.values, trend.figure.step),
    )


def _day(unix_s: float | None) -> str:
    return _time(unix_s)[: len("2026-11-27")]


def _time(unix_s: float | None) -> str:
    """Local time; nothing where the device's clock was not set."""
    return "" if unix_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
