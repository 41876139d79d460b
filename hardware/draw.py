"""Wiring tables and drawings of all boards, from the pins in their files: python hardware/draw.py

Writes the table into each board's page (between the two comments) and BOARD.svg beside it.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
BOARDS = HERE.parent / "device" / "unplay_device" / "boards"

BEGIN, END = "<!-- made by hardware/draw.py -->", "<!-- end -->"

PICO_PINS = {
    12: 16, 13: 17, 14: 19, 15: 20, 16: 21, 17: 22, 18: 24, 19: 25, 20: 26, 21: 27, 22: 29,
}  # fmt: skip
PI_PINS = {4: 7, 17: 11, 18: 12, 19: 35, 20: 38, 21: 40, 27: 13}
"""Places on the boards' headers, by GPIO."""

POWER = {
    "esp32": {"3V3": "3V3", "5V": "5V", "GND": "GND"},
    "esp32s3": {"3V3": "3V3", "5V": "5V", "GND": "GND"},
    "pico": {"3V3": "3V3(OUT), pin 36", "5V": "VBUS, pin 40", "GND": "GND, pin 38"},
    "pi": {"3V3": "3V3, pin 1", "5V": "5V, pin 2", "GND": "GND, pin 6"},
}
POWER["pico2"] = POWER["pico"]

TITLES = {
    "esp32": "ESP32-DevKitC",
    "esp32s3": "ESP32-S3-DevKitC-1",
    "pico": "Raspberry Pi Pico",
    "pico2": "Raspberry Pi Pico 2",
    "pi": "Raspberry Pi",
}


class Wire(NamedTuple):
    """From a part's pin to the board's. gpio: its number, or 3V3, 5V, GND, or "" where it stays open."""

    part: str
    pin: str
    gpio: int | str


