"""The link's packets: framing, types, version. Both ends import this; nothing here touches a line.

    sync A5 5A | type u8 | seq u8 | length u16 | taken u16 | check u16 | payload | CRC-32 u32

Numbers are little-endian. `check` is the low half of the CRC-32 of the six bytes before it; the last field is
the CRC-32 of the same six bytes and the payload, and is absent where the payload is empty. An answer has the
`seq` of its request. `taken` counts the bytes that the sender has taken off the line so far, modulo 2^16:
with it the host never has more under way than the device's input can hold, its *credit*.

A packet is read by exact lengths, which run in C on a board; byte stuffing would not. This layout is
the same in all versions, so that any two can tell each other which one they speak.
"""

import struct
from binascii import crc32

MAJOR = 1  # other majors are refused
MINOR = 1  # newer ones add calls, named in WELCOME's "calls", and keys, which older ones ignore

SYNC_0 = 0xA5
SYNC_1 = 0x5A
HEADER_BYTES = 10
OVERHEAD_BYTES = HEADER_BYTES + 4
OFFSET_BYTES = 4  # a u32 file offset at the start of WRITE's, READ's, ACK's, AGAIN's and DATA's payload

DEFAULT_BAUD = 115200
SESSION_MS = 10000  # the device forgets a host that says nothing for so long
BAUD_TRIAL_MS = 1000  # and a new baud rate that brings no packet
STRANGE_MS = 2000  # and a raised one at which there are bytes but no packets: the host is back at the first
FILLER = 0  # what ends a packet that lost bytes on its way

# Types are no control characters: a prompt that happens to read HELLO must not act on it.
# From the host:
HELLO = 0x20  # text "unplay MAJOR.MINOR"; answered with WELCOME, or FAULT OTHER_VERSION
BYE = 0x21  # empty; answered with ACK 0
PING = 0x22  # empty; answered with ACK 0
CALL = 0x23  # JSON {"do": name, …}; answered with ANSWER or FAULT
WRITE = 0x24  # offset, bytes; answered with ACK, AGAIN or FAULT
READ = 0x25  # offset, length u16; answered with DATA or FAULT
# From the device:
WELCOME = 0x30  # JSON: "protocol", "credit", "packet", "bauds", "calls", and what the application adds
CREDIT = 0x31  # empty: look at `taken`
ANSWER = 0x32  # JSON
FAULT = 0x33  # JSON {"code": number, "detail": {…}}, see faults.py
ACK = 0x34  # next offset: all before is stored
AGAIN = 0x35  # next offset: what came was damaged or not that
DATA = 0x36  # offset, bytes; fewer than asked for at the end of the file
STATUS = 0x37  # JSON, unasked, to a host that has subscribed


def finish(buffer, kind, seq, taken, length):
    """Puts a frame around the `length` bytes of payload at buffer[HEADER_BYTES:]; the bytes of the packet.

    buffer: bytearray or memoryview of at least OVERHEAD_BYTES + length.
    """
    struct.pack_into("<BBBBHH", buffer, 0, SYNC_0, SYNC_1, kind, seq, length, taken & 0xFFFF)
    view = memoryview(buffer)
    crc = crc32(view[2:8])
    struct.pack_into("<H", buffer, 8, crc & 0xFFFF)
    if not length:
        return HEADER_BYTES
    end = HEADER_BYTES + length
    struct.pack_into("<I", buffer, end, crc32(view[HEADER_BYTES:end], crc))
    return end + 4


def packet(kind, seq, taken=0, payload=b""):
    """One packet as bytes."""
    buffer = bytearray(OVERHEAD_BYTES + len(payload))
    buffer[HEADER_BYTES : HEADER_BYTES + len(payload)] = payload
    return bytes(memoryview(buffer)[: finish(buffer, kind, seq, taken, len(payload))])


def header(buffer):
    """(type, seq, length, taken, CRC so far) of the header at the start of buffer; None if it is damaged."""
    view = memoryview(buffer)
    sync_0, sync_1, kind, seq, length, taken, check = struct.unpack("<BBBBHHH", view[:HEADER_BYTES])
    crc = crc32(view[2:8])
    if sync_0 != SYNC_0 or sync_1 != SYNC_1 or check != crc & 0xFFFF:
        return None
    return kind, seq, length, taken, crc


def body_bytes(length):
    """Bytes after the header of a packet with `length` bytes of payload."""
    return length + 4 if length else 0


def intact(body, length, crc):
    """Whether `body`, payload and CRC-32, is what was sent; crc: what `header` returned."""
    if not length:
        return True
    view = memoryview(body)
    return crc32(view[:length], crc) == struct.unpack("<I", view[length : length + 4])[0]


def hello():
    """A HELLO whose bytes mean nothing to a MicroPython prompt, nor to the keyboard interrupt.

    Ctrl-A to Ctrl-E are commands there. seq is chosen so that neither CRC has one.
    """
    text = b"unplay %d.%d" % (MAJOR, MINOR)
    for seq in range(0x20, 0x100):
        candidate = packet(HELLO, seq, 0, text)
        if not any(1 <= byte <= 5 for byte in candidate):
            return candidate
    raise ValueError("no seq makes HELLO free of control characters")


def version_of(payload):
    """(major, minor) of a HELLO's payload; None if it is none."""
    try:
        name, version = bytes(payload).decode().split(" ")
        major, minor = version.split(".")
        return (int(major), int(minor)) if name == "unplay" else None
    except (ValueError, UnicodeError):
        return None
