"""What host and device share; the same bytes on CPython and MicroPython."""
