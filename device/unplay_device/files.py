"""The files a host may see, below one folder: references/NAME and sessions/ID/FILE, and nothing else.

One file is open at a time, to be read or to be written. What is written goes to NAME.part, which becomes NAME
when it is complete and its SHA-256 is right; a .part that stays behind is where the next upload goes on.
"""

import os
from binascii import crc32, hexlify
from hashlib import sha256

from unplay_shared import faults
from unplay_shared.faults import DeviceError

_FOLDERS = {"references": 2, "sessions": 3}  # parts of a file's name
_PART = ".part"
_LONGEST_NAME = 96
_FLUSH_BYTES = 32768  # what a power cut may take of an upload
_HASHED_BYTES = 16384  # per call of `digest`, which so takes a few ms
_SPARE_BYTES = 65536  # left free: directories, the largest cluster
_FOLDER_BIT = 0x4000


def _is_part(part):
    return part and part[0] != "." and not any(c < " " or c in '\\:*?"<>|\x7f' for c in part)


def _size(path):
    """Bytes of a file; None if there is none."""
    try:
        return os.stat(path)[6]
    except OSError:
        return None


def _entries(folder):
    """(name, is a folder, bytes) of all in a folder, as they come; nothing if there is no such folder."""
    try:
        if hasattr(os, "ilistdir"):
            for entry in os.ilistdir(folder):
                path = folder + "/" + entry[0]
                yield entry[0], bool(entry[1] & _FOLDER_BIT), _size(path) or 0
        else:
            for name in sorted(os.listdir(folder)):
                status = os.stat(folder + "/" + name)
                yield name, bool(status[0] & _FOLDER_BIT), status[6]
    except OSError:
        return


def _make_folder(path):
    try:
        os.mkdir(path)
    except OSError:
        os.stat(path)  # raises where it isn't there either


