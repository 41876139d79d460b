"""unplay removes what was played from what was recorded."""

__version__ = "0.1.0"