def pins(board: str) -> dict[str, Any]:
    """The constants of a board's file, without running it; those of another board's file are looked up."""
    found: dict[str, Any] = {}
    for node in ast.parse((BOARDS / f"{board}.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign):
            continue
        for target, value in _pairs(node):
            if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
                found[target] = pins(value.value.id).get(value.attr)
            elif isinstance(value, ast.Constant | ast.Dict):
                found[target] = ast.literal_eval(value)
    return found


def _pairs(node: ast.Assign) -> list[tuple[str, ast.expr]]:
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        return [(name.id, value) for name, value in zip(target.elts, node.value.elts, strict=True)]  # type: ignore
    return [(target.id, node.value)] if isinstance(target, ast.Name) else []


def wires(board: str) -> list[Wire]:
    """All wires of a board, part by part."""
    known = pins(board)
    sound = known.get("SOUND")
    microphone = known.get("MICROPHONE", {})
    amplifier = known.get("AMPLIFIER", {})
    if sound:  # both share the clock's wires
        microphone = {"sck": sound["bclk"], "ws": sound["lrclk"], "sd": sound["din"]}
        amplifier = {"sck": sound["bclk"], "ws": sound["lrclk"], "sd": sound["dout"]}
    found = [
        Wire("microphone INMP441", "SCK", microphone["sck"]),
        Wire("microphone INMP441", "WS", microphone["ws"]),
        Wire("microphone INMP441", "SD", microphone["sd"]),
        Wire("microphone INMP441", "L/R", "GND"),
        Wire("microphone INMP441", "VDD", "3V3"),
        Wire("microphone INMP441", "GND", "GND"),
        Wire("amplifier MAX98357A", "BCLK", amplifier["sck"]),
        Wire("amplifier MAX98357A", "LRC", amplifier["ws"]),
        Wire("amplifier MAX98357A", "DIN", amplifier["sd"]),
        Wire("amplifier MAX98357A", "VIN", "5V"),
        Wire("amplifier MAX98357A", "GND", "GND"),
    ]
    card = known.get("CARD")
    if card:
        found += [
            Wire("microSD module", "CLK", card["sck"]),
            Wire("microSD module", "MOSI", card["mosi"]),
            Wire("microSD module", "MISO", card["miso"]),
            Wire("microSD module", "CS", card["cs"]),
            Wire("microSD module", "VCC", "3V3"),
            Wire("microSD module", "GND", "GND"),
        ]
    found += [Wire("button", "one side", known["BUTTON"]), Wire("button", "other side", "GND")]
    if not board.startswith("pico"):  # a Pico's LED is on the board
        found += [Wire("LED", "long leg, by 330 Ω", known["LED"]), Wire("LED", "short leg", "GND")]
    return found


def place(board: str, gpio: int | str) -> str:
    """What stands beside the pin on the board."""
    if isinstance(gpio, str):
        return POWER[board][gpio]
    if board.startswith("pico"):
        return f"GP{gpio}, pin {PICO_PINS[gpio]}"
    if board == "pi":
        return f"GPIO {gpio}, pin {PI_PINS[gpio]}"
    return f"GPIO {gpio}"


def table(board: str) -> str:
    lines = ["| part | its pin | board |", "|---|---|---|"]
    lines += [f"| {wire.part} | {wire.pin} | {place(board, wire.gpio)} |" for wire in wires(board)]
    return "\n".join(lines)


# The drawing: the board in the middle, parts left and right, every wire a level line

ROW, TOP, GAP = 26, 70, 30
PART_W, BOARD_W, WIRE_W = 190, 300, 110
LEFT_PARTS = ("microphone INMP441", "button", "LED")

STYLE = """
  svg { background: #ffffff; font: 14px system-ui, sans-serif; }
  .box { fill: #f3f4f6; stroke: #374151; stroke-width: 1.5; }
  text { fill: #111827; }
  .title { font-weight: 600; }
  .wire { stroke-width: 3; fill: none; stroke-linecap: round; }
  .signal { stroke: #2563eb; } .clock { stroke: #b45309; }
  .plus { stroke: #dc2626; } .ground { stroke: #6b7280; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    .box { fill: #1f2937; stroke: #9ca3af; }
    text { fill: #f3f4f6; }
    .signal { stroke: #60a5fa; } .clock { stroke: #fbbf24; }
    .plus { stroke: #f87171; } .ground { stroke: #9ca3af; }
  }
"""

CLOCKS = ("SCK", "WS", "BCLK", "LRC", "CLK")


def kind(wire: Wire) -> str:
    if wire.gpio == "GND":
        return "ground"
    if wire.gpio in ("3V3", "5V"):
        return "plus"
    return "clock" if wire.pin in CLOCKS else "signal"


def drawing(board: str) -> str:
    """An SVG that follows the reader's light or dark setting."""
    parts: dict[str, list[Wire]] = {}
    for wire in wires(board):
        parts.setdefault(wire.part, []).append(wire)
    shapes: list[str] = []
    bottoms = []
    for is_left in (True, False):
        y = TOP
        for name, of_part in parts.items():
            if (name in LEFT_PARTS) == is_left:
                shapes += _part(board, name, of_part, y, is_left)
                y += ROW * (len(of_part) + 1) + GAP
        bottoms.append(y)
    height = max(bottoms)
    width = 2 * (PART_W + WIRE_W) + BOARD_W + 40
    box = _box(20 + PART_W + WIRE_W, 20, BOARD_W, height - 40, TITLES[board], centred=True)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>Wiring of unplay on {TITLES[board]}</title>",
            f"<style>{STYLE}</style>",
            *box,
            *shapes,
            "</svg>\n",
        ]
    )


def _part(board: str, name: str, of_part: list[Wire], y: int, is_left: bool) -> list[str]:
    """A part's box, its wires, and the board's pins at their other ends."""
    x = 20 if is_left else 20 + PART_W + 2 * WIRE_W + BOARD_W
    shapes = _box(x, y - 20, PART_W, ROW * (len(of_part) + 1), name)
    inner, outer = (x + PART_W, x + PART_W + WIRE_W) if is_left else (x, x - WIRE_W)
    anchors = ("end", "start") if is_left else ("start", "end")
    step = 8 if is_left else -8
    for number, wire in enumerate(of_part):
        level = y + ROW * (number + 1) - 8
        shapes.append(f'<path class="wire {kind(wire)}" d="M{inner} {level}H{outer}"/>')
        shapes.append(_text(inner - step, level + 5, wire.pin, anchors[0]))
        shapes.append(_text(outer + step, level + 5, place(board, wire.gpio), anchors[1]))
    return shapes


def _box(x: int, y: int, width: int, height: int, title: str, centred: bool = False) -> list[str]:
    at, anchor = (x + width // 2, "middle") if centred else (x + 10, "start")
    return [
        f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>',
        f'<text class="title" x="{at}" y="{y + 20}" text-anchor="{anchor}">{escape(title)}</text>',
    ]


def _text(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def with_table(page: str, board: str) -> str:
    """The page with its table renewed."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(board)}\n{END}{after}"


def main() -> None:
    for board in TITLES:
        page = HERE / f"{board}.md"
        page.write_text(with_table(page.read_text(encoding="utf-8"), board), encoding="utf-8")
        (HERE / f"{board}.svg").write_text(drawing(board), encoding="utf-8")


if __name__ == "__main__":
    main()
