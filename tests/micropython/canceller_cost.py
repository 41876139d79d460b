"""Print what the canceller costs on each board, from the machine code that MicroPython makes of it.

    python tests/micropython/canceller_cost.py               three minutes
    python tests/micropython/canceller_cost.py --write       into device/README.md, too

The kernels run on emulated cores over eight blocks of music under a talker, one of them with the gradient
constraint; instructions are counted and cycles added up by a model of each core (`machine_code.CORES`).
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone
import numpy as np
from machine_code import CORES, THUMB_KERNELS, VIPER_KERNELS, BoardKernels, compile_routines
from xtensa import disassemble

from unplay.removal import canceller_kernels
from unplay.virtual.scene import make_scene
from unplay_shared.canceller import Canceller
from unplay_shared.settings import complete, ram_bytes

README = Path(__file__).parents[2] / "device" / "README.md"
BEGIN, END = "<!-- made by tests/micropython/canceller_cost.py -->\n", "<!-- end -->"

SETTINGS: list[dict[str, Any]] = [
    {"rate_hz": 16000, "block": 1024, "tail_ms": 64},
    {"rate_hz": 16000, "block": 1024, "tail_ms": 128},
    {"rate_hz": 16000, "block": 1024, "tail_ms": 256},
    {"rate_hz": 16000, "block": 512, "tail_ms": 128},
    {"rate_hz": 16000, "block": 256, "tail_ms": 128},
    {"rate_hz": 8000, "block": 1024, "tail_ms": 128},
    {"rate_hz": 8000, "block": 512, "tail_ms": 128},
    {"rate_hz": 8000, "block": 512, "tail_ms": 64},
    {"rate_hz": 8000, "block": 256, "tail_ms": 128},
]

WARM, COUNTED = 8, 8
BYTECODE_CYCLES = 200
"""Of the steps between the kernels, for each of CPython's: MicroPython's interpreter takes about 1 µs at
240 MHz. An estimate; half or twice as many move the load by 1 to 3 percentage points at block 1024."""


@dataclass(frozen=True)
class Board:
    name: str
    core: str
    clock_hz: float
    sources: list[Path]


BOARDS = (
    Board("ESP32, ESP32-S3 at 240 MHz", "ESP32-C3", 240e6, VIPER_KERNELS),
    Board("RP2040 at 200 MHz", "RP2040", 200e6, THUMB_KERNELS),
    Board("RP2350 at 150 MHz", "RP2350", 150e6, THUMB_KERNELS),
)
"""The ESP32's cycles are those of the RISC-V core, times the lengths of the Xtensa and the RISC-V code."""

