"""Figures of a device over time, and whether they get worse: at once, or little by little."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RECENT, LEAST_BEFORE = 10, 3
"""The newest value is compared with the last ten before it, when there are three."""

USUAL_DEVIATIONS = 3 * 1.4826
"""In median absolute deviations: three standard deviations of what changes by chance."""

LONG, CHANCE = 30, 0.001
"""A slow change is looked for in so many values; chance alone makes one look like it as seldom as that."""


@dataclass(frozen=True)
class Figure:
    """What can be measured. step: a change that is worth a look. better: 1 where more is, −1 less, 0 none."""

    title: str
    unit: str
    step: float
    better: int

    @property
    def heading(self) -> str:
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def amount(self, value: float) -> str:
        """A value with its unit, to four digits."""
        return f"{value:.4g} {self.unit}".rstrip()


def usual(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Median of the RECENT values before the newest, and how far from it is usual; None for too few."""
    before = known(values[:-1])[-RECENT:]
    if len(before) < LEAST_BEFORE:
        return None
    median = statistics.median(before)
    return median, USUAL_DEVIATIONS * statistics.median(abs(value - median) for value in before)


def worse_by(values: Sequence[float | None], figure: Figure) -> float | None:
    """How much worse the newest value is than it was; None where it is not, or not known.

    values: the oldest first, None where not measured. It is worse by at least the figure's step, and at once,
    beyond what is usual, or little by little.
    """
    expected = usual(values)
    if expected is None or values[-1] is None:
        return None
    median, deviation = expected
    at_once = figure.better * (median - values[-1])
    if at_once > 0 and at_once >= max(figure.step, deviation):
        return round(at_once, 4)
    slowly = -figure.better * _slow_change(known(values)[-LONG:])
    return round(slowly, 4) if slowly > 0 and slowly >= figure.step else None


def known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _slow_change(values: Sequence[float]) -> float:
    """From the first to the last, along the line of Theil and Sen; 0 where Kendall's tau may be chance."""
    import scipy.stats

    order = range(len(values))
    if not scipy.stats.kendalltau(order, values).pvalue < CHANCE:
        return 0.0
    return float(scipy.stats.theilslopes(values, order).slope) * (len(values) - 1)
