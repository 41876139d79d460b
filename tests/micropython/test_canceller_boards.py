"""The canceller as boards run it gives, bit for bit, what the host says it gives."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from takes import Take
from xtensa import disassemble

from unplay.removal.canceller import cancel
from unplay.virtual.widened import widened
from unplay_shared.canceller import Canceller

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("emulation")

DEFAULT: dict[str, object] = {}
OTHERS: list[dict[str, object]] = [
    {"block": 512, "tail_ms": 64},
    {"block": 256, "tail_ms": 256},
    {"block": 512, "rate_hz": 8000},
    {"method": "nlms", "step_q15": 8192},
]


def run_on(core: str, sources: list[Path], folder: Path, take: Take, settings: dict, n: int) -> NDArray:
    from machine_code import CORES, BoardKernels

    kernels = BoardKernels(CORES[core], sources, folder)
    canceller = Canceller(settings, kernels)
    size = canceller.n_block
    x, d, out = (kernels.samples(size) for _ in range(3))
    left = []
    for start in range(0, n, size):
        x.write(take.reference[start : start + size])
        d.write(take.recording[start : start + size])
        canceller.process(x, d, out)
        left.append(out.read())
    return np.concatenate(left)


@pytest.mark.parametrize("core", ["RP2040", "RP2350", "ESP32-C3"])
def test_three_seconds_as_machine_code(core: str, take: Take, tmp_path: Path):
    from machine_code import THUMB_KERNELS, VIPER_KERNELS

    n = len(take.recording)
    sources = VIPER_KERNELS if core == "ESP32-C3" else THUMB_KERNELS
    assert np.array_equal(
        run_on(core, sources, tmp_path, take, DEFAULT, n), cancel(take.reference, take.recording)
    )


@pytest.mark.parametrize("settings", OTHERS, ids=str)
def test_other_settings_as_machine_code(settings: dict, take: Take, tmp_path: Path):
    from machine_code import THUMB_KERNELS, VIPER_KERNELS

    n = 6 * 1024
    expected = cancel(take.reference[:n], take.recording[:n], settings)
    for core, sources in (("RP2040", THUMB_KERNELS), ("RP2350", VIPER_KERNELS)):
        assert np.array_equal(run_on(core, sources, tmp_path, take, settings, n), expected)


FULL_SCALE = {
    "alternating": lambda n: 32767 * (1 - 2 * (np.arange(n) % 2)),
    "constant": lambda n: np.full(n, -32768),
    "square": lambda n: np.where(np.arange(n) // 50 % 2, 32767, -32768),
}


@pytest.mark.parametrize("kind", FULL_SCALE)
def test_full_scale_as_machine_code(kind: str, take: Take, tmp_path: Path):
    from machine_code import THUMB_KERNELS, VIPER_KERNELS

    n = 6 * 1024
    loud = FULL_SCALE[kind](n).astype(np.int16)
    both = Take(loud, -1 - np.roll(loud, 7))
    expected = cancel(both.reference, both.recording)
    for core, sources in (("RP2350", THUMB_KERNELS), ("ESP32-C3", VIPER_KERNELS)):
        assert np.array_equal(run_on(core, sources, tmp_path, both, DEFAULT, n), expected)


PROGRAM = """
import micropython, sys
sys.path[:0] = [{device!r}, {shared!r}]
from unplay_shared.canceller import Canceller
from unplay_device import kernels
canceller = Canceller({settings!r}, kernels)
n = canceller.n_block
x, d, out = kernels.samples(n), kernels.samples(n), kernels.samples(n)
played, recorded, left = open("x.raw", "rb"), open("d.raw", "rb"), open("left.raw", "wb")
while played.readinto(x) == 2 * n and recorded.readinto(d) == 2 * n:
    micropython.heap_lock()
    canceller.process(x, d, out)
    micropython.heap_unlock()
    left.write(out)
left.close()
"""
"""With the heap locked, an allocation raises MemoryError."""


def test_three_seconds_on_micropython(micropython: str, take: Take, tmp_path: Path):
    device = tmp_path / "unplay_device"
    device.mkdir()
    (device / "__init__.py").touch()
    source = (ROOT / "device" / "unplay_device" / "kernels.py").read_text()
    (device / "kernels.py").write_text(widened(source))
    take.reference.astype("<i2").tofile(tmp_path / "x.raw")
    take.recording.astype("<i2").tofile(tmp_path / "d.raw")
    program = PROGRAM.format(device=str(tmp_path), shared=str(ROOT / "shared"), settings={})
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([micropython, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    left = np.fromfile(tmp_path / "left.raw", "<i2")
    assert np.array_equal(left, cancel(take.reference, take.recording)[: len(left)])


def test_the_model_runs_on_micropython(micropython: str):
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'shared')!r}, {str(ROOT / 'tests' / 'shared')!r}]\n"
        "import test_canceller_model as tests\n"
        "names = [name for name in dir(tests) if name.startswith('test_')]\n"
        "for name in names: getattr(tests, name)()\n"
        "print(len(names))"
    )
    done = subprocess.run([micropython, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 6


def test_every_kernel_compiles_for_xtensa(tmp_path: Path):
    """Every word is an instruction, none calls anything but the conversions of arguments and result."""
    from machine_code import VIPER_KERNELS, compile_routines

    routines = compile_routines(VIPER_KERNELS[0], "xtensawin", tmp_path)
    counts = {routine.name: Counter(disassemble(routine.code)) for routine in routines}
    assert {"first4", "stage", "split", "estimate", "learn"} <= set(counts)
    for name, count in counts.items():
        # one call for each argument but the first three words, one for the result
        assert count["callx"] + count["call"] <= 14, name
        assert count["quos"] + count["rems"] == 0, name
        # as long as the RISC-V code to within a quarter: the cost table rests on that
    riscv = {r.name: len(r.code) for r in compile_routines(VIPER_KERNELS[0], "rv32imc", tmp_path)}
    xtensa = {r.name: sum(counts[r.name].values()) for r in routines}
    for name in ("stage", "split", "estimate", "learn"):
        assert 0.35 < xtensa[name] / riscv[name] < 0.6, (name, xtensa[name], riscv[name])