LIMITS = {(16000, 128): (0.45, 0.60, 0.50), (8000, 128): (0.30, 0.30, 0.30)}
"""Load that is allowed, board by board, for some block."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into device/README.md")
    write = parser.parse_args().write
    recording = _sound()
    with tempfile.TemporaryDirectory() as folder:
        ratio = xtensa_over_riscv(Path(folder))
        rows = []
        for settings in SETTINGS:
            steps = BYTECODE_CYCLES * _bytecodes(settings, recording)
            kernels = [_kernel_cycles(board, settings, recording, Path(folder), ratio) for board in BOARDS]
            rows.append((complete(settings), kernels, steps))
            print(_row(*rows[-1]), flush=True)
    table = _table(rows)
    print(table)
    if write:
        text = README.read_text()
        before, _, rest = text.partition(BEGIN)
        README.write_text(before + BEGIN + table + END + rest.partition(END)[2])
    return _verdict(rows)


def _sound() -> tuple[np.ndarray, np.ndarray]:
    scene = make_scene(5, duration_s=1.2, reference_s=1.2, offset_s=0.0, drift_ppm=0.0)
    x, d = scene.reference, scene.recording
    return tuple(np.tile(np.round(v * 32767).astype(np.int16), 2) for v in (x, d))  # type: ignore[return-value]


def _kernel_cycles(
    board: Board, settings: dict[str, Any], sound: Any, folder: Path, ratio: dict[str, float]
) -> float:
    """Cycles of all kernels, for one block on average."""
    kernels = BoardKernels(CORES[board.core], board.sources, folder)
    canceller = Canceller(settings, kernels)
    n = canceller.n_block
    x, d, out = (kernels.samples(n) for _ in range(3))
    cycles: Counter[str] = Counter()
    run = kernels.board.call

    def counted(name: str, *arguments: Any) -> int:
        results: list[int] = []
        cycles[name] += kernels.board.count(lambda: results.append(run(name, *arguments)))[1]
        return results[0]

    for block in range(WARM + COUNTED):
        if block == WARM:
            kernels.board.call = counted  # type: ignore[method-assign]
        start = block * n
        x.write(sound[0][start : start + n])
        d.write(sound[1][start : start + n])
        canceller.process(x, d, out)
    factors = ratio if board.core == "ESP32-C3" else dict.fromkeys(cycles, 1.0)
    return sum(count * factors[name] for name, count in cycles.items()) / COUNTED


def xtensa_over_riscv(folder: Path) -> dict[str, float]:
    """Instructions of each kernel for xtensawin, over those for rv32imc."""
    riscv = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
    lengths = {
        routine.name: sum(1 for _ in riscv.disasm(routine.code, 0))
        for routine in compile_routines(VIPER_KERNELS[0], "rv32imc", folder)
    }
    xtensa = compile_routines(VIPER_KERNELS[0], "xtensawin", folder)
    return {routine.name: len(disassemble(routine.code)) / lengths[routine.name] for routine in xtensa}


def _bytecodes(settings: dict[str, Any], sound: Any) -> float:
    """Steps of the interpreter between the kernels, for one block, as CPython counts them."""
    canceller = Canceller(settings, canceller_kernels)
    n = canceller.n_block
    out = canceller_kernels.samples(n)
    steps = 0

    def traced(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        if "unplay_shared" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return traced

    for block in range(WARM + COUNTED):
        here = slice(block * n, block * n + n)
        if block == WARM:
            sys.settrace(traced)
        canceller.process(sound[0][here], sound[1][here], out)
    sys.settrace(None)
    return steps / COUNTED


def _loads(settings: dict[str, Any], kernels: list[float], steps: float) -> list[float]:
    per_second = settings["rate_hz"] / settings["block"]
    return [
        (cycles + steps) * per_second / board.clock_hz for board, cycles in zip(BOARDS, kernels, strict=True)
    ]


def _row(settings: dict[str, Any], kernels: list[float], steps: float) -> str:
    loads = _loads(settings, kernels, steps)
    cells = [
        f"{(cycles + steps) / 1e6:.2f} M, {100 * load:.0f} %"
        for cycles, load in zip(kernels, loads, strict=True)
    ]
    head = f"| {settings['rate_hz'] // 1000} kHz | {settings['block']} | {settings['tail_ms']} ms "
    return head + f"| {ram_bytes(settings) / 1024:.1f} | " + " | ".join(cells) + " |"


def _table(rows: list[Any]) -> str:
    today = datetime.date.today().isoformat()
    head = "| rate | block | tail | RAM, KB | " + " | ".join(board.name for board in BOARDS) + " |\n"
    lines = "\n".join(_row(*row) for row in rows)
    return (
        f"Cycles a block and load, measured {today} by `python tests/micropython/canceller_cost.py`:\n\n"
        f"{head}|{'---|' * (4 + len(BOARDS))}\n{lines}\n"
    )


def _verdict(rows: list[Any]) -> int:
    missed = 0
    for (rate_hz, tail_ms), limits in LIMITS.items():
        fitting = [row for row in rows if (row[0]["rate_hz"], row[0]["tail_ms"]) == (rate_hz, tail_ms)]
        for k, limit in enumerate(limits):
            best = min(_loads(*row)[k] for row in fitting)
            passed = best <= limit
            missed += not passed
            what = re.sub(r",? at.*", "", BOARDS[k].name)
            print(
                f"{'pass' if passed else 'FAIL'}  {what}, {rate_hz} Hz, {tail_ms} ms: "
                f"{100 * best:.1f} %, at most {100 * limit:.0f} %"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
