"""Print on which residuals `auto` would heed the neural suppressor, and what that gains or costs.

    python tests/host/benchmarks/neural_gate.py MIXED/validation

MIXED is what host/training/mix.py made; four residuals a scene, one after each linear stage of its KINDS.
The talkers and music are those that validated the training. Needs a runtime: `pip install 'unplay[neural]'`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unplay.metrics import si_sdr_db
from unplay.removal.neural import RATE_HZ, suppress
from unplay.removal.plan import _with_network

KINDS = ("fir", "better", "device", "kalman")
"""As mix.py has them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder of shards that mix.py made")
    judged = list(residuals(parser.parse_args().shards))
    print("                                residuals   SI-SDR     gain    least")
    for talks in (True, False):
        for kind in (*KINDS, "all"):
            rows = [row for row in judged if row.talks == talks and kind in (row.kind, "all")]
            name = kind if talks else f"{kind}, far end alone"
            print_row(f"{name}, always", rows)
            print_row(f"{name}, heeded", [row for row in rows if row.heeded])


class Row(NamedTuple):
    """before_db: SI-SDR of the residual; gain_db: in SI-SDR, or where nobody talks further reduction."""

    kind: str
    talks: bool
    heeded: bool
    before_db: float
    gain_db: float


def residuals(folder: Path) -> Iterator[Row]:
    """What the network does with one after the other, and whether the plan heeds it."""
    for path in sorted(folder.glob("????.npz")):
        with np.load(path) as stored:
            names = ("residual", "echo", "reference", "near_end")
            signals = [stored[name].astype(np.float64) for name in names]
        for k, (residual, echo, reference, near_end) in enumerate(zip(*signals, strict=True)):
            heeded = _with_network(residual, echo, reference, RATE_HZ)[1].used
            kept, talks = suppress(residual, echo, reference, RATE_HZ), bool(near_end.any())
            if talks:
                before_db = si_sdr_db(near_end, residual)
                gain_db = si_sdr_db(near_end, kept) - before_db
            else:
                before_db, gain_db = np.nan, 10 * np.log10(np.sum(residual**2) / (np.sum(kept**2) + 1e-9))
            yield Row(KINDS[k % len(KINDS)], talks, heeded, before_db, float(gain_db))


def print_row(name: str, rows: list[Row]) -> None:
    if rows:
        before_db, gain_db = np.array([(row.before_db, row.gain_db) for row in rows]).T
        figures = f"{before_db.mean():7.1f} dB {gain_db.mean():+6.2f} dB {gain_db.min():+7.2f} dB"
        print(f"{name:32}{len(rows):9} {figures}", flush=True)


if __name__ == "__main__":
    main()
