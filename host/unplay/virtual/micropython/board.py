"""What a board's firmware would have: `machine`, a clock, card and flash. Runs on the unix MicroPython.

The world outside (sound, buttons, the serial line's keyboard interrupt) is the host's, at the other end of
two pipes: a request here is a letter, the time in µs and arguments; the answer is whether Ctrl-C has come, a
number, and bytes where the letter says so. While I2S runs, time is the host's count of frames plus what
waiting, computing and storing cost; else it is real.
"""

import json
import os
import struct
import sys
import time as real_time

import vfs

import micropython as real_micropython

TICKS = 1 << 30
"""Ticks wrap as on a board with small integers of 31 bits."""

EPOCH_Y2000_S = 946684800
FLASH_BLOCK_BYTES, CARD_BLOCK_BYTES = 4096, 512
EIO = 5


class World:
    """The host's end of the pipes; and the time."""

    def __init__(self, requests, answers):
        self.requests = open(requests, "wb")
        self.answers = open(answers, "rb")
        self.streams = self.opened_us = self.skew = 0
        self.now = real_time.ticks_us()
        self.head = bytearray(17)
        self.answer = bytearray(9)
        text = bytearray(self.ask(b"S", 0))
        self.fill(text)
        self.scene = json.loads(text)
        self.now += self.scene["ticks_us"]
        self.skew = self.now - real_time.ticks_us()
        self.date_skew_s = None

    def us(self):
        """Time now; while I2S runs it stands still between events."""
        if not self.streams:
            self.now = real_time.ticks_us() + self.skew
        return self.now

    def spend(self, us):
        if self.streams:
            self.now += us
        else:
            real_time.sleep_us(us)

    def ask(self, letter, value, data=None, into=None):
        """Send a request, return the answer's number. into: a buffer for the bytes after that."""
        head = self.head
        struct.pack_into("<Bqq", head, 0, letter[0], self.us(), value)
        self.put(head)
        if data is not None:
            self.put(data)
        self.fill(self.answer)
        if into is not None:
            self.fill(into)
        interrupted, number = struct.unpack("<Bq", self.answer)
        if interrupted:
            raise KeyboardInterrupt
        return number

    def put(self, data):
        done = self.requests.write(data)
        while done < len(data):
            done += self.requests.write(memoryview(data)[done:])

    def fill(self, buffer):
        done = self.answers.readinto(buffer)
        while done < len(buffer):
            more = self.answers.readinto(memoryview(buffer)[done:])
            if not more:
                raise RuntimeError("world ended")
            done += more


