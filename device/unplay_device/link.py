"""The device's end of the serial link: answers one request at a time, whatever bytes arrive."""

import json
import struct
import time

from unplay_device.console import ticks_diff, ticks_ms
from unplay_shared import faults, packets
from unplay_shared.faults import DeviceError

_PIECE_TIMEOUT_MS = 50  # for a piece of a packet that has begun
_HUNTED_BYTES = 256  # bytes without a packet in them that one `poll` looks at
_STRANGE_BYTES = 100  # without a packet in them: the host talks at another rate
_DRAIN_MS = 20  # until an answer has left at the old baud rate
_LISTED = 16  # most files in one answer
_LIST_BYTES = 640  # most text of a list in one answer


class Link:
    """Serves `files` (unplay_device.files.Files) and `commands` over `console`.

    commands: the application, with info, is_recording, is_open, record, stop, status, config_get, config_set,
    selftest, set_time, log, set_baud and reset; `is_open(name)`: whether a recording needs the file or
    sessions/ID.
    They raise DeviceError to refuse.
    packet_bytes: longest payload, and nearly all of the memory that this takes.
    credit_bytes: what the line's input holds, minus a little: 240 of a UART's 260.
    bauds: rates that `commands.set_baud` can switch to; none where the line has no rate.
    """

    def __init__(self, console, files, commands, packet_bytes=1024, credit_bytes=240, bauds=()):
        self._console = console
        self._files = files
        self._commands = commands
        self._packet_bytes = packet_bytes
        self._credit_bytes = credit_bytes
        self._piece_bytes = credit_bytes // 4
        self._bauds = bauds
        self._buffer = bytearray(packets.OVERHEAD_BYTES + packet_bytes)
        self._view = memoryview(self._buffer)
        self._short = bytearray(packets.OVERHEAD_BYTES + packets.OFFSET_BYTES)
        self._have = 0  # bytes of a header at the start of the buffer
        self._taken = 0
        self._credited = 0
        self._heard_ms = ticks_ms()
        self._strange_bytes = 0  # since the last packet
        self._trial = False  # a new baud rate has brought no packet yet
        self._baud = packets.DEFAULT_BAUD
        self._repeatable = None  # (seq, type, answer) of the last request, if it was a call
        self.in_session = False
        self.subscribed = False
        self._requests = {
            packets.PING: self._ping,
            packets.BYE: self._bye,
            packets.CALL: self._call,
            packets.WRITE: self._write,
            packets.READ: self._read,
        }
        self._calls = {
            "info": lambda request: commands.info(),
            "begin": self._begin,
            "commit": self._commit,
            "open": self._open,
            "digest": self._digest,
            "ls": self._ls,
            "rm": self._rm,
            "record": lambda request: commands.record(request.get("options", {})),
            "stop": lambda request: commands.stop(),
            "status": self._status,
            "config_get": lambda request: commands.config_get(),
            "config_set": lambda request: commands.config_set(request["values"]),
            "selftest": lambda request: commands.selftest(),
            "set_time": self._set_time,
            "log": self._log,
            "set_baud": self._set_baud,
            "restart": self._restart,
        }

    def poll(self, timeout_ms=0):
        """Waits up to timeout_ms for a request and answers it; whether there was one. Never raises."""
        try:
            self._expire()
            found = self._receive(timeout_ms)
            if found is None:
                return False
            self._heard_ms = ticks_ms()
            self._trial = False
            self._strange_bytes = 0
            self._answer(*found)
            self._heard_ms = ticks_ms()
            return True
        except (OSError, EOFError):  # of the line itself
            self.close()
            return False

    def send_status(self, record):
        """Pushes a dict to a host that has subscribed to it."""
        if not (self.in_session and self.subscribed):
            return
        try:
            self._send_json(packets.STATUS, 0, record)
        except (OSError, EOFError):
            self.close()

    def close(self):
        """Ends the session: Ctrl-C works again, and what has arrived of a file is safe on the card."""
        self.in_session = self.subscribed = self._trial = False
        self._repeatable = None
        self._files.close()
        if self._baud != packets.DEFAULT_BAUD:
            self._baud = packets.DEFAULT_BAUD
            self._commands.set_baud(packets.DEFAULT_BAUD)
        self._console.interrupt(True)

    def _expire(self):
        """Forgets a host that is silent, and a baud rate at which nothing arrives."""
        silent_ms = ticks_diff(ticks_ms(), self._heard_ms)
        if self._trial:
            limit_ms = packets.BAUD_TRIAL_MS
        elif self._baud != packets.DEFAULT_BAUD and self._strange_bytes > _STRANGE_BYTES:
            limit_ms = packets.STRANGE_MS
        else:
            limit_ms = packets.SESSION_MS
        if self.in_session and silent_ms > limit_ms:
            self.close()

    # Receiving

    def _receive(self, timeout_ms):
        """(type, seq, payload bytes) of the next intact packet, which is then at the start of the buffer."""
        found = self._find_header(timeout_ms)
        if found is None:
            return None
        kind, seq, length, _, crc = found
        body = self._view[packets.HEADER_BYTES : packets.HEADER_BYTES + packets.body_bytes(length)]
        if not self._take(body, _PIECE_TIMEOUT_MS) or not packets.intact(body, length, crc):
            if kind == packets.WRITE and self.in_session:
                self._send_offset(packets.AGAIN, seq, self._files.length)
            return None
        return kind, seq, length

    def _find_header(self, timeout_ms):
        """The next header that is intact and not of a packet longer than the buffer; see packets.header."""
        for _ in range(_HUNTED_BYTES):
            if not self._take(self._view[self._have : self._have + 1], timeout_ms):
                return None
            self._have += 1
            while self._have and not self._may_be_header():
                self._have -= 1
                for i in range(self._have):
                    self._buffer[i] = self._buffer[i + 1]
            if self._have == packets.HEADER_BYTES:
                self._have = 0
                return packets.header(self._buffer)
            timeout_ms = _PIECE_TIMEOUT_MS if self._have else 0
        return None

    def _may_be_header(self):
        buffer, have = self._buffer, self._have
        if buffer[0] != packets.SYNC_0 or (have > 1 and buffer[1] != packets.SYNC_1):
            return False
        if have < packets.HEADER_BYTES:
            return True
        found = packets.header(buffer)
        return found is not None and found[2] <= self._packet_bytes

    def _take(self, view, timeout_ms):
        """Fills view piece by piece, and tells the host of every piece that there is room again."""
        for start in range(0, len(view), self._piece_bytes):
            part = view[start : start + self._piece_bytes]
            n = self._console.read(part, timeout_ms)
            self._taken = (self._taken + n) & 0xFFFF
            self._strange_bytes += n
            if self.in_session and (self._taken - self._credited) & 0xFFFF >= self._piece_bytes:
                self._send_short(packets.CREDIT, 0, 0)
            if n < len(part):
                return False
        return True

    # Sending

    def _send_short(self, kind, seq, length):
        n = packets.finish(self._short, kind, seq, self._taken, length)
        self._credited = self._taken
        self._console.write(memoryview(self._short)[:n])

    def _send_offset(self, kind, seq, offset):
        struct.pack_into("<I", self._short, packets.HEADER_BYTES, offset)
        self._send_short(kind, seq, packets.OFFSET_BYTES)

    def _send(self, kind, seq, length):
        """Sends the payload that is in the buffer."""
        n = packets.finish(self._buffer, kind, seq, self._taken, length)
        self._credited = self._taken
        self._console.write(self._view[:n])

    def _send_json(self, kind, seq, value):
        text = json.dumps(value).encode()
        if len(text) > self._packet_bytes:
            kind = packets.FAULT
            text = b'{"code": %d, "detail": {"kind": "answer", "text": "%d bytes"}}' % (faults.BUG, len(text))
        self._view[packets.HEADER_BYTES : packets.HEADER_BYTES + len(text)] = text
        self._have = 0
        self._send(kind, seq, len(text))

    # Requests

    def _answer(self, kind, seq, length):
        """Does what a packet asks for; what goes wrong becomes a FAULT."""
        payload = self._view[packets.HEADER_BYTES : packets.HEADER_BYTES + length]
        try:
            if kind == packets.HELLO:
                self._hello(seq, payload)
            elif not self.in_session:
                raise DeviceError(faults.NO_SESSION)
            elif kind in self._requests:
                if kind != packets.CALL:
                    self._repeatable = None
                self._requests[kind](seq, payload)
            else:
                raise DeviceError(faults.UNKNOWN_CALL, {"call": "packet type %d" % kind})
        except Exception as error:  # whatever it is, the device goes on
            self._send_json(packets.FAULT, seq, _fault(error))

    def _hello(self, seq, payload):
        version = packets.version_of(payload)
        if version is None or version[0] != packets.MAJOR:
            raise DeviceError(faults.OTHER_VERSION, {"major": packets.MAJOR, "minor": packets.MINOR})
        self._files.close()
        self._repeatable = None
        self.subscribed = False
        self.in_session = True
        self._console.interrupt(False)
        welcome = {
            "protocol": [packets.MAJOR, packets.MINOR],
            "credit": self._credit_bytes,
            "packet": self._packet_bytes,
            "bauds": list(self._bauds),
            "calls": list(self._calls),
        }
        welcome.update(self._commands.info())
        self._send_json(packets.WELCOME, seq, welcome)

    def _bye(self, seq, payload):
        self._send_offset(packets.ACK, seq, 0)
        time.sleep(_DRAIN_MS / 1000)
        self.close()

    def _ping(self, seq, payload):
        self._send_offset(packets.ACK, seq, 0)

    def _call(self, seq, payload):
        """A call by name. One that comes twice, because its answer was lost, is not done twice."""
        if self._repeatable is not None and self._repeatable[0] == seq:
            kind, answer = self._repeatable[1:]
        else:
            kind, answer = self._done(payload)
            self._repeatable = (seq, kind, answer)
        self._send_json(kind, seq, answer)
        if kind == packets.ANSWER and "baud" in answer:
            self._switch_baud(answer["baud"])
        elif kind == packets.ANSWER and "restarts" in answer:
            time.sleep(_DRAIN_MS / 1000)
            self._commands.reset()

    def _done(self, payload):
        """(ANSWER or FAULT, what it says) of a call."""
        try:
            request = json.loads(bytes(payload).decode())
            name = request.get("do")
            if name not in self._calls:
                raise DeviceError(faults.UNKNOWN_CALL, {"call": name})
            return packets.ANSWER, self._calls[name](request) or {}
        except Exception as error:
            return packets.FAULT, _fault(error)

    def _write(self, seq, payload):
        offset = self._offset_of(payload)
        stored = self._files.write(offset, payload[packets.OFFSET_BYTES :])
        self._send_offset(packets.ACK if stored else packets.AGAIN, seq, self._files.length)

    def _read(self, seq, payload):
        offset = self._offset_of(payload)
        if len(payload) != packets.OFFSET_BYTES + 2:
            raise DeviceError(faults.BAD_ARGUMENT, {"name": "READ", "value": len(payload)})
        wanted = struct.unpack("<H", payload[packets.OFFSET_BYTES :])[0]
        start = packets.HEADER_BYTES + packets.OFFSET_BYTES
        stop = min(start + wanted, packets.HEADER_BYTES + self._packet_bytes)
        n = self._files.read(offset, self._view[start:stop])
        self._send(packets.DATA, seq, packets.OFFSET_BYTES + n)

    def _offset_of(self, payload):
        if len(payload) < packets.OFFSET_BYTES:
            raise DeviceError(faults.BAD_ARGUMENT, {"name": "offset", "value": None})
        return struct.unpack("<I", payload[: packets.OFFSET_BYTES])[0]

    # Calls

    def _refuse_while_recording(self):
        if self._commands.is_recording():
            raise DeviceError(faults.BUSY, {"what": "recording"})

    def _begin(self, request):
        self._refuse_while_recording()
        files, name = self._files, request["name"]
        length = files.begin(name, request["size"], request["sha256"], request.get("restart", False))
        return {"length": length}

    def _commit(self, request):
        self._refuse_while_recording()
        self._files.commit()

    def _open(self, request):
        self._refuse_while_recording()
        return {"size": self._files.open(request["name"])}

    def _digest(self, request):
        self._refuse_while_recording()
        hashed, crc, sha256 = self._files.digest()
        return {"hashed": hashed, "crc32": crc, "sha256": sha256}

    def _ls(self, request):
        start = request.get("start", 0)
        listed = self._files.ls(start, _LISTED)
        entries = _fitting(listed)
        return {"files": entries, "next": start + len(entries) if len(listed) else None}

    def _rm(self, request):
        if self._commands.is_open(request["name"]):
            raise DeviceError(faults.BUSY, {"what": "recording"})
        self._files.rm(request["name"])

    def _status(self, request):
        self.subscribed = bool(request.get("on", False))
        return self._commands.status()

    def _set_time(self, request):
        self._commands.set_time(request["unix_s"])

    def _log(self, request):
        start = request.get("start", 0)
        lines = self._commands.log()[start:]
        entries = _fitting(lines)
        return {"lines": entries, "next": start + len(entries) if lines else None}

    def _set_baud(self, request):
        rate = request["rate"]
        if rate not in self._bauds:
            raise DeviceError(faults.BAD_ARGUMENT, {"name": "rate", "value": rate})
        return {"baud": rate}

    def _restart(self, request):
        """What goes on now. After the answer has left, all begins anew, as when power was cut."""
        answer = {"restarts": True}
        answer.update(self._commands.status())
        return answer

    def _switch_baud(self, rate):
        """After the answer has left; the host's next packet at this rate makes it last."""
        time.sleep(_DRAIN_MS / 1000)
        if self._commands.set_baud(rate):
            self._baud = rate
            self._trial = rate != packets.DEFAULT_BAUD
            self._heard_ms = ticks_ms()


def _fault(error):
    """What a FAULT says about an exception."""
    if isinstance(error, DeviceError):
        return {"code": error.code, "detail": error.detail}
    if isinstance(error, KeyError):
        return {"code": faults.BAD_ARGUMENT, "detail": {"name": str(error.args[0]), "value": None}}
    if isinstance(error, OSError):
        return {"code": faults.STORAGE, "detail": {"errno": error.errno}}
    return {"code": faults.BUG, "detail": {"kind": type(error).__name__, "text": str(error)[:200]}}


def _fitting(entries):
    """As many of the entries as one answer holds, but at least one."""
    text = 0
    for i, entry in enumerate(entries):
        text += len(json.dumps(entry)) + 2
        if text > _LIST_BYTES and i:
            return entries[:i]
    return entries
