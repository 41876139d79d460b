"""`unplay virtual-device`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def virtual_device(
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Where its flash and card are kept.")],
    scene: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="TOML file, or folder with response.wav and near_end.wav."),
    ] = None,
    link: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A link to its port. [where `device list` looks]")
    ] = None,
    name: Annotated[str, typer.Option(help="Its number.")] = "virtual-1",
    speed: Annotated[
        float, typer.Option(help="How much faster than real time it records; 0: as fast as it goes.")
    ] = 1.0,
) -> None:
    """A device without a board: the device's own program on a real MicroPython, in a computed room.

    Prints the port to use. A line on stdin presses its button; Ctrl-C, or the end of stdin, switches it off.

    Example: unplay virtual-device --storage kitchen --scene kitchen.toml
    """
    from unplay.board.finding import virtual_folder
    from unplay.virtual.device import VirtualDevice
    from unplay.virtual.setup import read

    link = link or virtual_folder() / name
    link.parent.mkdir(parents=True, exist_ok=True)
    with VirtualDevice(storage, read(scene), name=name, speed=speed or None, link=link) as device:
        print(device.port, flush=True)
        for _ in sys.stdin:
            device.press()
            threading.Event().wait(0.3)
            device.press(False)
            print("button", file=sys.stderr)
