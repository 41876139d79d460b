"""The device's files on the file systems that boards have, under a real MicroPython."""

from __future__ import annotations

import subprocess

import pytest
from serial_device import ROOT

PROGRAM = """
import sys, os, vfs
sys.path[:0] = [{shared!r}, {device!r}]
from binascii import hexlify
from hashlib import sha256
from unplay_device.files import Files
from unplay_shared import faults
from unplay_shared.faults import DeviceError

class Blocks:
    def __init__(self, n):
        self.data = bytearray(n * 512)
    def readblocks(self, number, buffer, offset=0):
        start = number * 512 + offset
        buffer[:] = memoryview(self.data)[start : start + len(buffer)]
    def writeblocks(self, number, buffer, offset=0):
        start = number * 512 + offset
        self.data[start : start + len(buffer)] = buffer
    def ioctl(self, operation, argument):
        return {{4: len(self.data) // 512, 5: 512}}.get(operation, 0)

blocks = Blocks(1200)
vfs.{system}.mkfs(blocks)
vfs.mount(vfs.{system}(blocks), "/sd")
files = Files(lambda: "/sd")
name = "references/song.pcm"

def announce(data):
    return hexlify(sha256(data).digest()).decode()

def refused(code, function, *arguments):
    try:
        function(*arguments)
    except DeviceError as error:
        assert error.code == code, error
    else:
        raise AssertionError("not refused")

def stored(name):
    size = files.open(name)
    data = bytearray(size + 10)
    assert files.read(0, memoryview(data)) == size
    return bytes(data[:size])

old, new = bytes(range(256)) * 40, bytes(range(255, -1, -1)) * 50
for data in (old, new):
    assert files.begin(name, len(data), announce(data)) == 0
    assert files.write(0, data[:5000])
    assert not files.write(6000, data[6000:]), "a hole"
    assert not files.write(0, data[:5000]), "twice"
    files.close()
    assert files.begin(name, len(data), announce(data)) == 5000
    assert files.digest()[0] == 5000
    assert files.write(5000, data[5000:])
    refused(faults.TOO_LONG, files.write, len(data), b"more")
    files.commit()
    assert stored(name) == data
    assert files.digest()[2] == announce(data)

files.begin(name, 4, announce(b"good"))
files.write(0, b"evil")
refused(faults.BAD_HASH, files.commit)
assert stored(name) == new, "the file from before stays"
refused(faults.FULL, files.begin, name, 10_000_000, announce(b""))
refused(faults.NOT_FOUND, files.open, "references/other.pcm")
refused(faults.NOT_OPEN, files.commit)
assert files.ls(0, 16) == [[name, len(new)]]
os.mkdir("/sd/sessions")
os.mkdir("/sd/sessions/a")
open("/sd/sessions/a/mic.pcm", "wb").close()
assert files.ls(0, 16)[1:] == [["sessions/a/mic.pcm", 0]] == files.ls(1, 16)
files.rm("sessions/a")
refused(faults.NOT_FOUND, files.rm, "sessions/a")
files.rm(name)
assert files.ls(0, 16) == []
print("all right")
"""


@pytest.mark.parametrize("system", ["VfsFat", "VfsLfs2"])
def test_files_on_the_file_systems_of_boards(micropython: str, system: str) -> None:
    program = PROGRAM.format(system=system, shared=str(ROOT / "shared"), device=str(ROOT / "device"))
    run = subprocess.run([micropython, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "all right", run.stdout + run.stderr
