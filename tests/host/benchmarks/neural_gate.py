"""Print on which residuals `auto` would heed the neural suppressor, and what that gains or costs.

    python tests/host/benchmarks/neural_gate.py MIXED/validation

MIXED is what host/training/mix.py made; four residuals a scene, one after each linear stage of its KINDS.
The talkers and music are those that validated the training. Needs a runtime: `pip install 'unplay[neural]'`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unplay.metrics import si_sdr_db
from unplay.removal.neural import RATE_HZ, suppress
from unplay.removal.plan import _with_network

KINDS = ("fir", "better", "device", "kalman")
"""As mix.py has them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder of shards that mix.py made")
    rows = list(residuals(parser.parse_args().shards))
    print("                      residuals   SI-SDR     gain    least")
    for kind in KINDS:
        print_row(f"{kind}, always", [gains for name, _, *gains in rows if name == kind])
        print_row(f"{kind}, heeded", [gains for name, heeded, *gains in rows if name == kind and heeded])
    print_row("all, always", [gains for _, _, *gains in rows])
    print_row("all, heeded", [gains for _, heeded, *gains in rows if heeded])


def residuals(folder: Path) -> Iterator[tuple[str, bool, float, float]]:
    """Kind, whether the plan heeds the network, SI-SDR of the residual, and what the network gains, in dB."""
    for path in sorted(folder.glob("????.npz")):
        with np.load(path) as stored:
            names = ("residual", "echo", "reference", "near_end")
            signals = [stored[name].astype(np.float64) for name in names]
        for k, (residual, echo, reference, near_end) in enumerate(zip(*signals, strict=True)):
            if near_end.any():
                _, decision = _with_network(residual, echo, reference, RATE_HZ)
                before_db = si_sdr_db(near_end, residual)
                after_db = si_sdr_db(near_end, suppress(residual, echo, reference, RATE_HZ))
                yield KINDS[k % len(KINDS)], decision.used, before_db, after_db - before_db


def print_row(name: str, gains: list[list[float]]) -> None:
    before_db, gain_db = np.array(gains).reshape(-1, 2).T
    if len(gain_db):
        figures = f"{before_db.mean():7.1f} dB {gain_db.mean():+6.2f} dB {gain_db.min():+7.2f} dB"
        print(f"{name:22}{len(gain_db):9} {figures}", flush=True)


if __name__ == "__main__":
    main()
