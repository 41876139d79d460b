"""The link with a stub of an application. MicroPython runs it for serial_device.py, with four arguments."""

import json
import sys

from unplay_device.console import Console
from unplay_device.files import Files
from unplay_device.link import Link
from unplay_shared import faults
from unplay_shared.faults import DeviceError


class Outside:
    """Asks who keeps this process to do what hardware would; returns when it is done."""

    def __init__(self, ask_fd, answer_fd):
        self.asks = open("/dev/fd/" + ask_fd, "wb")
        self.answers = open("/dev/fd/" + answer_fd, "rb")

    def __call__(self, word, value):
        self.asks.write(b"%s %d\n" % (word.encode(), value))
        self.answers.read(1)


class Application:
    """What the link needs of an application."""

    def __init__(self, outside):
        self.outside = outside
        self.recording = False
        self.started = 0
        self.settings = {"seconds": 60}
        self.unix_s = 0

    def info(self):
        return {"board": "unix", "unplay": "0.1.0", "device": "00ff"}

    def is_recording(self):
        return self.recording

    def is_open(self, name):
        return self.recording and name.startswith("sessions/now")

    def record(self, options):
        if self.recording:
            raise DeviceError(faults.BUSY, {"what": "recording"})
        self.recording = True
        self.started += 1
        return {"id": "now", "started": self.started, "options": options}

    def stop(self):
        if not self.recording:
            raise DeviceError(faults.NOT_RECORDING)
        self.recording = False
        return {"id": "now"}

    def status(self):
        return {"state": "recording" if self.recording else "idle"}

    def config_get(self):
        return self.settings

    def config_set(self, values):
        self.settings.update(values)
        return self.settings

    def selftest(self):
        return {"ok": 1 // self.settings["seconds"]}  # 0 is a bug

    def set_time(self, unix_s):
        self.unix_s = unix_s

    def log(self):
        return ["line " + str(i) + ", at " + str(self.unix_s) for i in range(200)]

    def set_baud(self, rate):
        self.outside("baud", rate)
        return True


def main(folder, ask_fd, answer_fd, options):
    outside = Outside(ask_fd, answer_fd)
    application = Application(outside)
    console = Console(keyboard_interrupt=lambda character: outside("interrupt", character), blocks=True)
    link = Link(console, Files(lambda: folder), application, **json.loads(options))
    console.interrupt(True)
    while True:
        link.poll(20)
        if application.recording:
            link.send_status({"state": "recording", "level_db": -20})


main(*sys.argv[1:])
