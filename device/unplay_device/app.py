"""The application: idle until button or host ask for a recording, then one `Recorder` step after another."""

import gc
import sys
import time

import machine

from unplay_device.files import Files
from unplay_device.recorder import CLOSING, IDLE, MARKER, RECORDING, Recorder
from unplay_device.store import Store
from unplay_shared import VERSION
from unplay_shared import settings as tables
from unplay_shared.faults import BAD_ARGUMENT, BUSY, NO_CARD, NOT_FOUND, NOT_RECORDING, DeviceError

CARD = "/sd"
IDLE_POLL_MS = 20
MOST_LOG_LINES = 40
STATUS_BLOCKS = 8
"""From one status to the next, half a second."""

SELFTEST_BLOCKS = 8
TROUBLE_MS = 3000

BLINK_MS = {IDLE: 0, MARKER: 128, RECORDING: -1, CLOSING: 512}
"""Of the LED in each state: 0 is off, -1 on."""

TROUBLE_BLINK_MS = 60


class App:
    """Commands for the link, and `run`.

    board: a module of `unplay_device.boards`. flash: the store that settings are in.
    """

    def __init__(self, board, flash, settings):
        self.board, self.flash, self.settings = board, flash, settings
        self.lines = []
        self.files = Files(self.files_root)
        self.recorder = self._new_recorder()
        self.button = machine.Pin(board.BUTTON, machine.Pin.IN, machine.Pin.PULL_UP)
        self.led = machine.Pin(board.LED, machine.Pin.OUT)
        self.was_pressed = False
        self.trouble_ms = None
        if self.recorder.lacks_canceller():
            self.say("no memory for the canceller: set a shorter tail_ms or block")
        self.store = self._open_store()

    def _new_recorder(self):
        return Recorder(self.board.audio(self.settings), self.settings)

    def _open_store(self):
        """The card, or flash where settings or board say so. None where the card cannot be used."""
        if self.settings["storage"] == "flash" or self.board.CARD is None:
            return self.flash
        try:
            self.board.mount_card(CARD)
        except OSError as error:
            if error.errno != 1:  # EPERM: it is mounted
                self.say("no card: %s" % error)
                return None
        try:
            return Store(CARD)
        except DeviceError as error:
            self.say("card: %s" % error)
            return None

    def say(self, text):
        """Add a line to the log, which keeps the newest."""
        self.lines.append("%d %s" % (time.ticks_ms(), text))
        if len(self.lines) > MOST_LOG_LINES:
            self.lines.pop(0)

    # What the link asks for

    def info(self):
        return {
            "board": self.board.NAME,
            "device": self.settings["name"] or unique_id(),
            "id": unique_id(),
            "unplay": VERSION,
            "firmware": firmware(),
            "storage": self.settings["storage"] if self.store else None,
            "free_bytes": self.store.free_bytes() if self.store else 0,
            "free_ram_bytes": free_ram_bytes(),
        }

    def is_recording(self):
        return self.recorder.state != IDLE

    def is_open(self, name):
        """Whether a recording writes to the name, file or sessions/ID, or reads from it."""
        if not self.is_recording():
            return False
        session, reference = self.recorder.session.id, self.recorder.reference
        return name.split("/")[:2] == ["sessions", session] or (
            reference is not None and name == "references/%s.pcm" % reference["name"]
        )

    def files_root(self):
        """Where the files are that a host may see. Raises DeviceError where there is no card."""
        return self._need_store().root

    def record(self, options):
        """Begin to record. options: "reference" (a name; "" for none), "seconds"; else as in the settings."""
        if self.is_recording():
            raise DeviceError(BUSY, {"what": "record"})
        store = self._need_store()
        name = options.get("reference", self.settings["reference"])
        seconds = options.get("seconds", self.settings["seconds"])
        if not isinstance(seconds, int) or not 0 <= seconds <= 86400:
            raise DeviceError(BAD_ARGUMENT, {"name": "seconds", "value": seconds})
        reference = store.find_reference(name) if name else None
        if name and reference is None:
            raise DeviceError(NOT_FOUND, {"name": name})
        self.files.close()
        gc.collect()
        try:
            self.recorder.begin(store, reference, seconds, self._facts())
        except Exception:
            self.recorder.abandon()
            raise
        return {"id": self.recorder.session.id}

    def _need_store(self):
        """The card may have been put in since it was looked for."""
        if self.store is None:
            self.store = self._open_store()
        if self.store is None:
            raise DeviceError(NO_CARD)
        return self.store

    def _facts(self):
        return {
            "format": 1,
            "device": self.settings["name"] or unique_id(),
            "board": self.board.NAME,
            "unplay": VERSION,
            "firmware": firmware(),
            "started_s": unix_time(),
            "settings": {entry[0]: self.settings[entry[0]] for entry in tables.DEVICE},
        }

    def stop(self):
        if not self.is_recording():
            raise DeviceError(NOT_RECORDING)
        self.recorder.stop("link")
        return {"id": self.recorder.session.id}

    def status(self):
        return self.recorder.status() if self.is_recording() else {"state": IDLE}

    def config_get(self):
        return self.settings

    def config_set(self, changes):
        """Take settings over that are all valid, or none."""
        if self.is_recording():
            raise DeviceError(BUSY, {"what": "config"})
        wanted = dict(self.settings)
        wanted.update(changes)
        try:
            wanted = tables.complete(wanted, ALL)
        except ValueError as error:
            raise DeviceError(BAD_ARGUMENT, {"name": "settings", "value": str(error)})
        self.flash.write_settings(wanted)
        before, self.settings = self.settings, wanted
        if wanted["storage"] != before["storage"]:
            self.store = self._open_store()
        if any(wanted[name] != before[name] for name in BUFFER_SETTINGS):
            self._renew_recorder()
        self.recorder.settings = self.recorder.audio.settings = wanted
        return wanted

    def _renew_recorder(self):
        """Other buffers; where memory is in pieces already, start again with the settings just written."""
        self.recorder = None
        gc.collect()
        try:
            self.recorder = self._new_recorder()
        except MemoryError:
            machine.reset()
        if self.recorder.lacks_canceller():
            machine.reset()

    def set_time(self, unix_s):
        """Set the clock that names sessions; UTC."""
        year, month, day, hour, minute, second, weekday, _ = time.gmtime(unix_s - epoch_s())[:8]
        machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))

    def log(self):
        return self.lines

    def set_baud(self, rate):
        """Another rate of the serial line. Returns whether the board can."""
        if not self.board.BAUDS:
            return False
        self.board.set_baud(rate)
        return True

    def reset(self):
        """Begin anew; a recording that goes on is cut off where it stands."""
        machine.reset()

    def selftest(self):
        """Half a second of microphone beside silence, and a card that is written to and read back."""
        if self.is_recording():
            raise DeviceError(BUSY, {"what": "selftest"})
        result = self.recorder.listen(SELFTEST_BLOCKS)
        result["storage"] = self._need_store().check()
        result["free_ram_bytes"] = free_ram_bytes()
        result["lacks_canceller"] = self.recorder.lacks_canceller()
        return result

    # The main loop

    def run(self, link):
        """Until a keyboard interrupt, which ends a recording well and leaves the prompt to others."""
        self.say("unplay %s on %s" % (VERSION, self.board.NAME))
        try:
            while True:
                self.turn(link)
        finally:
            if self.is_recording():
                self.recorder.ended = "interrupt"
                self.recorder.close()
            self.led.value(0)

    def turn(self, link):
        """One block of a recording, or a wait for something to do."""
        if self.is_recording():
            self._step(link)
            link.poll(0)
        else:
            link.poll(IDLE_POLL_MS)
        if self._is_pressed():
            self._press()
        self._show()

    def _step(self, link):
        recorder = self.recorder
        try:
            if not recorder.step():
                self.say("%s: %d samples" % (recorder.session.id, recorder.facts["frames"]))
                link.send_status(self.status())
            elif recorder.blocks % STATUS_BLOCKS == 0:
                link.send_status(self.status())
        except Exception as error:  # whatever it is, the device goes on
            self.say("%s broke off: %r" % (recorder.session.id, error))
            self.trouble_ms = time.ticks_ms()
            recorder.abandon()
            link.send_status(self.status())

    def _is_pressed(self):
        """Whether the button has gone down since it was asked last."""
        pressed = self.button.value() == 0
        edge = pressed and not self.was_pressed
        self.was_pressed = pressed
        return edge

    def _press(self):
        if self.is_recording():
            self.recorder.stop("button")
            return
        try:
            self.record({})
        except Exception as error:
            self.say("cannot record: %r" % error)
            self.trouble_ms = time.ticks_ms()

    def _show(self):
        """Off, blinking or on, as the state says; fluttering where a recording was refused or broke off."""
        now = int(time.ticks_ms())
        blink_ms = BLINK_MS[self.recorder.state]
        if self.trouble_ms is not None:
            if time.ticks_diff(time.ticks_ms(), self.trouble_ms) < TROUBLE_MS:
                blink_ms = TROUBLE_BLINK_MS
            else:
                self.trouble_ms = None
        self.led.value(1 if blink_ms < 0 or (blink_ms and now // blink_ms % 2) else 0)


ALL = tables.DEVICE + tables.CANCELLER
BUFFER_SETTINGS = ("audio", "cancel", "board") + tuple(entry[0] for entry in tables.CANCELLER)
"""What the recorder is built for; everything else it looks up."""


def read_settings(flash):
    """All settings, and a sentence where those stored had to be put aside."""
    try:
        return tables.complete(flash.read_settings(), ALL), None
    except ValueError as error:
        return tables.complete({}, ALL), "settings put aside: %s" % error


def unique_id():
    return "".join("%02x" % byte for byte in machine.unique_id())


def firmware():
    name = "MicroPython" if sys.implementation.name == "micropython" else "CPython"
    return name + " %d.%d.%d" % tuple(sys.implementation.version[:3])


def free_ram_bytes():
    """Of Python's heap; None where that is as big as the machine."""
    gc.collect()
    return gc.mem_free() if hasattr(gc, "mem_free") else None


def epoch_s():
    """Unix time of this port's epoch: 1970 or 2000."""
    return 0 if time.gmtime(0)[0] == 1970 else 946684800


def unix_time():
    """Now, or None where nobody set the clock."""
    now = int(time.time()) + epoch_s()
    return now if now > 1700000000 else None