class Clock:
    """The module `time` of a board."""

    def __init__(self, world):
        self.world = world
        for name in ("gmtime", "mktime"):
            setattr(self, name, getattr(real_time, name))

    def ticks_us(self):
        return self.world.us() & (TICKS - 1)

    def ticks_ms(self):
        return self.world.us() // 1000 & (TICKS - 1)

    def ticks_diff(self, later, earlier):
        return ((later - earlier + TICKS // 2) & (TICKS - 1)) - TICKS // 2

    def ticks_add(self, ticks, delta):
        return (ticks + delta) & (TICKS - 1)

    def sleep_us(self, us):
        self.world.spend(us)

    def sleep_ms(self, ms):
        self.world.spend(1000 * ms)

    def sleep(self, s):
        self.world.spend(int(1000000 * s))

    def time(self):
        """Seconds since 1970; the year 2000 begins with power where nobody set the clock."""
        now_s = self.world.us() // 1000000
        skew_s = self.world.date_skew_s
        return now_s % 1000000 + EPOCH_Y2000_S if skew_s is None else now_s + skew_s

    def localtime(self, s=None):
        return real_time.gmtime(self.time() if s is None else s)


class Blocks:
    """A block device in a file of the host's.

    costs: µs a block; stalls [[after µs of I2S, for µs], …]; pauses, after every so many bytes written for so
    many µs; the bytes after which every write fails, and those beyond which none is kept, or None; whether
    the host is told of every write before it happens, so that it can cut the power there.
    """

    def __init__(self, file, block_bytes, size_bytes, world, costs):
        self.file, self.block_bytes, self.world = file, block_bytes, world
        self.n_blocks = size_bytes // block_bytes
        self.block_us = costs["block_us"]
        self.stalls = costs["stalls"]
        self.pause_us, self.pause_bytes = costs["pause_us"], costs["pause_bytes"]
        self.fails_bytes, self.keeps_bytes = costs["fails_bytes"], costs["keeps_bytes"]
        self.journal = costs["journal"]
        self.written = 0

    def readblocks(self, number, buffer, offset=0):
        self.file.seek(number * self.block_bytes + offset)
        done = self.file.readinto(buffer)
        if done < len(buffer):
            memoryview(buffer)[done:] = bytes(len(buffer) - done)

    def writeblocks(self, number, buffer, offset=0):
        world, position = self.world, number * self.block_bytes + offset
        before, self.written = self.written, self.written + len(buffer)
        if self.fails_bytes is not None and self.written > self.fails_bytes:
            raise OSError(EIO)
        if self.pause_us and self.written // self.pause_bytes > before // self.pause_bytes:
            world.spend(self.pause_us)
        if world.streams:
            world.spend(self.block_us * (1 + (len(buffer) - 1) // self.block_bytes))
            if self.stalls and world.now - world.opened_us >= self.stalls[0][0]:
                world.spend(self.stalls.pop(0)[1])
        if self.journal:
            data = struct.pack("<I", len(buffer)) + bytes(buffer)
            world.ask(b"J", position, data)
        if self.keeps_bytes is None or position < self.keeps_bytes:
            self.file.seek(position)
            self.file.write(buffer)

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.n_blocks
        if operation == 5:
            return self.block_bytes
        return 0


class Pin:
    IN, OUT, PULL_UP = 0, 1, 1

    def __init__(self, number, mode=-1, pull=-1):
        self.number = number
        self.level = 0

    def value(self, level=None):
        if level is None:
            return WORLD.ask(b"P", self.number)
        if level != self.level:
            self.level = level
            WORLD.ask(b"L", self.number << 1 | level)
        return None


class I2S:
    """Blocking mode of machine.I2S, 32-bit stereo. What the rings do is the host's part."""

    RX, TX, MONO, STEREO = 0, 1, 0, 1

    def __init__(self, number, *, sck, ws, sd, mode, bits, format, rate, ibuf):
        if bits != 32 or format != I2S.STEREO:
            raise ValueError("only 32-bit stereo is simulated")
        self.letter = b"W" if mode == I2S.TX else b"R"
        self.open = True
        if not WORLD.streams:
            WORLD.opened_us = WORLD.us()
        WORLD.streams += 1
        WORLD.ask(b"O", mode, struct.pack("<II", rate, ibuf))

    def readinto(self, buffer):
        WORLD.now = WORLD.ask(b"R", len(buffer), into=buffer)
        return len(buffer)

    def write(self, buffer):
        WORLD.now = WORLD.ask(b"W", len(buffer), buffer)
        WORLD.spend(WORLD.scene["compute_us"])
        return len(buffer)

    def deinit(self):
        if self.open:
            self.open = False
            WORLD.ask(b"C", 0 if self.letter == b"R" else 1)
            WORLD.streams -= 1
            WORLD.skew = WORLD.now - real_time.ticks_us()


class UART:
    """The serial line that the prompt is on; only its rate can be changed."""

    def __init__(self, number, *, baudrate):
        WORLD.ask(b"B", baudrate)


class RTC:
    def datetime(self, fields):
        """Set the clock: year, month, day, weekday, hours, minutes, seconds, parts of a second."""
        year, month, day, _, hour, minute, second, _ = fields
        now_s = real_time.mktime((year, month, day, hour, minute, second, 0, 0))
        WORLD.date_skew_s = now_s - WORLD.us() // 1000000


class SDCard:
    """The card's block device; absent where the scene has none. Arguments as machine.SDCard."""

    def __init__(self, **_):
        if not CARD_FILE:
            raise OSError(EIO)
        self.blocks = Blocks(
            CARD_FILE, CARD_BLOCK_BYTES, WORLD.scene["card"]["bytes"], WORLD, WORLD.scene["card"]
        )
        self.readblocks = self.blocks.readblocks
        self.writeblocks = self.blocks.writeblocks
        self.ioctl = self.blocks.ioctl


class SPI:
    """Where a Pico's card hangs; the module `sdcard` beside this one does the rest."""

    def __init__(self, number, **_):
        pass


class Machine:
    """The module `machine`."""

    def __init__(self):
        self.Pin, self.I2S, self.UART, self.RTC, self.SDCard = Pin, I2S, UART, RTC, SDCard
        self.SPI = SPI
        self.mem32 = {0x40064000: 0xB1}  # the register of an RP2040's core voltage

    def unique_id(self):
        return WORLD.scene["device"].encode()

    def reset(self):
        WORLD.ask(b"X", 0)

    soft_reset = reset

    def freq(self, hz=0):
        return 240000000


class MicroPython:
    """The module `micropython`: the real one, but the keyboard interrupt is the serial line's matter."""

    def __init__(self):
        for name in dir(real_micropython):
            if not name.startswith("_") and name != "kbd_intr":
                setattr(self, name, getattr(real_micropython, name))

    def kbd_intr(self, character):
        WORLD.ask(b"K", character)


def start(requests, answers, flash, card):
    """Put the simulated modules in place, and the flash image where a board has it: at the root."""
    global WORLD, CARD_FILE
    WORLD = World(requests, answers)
    flash_file = open(flash, "r+b")
    CARD_FILE = open(card, "r+b") if card else None
    sys.modules["machine"] = Machine()
    sys.modules["micropython"] = MicroPython()
    scene = WORLD.scene
    if scene["board"].startswith("pico"):
        for name in ("rp2", "sdcard"):
            __import__(name)  # while this folder can still be read
    blocks = Blocks(flash_file, FLASH_BLOCK_BYTES, scene["flash"]["bytes"], WORLD, scene["flash"])
    try:
        system = vfs.VfsLfs2(blocks)
    except OSError:
        vfs.VfsLfs2.mkfs(blocks)
        system = vfs.VfsLfs2(blocks)
    os.chdir("/")
    vfs.umount("/")
    vfs.mount(system, "/")
    sys.path[:] = ["", "/lib"]
    try:
        __import__("unplay_device.console")  # gets the real time, in which the host at the other end lives
    except ImportError:
        pass
    sys.modules["time"] = Clock(WORLD)
    WORLD.ask(b"K", 3)


WORLD = None
CARD_FILE = None
