"""The methods that can be asked for by name, and what can be set in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay.removal import baselines
from unplay.removal.neural import Neural
from unplay.removal.nmf import Nmf
from unplay.removal.pursuit import Pursuit

FloatArray = NDArray[np.floating]
Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Method:
    """take_out: x (n_samples,), d (n_samples,), sample rate → near end (n_samples,), as the functions of
    `baselines`, and what is known of how it went: lists of numbers by name, or nothing."""

    name: str
    take_out: Callable[[FloatArray, FloatArray, int], tuple[FloatArray, Figures]]


SETTABLE = {"pursuit": Pursuit, "nmf": Nmf, "neural": Neural}
NAMES = (*baselines.METHODS, *SETTABLE)


def method_named(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of this name, one of NAMES, with its settings: the fields of its class in SETTABLE.

    `nmf` also takes playback_only (n_samples,), a recording of the playback alone, and its
    sample_rate_hz; its figures are the costs. Raises BadInputError for a setting out of range.
    """
    values = dict(settings or {})
    if name == "nmf":
        playback_only, rate_hz = values.pop("playback_only", None), values.pop("sample_rate_hz", 0)
        nmf = Nmf(**values)
        return Method(
            name, (nmf if playback_only is None else nmf.learnt_from(playback_only, rate_hz)).fitted
        )
    take_out = SETTABLE[name](**values) if name in SETTABLE else baselines.METHODS[name]
    return Method(name, lambda x, d, sample_rate_hz: (take_out(x, d, sample_rate_hz), {}))
