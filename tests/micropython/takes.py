"""Sound for a device: two signals of int16."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Take:
    """Two signals of int16 that begin together, at 16 kHz."""

    reference: NDArray[np.int16]
    recording: NDArray[np.int16]
