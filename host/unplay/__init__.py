"""unplay removes what was played from what was recorded.

result = unplay.clean("song.flac", "recording.wav")
print(result.near_end, result.alignment.drift_ppm)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unplay.cleaning import Result as Result
    from unplay.cleaning import clean as clean

from unplay_shared import VERSION

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import numpy and the rest when something is used, so that `unplay --help` answers at once."""
    if name in ("Result", "clean"):
        from unplay import cleaning

        return getattr(cleaning, name)
    raise AttributeError(f"module 'unplay' has no attribute {name!r}")
