"""What the tests on devices play."""

from __future__ import annotations

import pytest

from unplay.board.references import Reference
from unplay.hil import takes


@pytest.fixture(scope="session")
def song() -> Reference:
    """Six seconds of music."""
    return takes.song(6)
