"""Xtensa instructions as far as MicroPython's emitter uses them: lengths and names (ISA manual, ch. 8)."""

from __future__ import annotations

B = ["bnone", "beq", "blt", "bltu", "ball", "bbc", "bbci", "bbci"]
B += ["bany", "bne", "bge", "bgeu", "bnall", "bbs", "bbsi", "bbsi"]
LOADS = {0: "l8ui", 1: "l16ui", 2: "l32i", 4: "s8i", 5: "s16i", 6: "s32i"}
LOADS |= {9: "l16si", 10: "movi", 12: "addi", 13: "addmi"}
RST0 = {1: "and", 2: "or", 3: "xor", 6: "neg", 8: "add", 9: "addx2", 10: "addx4", 11: "addx8", 12: "sub"}
RST0 |= {13: "subx2", 14: "subx4", 15: "subx8"}
RST1 = {0: "slli", 1: "slli", 2: "srai", 3: "srai", 4: "srli", 8: "src", 9: "srl", 10: "sll", 11: "sra"}
RST1 |= {12: "mul16u", 13: "mul16s"}
SHIFT_SET = {0: "ssr", 1: "ssl", 2: "ssa8l", 3: "ssa8b", 4: "ssai", 14: "nsa", 15: "nsau"}
CONDITIONAL = [
    ["j"] * 4,
    ["beqz", "bnez", "bltz", "bgez"],
    ["beqi", "bnei", "blti", "bgei"],
    ["entry", "b1", "bltui", "bgeui"],
]


def disassemble(code: bytes) -> list[str]:
    """Mnemonics of a function as emitted: a jump over its constants, then `entry` and the code.

    Raises ValueError where a word is no instruction known here.
    """
    jump = int.from_bytes(code[:3], "little")
    at = 4 + (jump >> 6)
    names = []
    while at + 1 < len(code):
        name, length = _decode(code[at : at + 3])
        names.append(name)
        at += length
    if names[:1] != ["entry"]:
        raise ValueError(f"the code begins with {names[:3]}, not with entry")
    return names


def _decode(code: bytes) -> tuple[str, int]:
    kind = code[0] & 15
    if kind >= 8:
        return _narrow(kind, int.from_bytes(code[:2], "little")), 2
    word = int.from_bytes(code, "little")
    t, s, r, op1, op2 = (word >> shift & 15 for shift in (4, 8, 12, 16, 20))
    name = None
    if kind == 0 and op1 == 0:
        name = RST0.get(op2)
        if op2 == 0:
            name = "callx" if r == 0 and t >> 2 == 3 else "ret" if r == 0 else "nop" if r == 2 else None
        elif op2 == 4:
            name = SHIFT_SET.get(r)
    elif kind == 0 and op1 == 1:
        name = RST1.get(op2)
    elif kind == 0 and op1 == 2:
        name = {8: "mull", 13: "quos", 15: "rems"}.get(op2)
    elif kind == 0 and op1 == 3:
        name = {8: "moveqz", 9: "movnez", 10: "movltz", 11: "movgez"}.get(op2)
    elif kind == 1:
        name = "l32r"
    elif kind == 2:
        name = LOADS.get(r)
    elif kind == 5:
        name = "call"
    elif kind == 6:
        name = CONDITIONAL[t & 3][t >> 2]
    elif kind == 7:
        name = B[r]
    if name is None:
        raise ValueError(f"{word:06x} is no instruction known here (s {s})")
    return name, 3


def _narrow(kind: int, word: int) -> str:
    t, r = word >> 4 & 15, word >> 12 & 15
    if kind == 12:
        return "movi.n" if not t & 8 else "bnez.n" if t & 4 else "beqz.n"
    if kind == 13:
        names = {0: "mov.n"} | ({15: {0: "ret.n", 1: "retw.n", 3: "nop.n"}.get(t, "?")})
        if names.get(r, "?") == "?":
            raise ValueError(f"{word:04x} is no instruction known here")
        return names[r]
    return {8: "l32i.n", 9: "s32i.n", 10: "add.n", 11: "addi.n"}[kind]
