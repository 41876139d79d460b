"""Begins what power begins on a board: the file system, then /main.py, then the prompt."""

import sys

import board

board.start(*sys.argv[1:5])
if "main.py" in __import__("os").listdir("/") and sys.argv[5] == "run":
    exec(open("/main.py").read())
