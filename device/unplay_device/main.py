"""Installed as /main.py: what a board does when it gets power."""

import gc
import os

from unplay_device import boards
from unplay_device.app import App, read_settings
from unplay_device.console import Console
from unplay_device.link import Link
from unplay_device.store import Store

# Garbage is collected early, so that small things that stay don't spread over all of the memory.
if hasattr(gc, "mem_free"):
    gc.threshold(8192)
flash = Store(os.getcwd().rstrip("/"))  # on a board the root
settings, complaint = read_settings(flash)
app = App(boards.find(settings["board"]), flash, settings)
if complaint:
    app.say(complaint)
console = Console(globals().get("STREAM"))  # else standard input and output
link = Link(console, app.files, app, credit_bytes=app.board.CREDIT_BYTES, bauds=app.board.BAUDS)
app.run(link)
