"""What chance reaches: the same question, asked of the echo of another time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SHIFTS = (0.183, 0.419, 0.737)
"""Over the length: no simple fractions of each other, as the beats of music are."""


def at_other_times(echo: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """The echo (n, …), frames or samples, moved round in time."""
    for share in SHIFTS:
        yield np.roll(echo, round(share * len(echo)), axis=0)
