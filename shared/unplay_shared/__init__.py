"""Byte for byte the same on MicroPython and CPython: what device and host must agree on."""

VERSION = "0.1.0"
