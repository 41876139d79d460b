"""The device end of unplay (MicroPython)."""
