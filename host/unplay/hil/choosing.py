"""Which devices tests run on, by what the options of the plugin say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

VIRTUAL = "virtual"


@dataclass(frozen=True)
class Choice:
    """A device. id: what stands behind a test's name. port: of a real one. scene: file of a virtual one."""

    id: str
    port: str = ""
    scene: str = ""

    @property
    def is_virtual(self) -> bool:
        return not self.port


def choices(given: Sequence[str]) -> list[Choice]:
    """virtual, virtual:SCENE, or a port each; the second virtual device is virtual-2."""
    made: list[Choice] = []
    for text in given:
        kind, _, scene = text.partition(":")
        if kind == VIRTUAL:
            count = 1 + sum(choice.is_virtual for choice in made)
            made.append(Choice(f"{VIRTUAL}-{count}", scene=scene))
        else:
            made.append(Choice(re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-"), port=text))
    return made