class Files:
    """Files below `root()`: a folder without a slash at its end, or DeviceError where there is no card."""

    def __init__(self, root):
        self._root = root  # a function, as cards come and go
        self._scratch = memoryview(bytearray(512))
        self._file = None
        self._forget()

    def _forget(self):
        self.name = ""
        self.length = 0  # bytes that are there
        self._size = 0  # bytes that there will be
        self._announced = None  # SHA-256 of a file being written
        self._sha256 = sha256()
        self._crc32 = 0
        self._hashed = 0
        self._digest = None
        self._unflushed = 0

    def close(self):
        """Closes what is open; an unfinished upload stays as NAME.part."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:  # the card has gone; `commit` has flushed what must not be lost
                pass
        self._forget()

    def flush(self):
        """Makes what has been written safe from a power cut."""
        if self._file is not None and self._announced is not None and self._unflushed:
            self._file.flush()
            self._unflushed = 0

    def path(self, name, folders=False):
        """The path of a name; also of sessions/ID with `folders`. Raises DeviceError BAD_NAME."""
        parts = name.split("/") if isinstance(name, str) else ()
        wanted = _FOLDERS.get(parts[0] if parts else "", 0)
        fits = len(parts) == wanted or (folders and parts and parts[0] == "sessions" and len(parts) == 2)
        if not fits or len(name) > _LONGEST_NAME or not all(_is_part(part) for part in parts):
            raise DeviceError(faults.BAD_NAME, {"name": str(name)[:_LONGEST_NAME]})
        return self._root() + "/" + name

    def free_bytes(self):
        status = os.statvfs(self._root() or "/")
        return status[1] * status[4]

    def begin(self, name, size, announced, restart=False):
        """Opens `name` for writing; bytes that are there of an earlier, unfinished upload.

        restart: begins anew; size: bytes; announced: SHA-256, hexadecimal.
        Raises DeviceError BAD_NAME, BAD_ARGUMENT, FULL.
        """
        path = self.path(name)
        if name.endswith(_PART):
            raise DeviceError(faults.BAD_NAME, {"name": name})
        if not isinstance(size, int) or size < 0:
            raise DeviceError(faults.BAD_ARGUMENT, {"name": "size", "value": size})
        if not isinstance(announced, str) or len(announced) != 64:
            raise DeviceError(faults.BAD_ARGUMENT, {"name": "sha256", "value": announced})
        self.close()
        there = _size(path + _PART) or 0
        resumed = 0 < there <= size and not restart
        needed = size - there + _SPARE_BYTES
        if needed > self.free_bytes():
            raise DeviceError(faults.FULL, {"needed": needed, "free": self.free_bytes()})
        self._make_folders(name)
        self._file = open(path + _PART, "r+b" if resumed else "w+b")
        self.name, self._size, self._announced = name, size, announced
        self.length = there if resumed else 0
        return self.length

    def _make_folders(self, name):
        path = self._root()
        for part in name.split("/")[:-1]:
            path += "/" + part
            _make_folder(path)

    def write(self, offset, view):
        """Appends; whether it was what comes next. The file's `length` says what does.

        Raises DeviceError NOT_OPEN, TOO_LONG.
        """
        if self._file is None or self._announced is None:
            raise DeviceError(faults.NOT_OPEN)
        if offset != self.length:
            return False
        if offset + len(view) > self._size:
            raise DeviceError(faults.TOO_LONG, {"offset": offset, "size": self._size})
        self._file.seek(offset)
        self._file.write(view)
        self.length += len(view)
        self._count(offset, view)
        self._unflushed += len(view)
        if self._unflushed >= _FLUSH_BYTES:
            self.flush()
        return True

    def commit(self):
        """Ends the upload: checks the hash, renames. Raises DeviceError NOT_OPEN, BAD_HASH."""
        if self._file is None or self._announced is None:
            raise DeviceError(faults.NOT_OPEN)
        path, name = self.path(self.name), self.name
        right = self._hashed == self._size and self._hex_digest() == self._announced
        self._file.flush()
        self.close()
        if not right:
            os.remove(path + _PART)
            raise DeviceError(faults.BAD_HASH, {"name": name})
        os.rename(path + _PART, path)
        if hasattr(os, "sync"):
            os.sync()

    def open(self, name):
        """Opens `name` for reading; its size in bytes. Raises DeviceError BAD_NAME, NOT_FOUND."""
        path = self.path(name)
        self.close()
        size = _size(path)
        if size is None:
            raise DeviceError(faults.NOT_FOUND, {"name": name})
        self._file = open(path, "rb")
        self.name, self.length, self._size = name, size, size
        return size

    def read(self, offset, view):
        """Bytes read from `offset` into view; fewer at the end of the file. Raises DeviceError NOT_OPEN."""
        if self._file is None or self._announced is not None:
            raise DeviceError(faults.NOT_OPEN)
        if offset >= self.length:
            return 0
        self._file.seek(offset)
        n = self._file.readinto(view)
        self._count(offset, view[:n])
        return n

    def digest(self):
        """(bytes hashed so far, CRC-32, SHA-256 or None) of the open file, a few ms further than before.

        The SHA-256 comes once the whole file has been hashed. Raises DeviceError NOT_OPEN.
        """
        if self._file is None:
            raise DeviceError(faults.NOT_OPEN)
        self._file.seek(self._hashed)
        stop = min(self._hashed + _HASHED_BYTES, self.length)
        while self._hashed < stop:
            n = self._file.readinto(self._scratch[: stop - self._hashed])
            if not n:
                break
            self._count(self._hashed, self._scratch[:n])
        return self._hashed, self._crc32, self._hex_digest() if self._hashed == self._size else None

    def _count(self, offset, view):
        """What is read or written in order is hashed on its way, so that `digest` has little left to do."""
        if offset == self._hashed:
            self._sha256.update(view)
            self._crc32 = crc32(view, self._crc32)
            self._hashed += len(view)

    def _hex_digest(self):
        if self._digest is None:  # it can be asked for once only
            self._digest = hexlify(self._sha256.digest()).decode()
        return self._digest

    def ls(self, start, most):
        """Up to `most` of all files from number `start` on, as [name, bytes]."""
        listed = []
        for number, entry in enumerate(self._all()):
            if number >= start:
                listed.append(entry)
                if len(listed) == most:
                    break
        return listed

    def _all(self):
        root = self._root()
        for name, is_folder, size in _entries(root + "/references"):
            if not is_folder:
                yield ["references/" + name, size]
        for session, is_folder, _ in _entries(root + "/sessions"):
            if is_folder:
                for name, _, size in _entries(root + "/sessions/" + session):
                    yield ["sessions/" + session + "/" + name, size]

    def rm(self, name):
        """Removes a file, or sessions/ID with all in it. Raises DeviceError BAD_NAME, NOT_FOUND."""
        path = self.path(name, folders=True)
        self.close()
        if name.count("/") == 1 and name.startswith("sessions/"):
            self._remove_folder(path, name)
        elif _size(path) is None:
            raise DeviceError(faults.NOT_FOUND, {"name": name})
        else:
            os.remove(path)

    def _remove_folder(self, path, name):
        if _size(path) is None:
            raise DeviceError(faults.NOT_FOUND, {"name": name})
        for entry in list(_entries(path)):
            os.remove(path + "/" + entry[0])
        os.rmdir(path)
