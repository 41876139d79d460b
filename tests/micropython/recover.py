"""Runs on MicroPython: what a device finds after a power cut. Reads lines "kind image bytes", prints JSON.

fsck here is reading everything: every file that is listed must be readable to its end.
"""

import json
import os
import sys

import vfs

sys.path[:0] = sys.argv[1:3]
from unplay_device.store import Store  # noqa: E402

KINDS = {"lfs": (vfs.VfsLfs2, 4096), "fat": (vfs.VfsFat, 512)}


class Blocks:
    def __init__(self, file, n_bytes, block_bytes):
        self.file, self.n_blocks, self.block_bytes = file, n_bytes // block_bytes, block_bytes

    def readblocks(self, number, buffer, offset=0):
        self.file.seek(number * self.block_bytes + offset)
        self.file.readinto(buffer)

    def writeblocks(self, number, buffer, offset=0):
        self.file.seek(number * self.block_bytes + offset)
        self.file.write(buffer)

    def ioctl(self, operation, argument):
        return {4: self.n_blocks, 5: self.block_bytes}.get(operation, 0)


def read_whole(path):
    """Bytes of a file, by reading them."""
    n = 0
    with open(path, "rb") as file:
        while True:
            data = file.read(4096)
            if not data:
                return n
            n += len(data)


def found(store):
    sessions = {}
    for name in store.sessions():
        folder = "/card/sessions/" + name
        with open(folder + "/session.json") as file:
            facts = json.load(file)
        sizes = {}
        for entry in os.listdir(folder):
            sizes[entry] = read_whole(folder + "/" + entry)
        sessions[name] = {"ended": facts["ended"], "sizes": sizes}
    return sessions


for line in sys.stdin:
    kind, image, n_bytes = line.split()
    system, block_bytes = KINDS[kind]
    try:
        with open(image, "r+b") as file:
            vfs.mount(system(Blocks(file, int(n_bytes), block_bytes)), "/card")
            store = Store("/card")
            print(json.dumps({"sessions": found(store), "free": store.free_bytes()}))
            with open("/card/again", "wb") as again:
                again.write(b"still writable")
            vfs.umount("/card")
    except Exception as error:
        print(json.dumps({"error": repr(error)}))
        try:
            vfs.umount("/card")
        except OSError:
            pass
