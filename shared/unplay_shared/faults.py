"""What can go wrong on a device: numbers that travel, with their values. The host makes the sentences."""

BUG = 1  # kind, text: the device's own error
UNKNOWN_CALL = 2  # call: the device is older than the host
BAD_ARGUMENT = 3  # name, value
BAD_NAME = 4  # name: not references/NAME nor sessions/ID/FILE
NOT_FOUND = 5  # name
BUSY = 6  # what: cannot be done while recording
FULL = 7  # needed, free: bytes
NOT_OPEN = 8  # no file has been opened for this
TOO_LONG = 9  # offset, size: more bytes than announced
BAD_HASH = 10  # name: what arrived isn't what was announced
STORAGE = 11  # errno, name
NO_SESSION = 12  # no HELLO yet, or too long ago
OTHER_VERSION = 13  # major, minor: of the device
NO_CARD = 14  # there is no storage to record to
NO_AUDIO = 15  # kind, text: the microphone or the amplifier cannot be started
NOT_RECORDING = 16


class DeviceError(Exception):
    """A refusal with the numbers the host needs to explain it; detail: dict of what JSON knows."""

    def __init__(self, code, detail=None):
        super().__init__(code, detail)
        self.code = code
        self.detail = {} if detail is None else detail
