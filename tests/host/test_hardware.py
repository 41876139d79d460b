"""The wiring pages say what the board files say."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
HARDWARE = ROOT / "hardware"
BOARD_FILES = ROOT / "device" / "unplay_device" / "boards"
BOARDS = sorted(path.stem for path in BOARD_FILES.glob("*.py") if path.stem != "__init__")

STRAPPING = {
    "esp32": {0, 2, 12, 15, *range(6, 12), *range(34, 40)},
    "esp32s3": {0, 3, 45, 46, 19, 20, *range(26, 38)},
    "pico": {23, 24, 29},
    "pico2": {23, 24, 29},
    "pi": {0, 1, 14, 15},
}
"""Pins that a board needs itself, or that cannot put out."""


class _Anything:
    """Stands in for whatever a board file imports."""

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __call__(self, *_: object) -> Any:
        return _Anything()


@pytest.fixture(scope="module")
def constants() -> dict[str, dict[str, Any]]:
    """Of each board's file, by running it: unlike hardware/draw.py, which reads its text."""
    import sys

    stand_ins = ["machine", "vfs", "unplay_device.i2s", "unplay_device.pio"]
    before = {name: sys.modules.get(name) for name in stand_ins}
    try:
        for name in stand_ins:
            sys.modules[name] = _Anything()  # type: ignore[assignment]
        return {board: runpy.run_module(f"unplay_device.boards.{board}") for board in BOARDS}
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name in [name for name in sys.modules if name.startswith("unplay_device.boards.")]:
            del sys.modules[name]


def rows(board: str) -> dict[tuple[str, str], str]:
    """(part, its pin): place on the board, of a page's first table."""
    page = (HARDWARE / f"{board}.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    return {(part.split()[0], pin): place for part, pin, place in lines if part != "part"}


def gpio(place: str) -> int:
    found = re.match(r"(?:GPIO |GP)(\d+)", place)
    assert found, place
    return int(found[1])


@pytest.mark.parametrize("board", BOARDS)
def test_tables_agree_with_the_board_files(board: str, constants: dict[str, dict[str, Any]]):
    known = constants[board]
    table = rows(board)
    if "SOUND" in known:
        sound = known["SOUND"]
        microphone = [sound["bclk"], sound["lrclk"], sound["din"]]
        amplifier = [sound["bclk"], sound["lrclk"], sound["dout"]]
    else:
        microphone, amplifier = (
            [known[name][pin] for pin in ("sck", "ws", "sd")] for name in ("MICROPHONE", "AMPLIFIER")
        )
    assert [gpio(table["microphone", pin]) for pin in ("SCK", "WS", "SD")] == microphone
    assert [gpio(table["amplifier", pin]) for pin in ("BCLK", "LRC", "DIN")] == amplifier
    if card := known["CARD"]:
        assert [gpio(table["microSD", pin]) for pin in ("CLK", "MOSI", "MISO", "CS")] == [
            card[pin] for pin in ("sck", "mosi", "miso", "cs")
        ]
    assert gpio(table["button", "one side"]) == known["BUTTON"]
    if not board.startswith("pico"):
        assert gpio(table["LED", "long leg, by 330 Ω"]) == known["LED"]


@pytest.mark.parametrize("board", BOARDS)
def test_pins_are_free_and_used_once(board: str, constants: dict[str, dict[str, Any]]):
    known = constants[board]
    table = rows(board)
    microphone, amplifier = (
        {gpio(table[part, pin]) for pin in pins}
        for part, pins in (("microphone", ("SCK", "WS")), ("amplifier", ("BCLK", "LRC")))
    )
    clocks = microphone & amplifier
    assert len(clocks) in (0, 2)
    used = [gpio(place) for place in rows(board).values() if re.match(r"GPIO |GP\d", place)]
    once = [pin for pin in used if pin not in clocks] + sorted(clocks)
    if not board.startswith("pico"):
        assert known["LED"] in once
    assert len(once) == len(set(once))
    assert not set(once) & STRAPPING[board]


def test_side_set_and_i2s_want_neighbours(constants: dict[str, dict[str, Any]]):
    """On a Pico LRCLK must be the pin after BCLK, for the state machine and for machine.I2S."""
    for board in ("pico", "pico2"):
        known = constants[board]
        assert known["SOUND"]["lrclk"] == known["SOUND"]["bclk"] + 1
        for name in ("MICROPHONE", "AMPLIFIER"):
            assert known[name]["ws"] == known[name]["sck"] + 1


def test_tables_and_drawings_are_those_of_the_script():
    drawn = runpy.run_path(str(HARDWARE / "draw.py"))
    for board in drawn["TITLES"]:
        page = (HARDWARE / f"{board}.md").read_text(encoding="utf-8")
        assert drawn["with_table"](page, board) == page, "run python hardware/draw.py"
        drawing = (HARDWARE / f"{board}.svg").read_text(encoding="utf-8")
        assert drawn["drawing"](board) == drawing, "run python hardware/draw.py"
        texts = [element.text or "" for element in ElementTree.fromstring(drawing).iter()]
        assert all(place in texts for place in rows(board).values())
        assert f"]({board}.svg)" in page
    assert set(drawn["TITLES"]) >= set(BOARDS)


def test_parts_list():
    with open(HARDWARE / "parts.csv", encoding="utf-8", newline="") as file:
        parts = list(csv.DictReader(file))
    assert all(None not in row and all(value is not None for value in row.values()) for row in parts)
    named = {row["part"] for row in parts}
    assert {"board", "microphone", "amplifier", "loudspeaker", "card module", "button", "LED"} <= named
    assert all(int(row["quantity"]) > 0 and row["why"] for row in parts)
