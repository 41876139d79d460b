"""Formats an image that is not yet, copies a folder into its root: "lfs" or "fat", image, bytes, folder."""

import os
import sys

import vfs

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


def copy(source, target):
    for name in os.listdir(source):
        path, goal = source + "/" + name, target + "/" + name
        if os.stat(path)[0] & 0x4000:
            try:
                os.mkdir(goal)
            except OSError:
                pass
            copy(path, goal)
        else:
            with open(path, "rb") as original, open(goal, "wb") as written:
                while data := original.read(65536):
                    written.write(data)


kind, image, size, folder = sys.argv[1:5]
system, block_bytes = KINDS[kind]
blocks = Blocks(open(image, "r+b"), int(size), block_bytes)
try:
    files = system(blocks)
    vfs.mount(files, "/image")
except OSError:
    system.mkfs(blocks)
    files = system(blocks)
    vfs.mount(files, "/image")
copy(folder, "/image")
vfs.umount("/image")
