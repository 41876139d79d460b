"""A process of MicroPython that serves the link (serial_program.py), at the end of a modelled line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import threading
import tty
from pathlib import Path
from typing import Any

from unplay.virtual.line import PLAIN, Line, LineModel

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("serial_program.py")


class SerialDevice:
    """`files` is its storage, `line` its line; when the process ends, it starts again, as a board does.

    options: keyword arguments of unplay_device.link.Link. follows_baud: whether its UART can change its rate.
    """

    def __init__(
        self,
        micropython: str,
        files: Path,
        model: LineModel = PLAIN,
        link: Path | None = None,
        **options: Any,
    ) -> None:
        self._micropython = micropython
        self._options = options
        self._closing = False
        self.follows_baud = True
        self.files = files
        self.starts = 0
        files.mkdir(exist_ok=True)
        terminal = self._start()
        self.line = Line(terminal, terminal, model, self._interrupt, link).start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def __enter__(self) -> SerialDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing = True
        self.process.kill()
        self._thread.join()
        self.line.close()
        os.close(self._terminal)

    def _start(self) -> int:
        self._terminal, theirs = pty.openpty()
        tty.setraw(theirs)
        self._asks, ask = os.pipe()
        answer, self._answers = os.pipe()
        arguments = [str(self.files), str(ask), str(answer), json.dumps(self._options)]
        self.process = subprocess.Popen(
            [self._micropython, "-X", "heapsize=160K", "-i", str(PROGRAM), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            pass_fds=(ask, answer),
            env=dict(os.environ, MICROPYPATH=f"{ROOT / 'shared'}:{ROOT / 'device'}"),
            start_new_session=True,
        )
        for descriptor in (theirs, ask, answer):
            os.close(descriptor)
        self.starts += 1
        return self._terminal

    def _interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def _keep(self) -> None:
        while True:
            self._serve()
            self.process.wait()
            if self._closing:
                return
            old = self._terminal
            terminal = self._start()
            self.line.attach(terminal, terminal)
            self.line.baud = self.line.model.baud
            os.close(old)

    def _serve(self) -> None:
        """Does what the process asks for, until it ends."""
        with open(self._asks, "rb") as asks, open(self._answers, "wb", buffering=0) as answers:
            for request in asks:
                word, value = request.split()
                if word == b"interrupt":
                    self.line.keyboard_interrupt = int(value) > 0
                elif self.follows_baud:
                    self.line.baud = int(value)
                with contextlib.suppress(BrokenPipeError):
                    answers.write(b"\n")
