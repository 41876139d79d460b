"""Sessions on storage: written so that a power cut costs at most what came after the last flush.

A session is a folder: `session.json`, `mic.pcm`, and with a reference `residual.pcm`. The sidecar stands
there from the first moment on, saying that power was lost; when the session ends well it is replaced. Files
that matter are replaced by writing NAME.new and renaming it, so that one of the two is whole at any time.
"""

import json
import os
import time

from unplay_shared.faults import FULL, NO_CARD, STORAGE, DeviceError

SESSIONS, REFERENCES = "sessions", "references"
MICROPHONE, RESIDUAL, SIDECAR = "mic.pcm", "residual.pcm", "session.json"
SETTINGS = "settings.json"
NEW = ".new"

CHECK_FILE = "check.tmp"
CHECK_BLOCKS = 64

FLUSH_MS = 500
RESERVE_BYTES = 65536
"""Kept free for sidecars and the file system's own needs."""

FIRST_YEAR = 2024
"""A clock that shows less was never set."""


def exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def sync(file):
    """Make what was written safe from a power cut."""
    file.flush()
    if hasattr(os, "fsync"):  # CPython, whose flush ends in the memory of the system
        os.fsync(file.fileno())


def replace(path, text):
    """Write a small file whole or not at all."""
    with open(path + NEW, "w") as file:
        file.write(text)
        sync(file)
    if exists(path):
        os.remove(path)
    os.rename(path + NEW, path)


def restore(path):
    """Finish or undo a `replace` that a power cut interrupted."""
    if not exists(path + NEW):
        return
    if exists(path) or not _is_json(path + NEW):
        os.remove(path + NEW)
    else:
        os.rename(path + NEW, path)


def _is_json(path):
    try:
        with open(path) as file:
            json.load(file)
    except (ValueError, OSError):
        return False
    return True


class Store:
    """Everything under one folder of a mounted file system. Raises DeviceError where there is none."""

    def __init__(self, root):
        self.root = root
        try:
            for name in (SESSIONS, REFERENCES):
                if name not in os.listdir(root or "/"):
                    os.mkdir(root + "/" + name)
        except OSError as error:
            raise DeviceError(NO_CARD, {"path": root, "errno": error.errno})
        restore(root + "/" + SETTINGS)
        for name in self.sessions():
            self._mend(self.path(SESSIONS, name))

    def _mend(self, folder):
        """After a power cut: a session whose sidecar was never written has nothing in it."""
        restore(folder + "/" + SIDECAR)
        if not exists(folder + "/" + SIDECAR):
            for name in os.listdir(folder):
                os.remove(folder + "/" + name)
            os.rmdir(folder)

    def path(self, *parts):
        return self.root + "/" + "/".join(parts)

    def sessions(self):
        """Ids of all sessions, oldest first."""
        return sorted(os.listdir(self.path(SESSIONS)))

    def free_bytes(self):
        block, fragment, _, free = os.statvfs(self.root or "/")[:4]
        return free * (fragment or block)

    def read_settings(self):
        """Those that were set; none where the file is missing or damaged."""
        try:
            with open(self.path(SETTINGS)) as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def write_settings(self, settings):
        replace(self.path(SETTINGS), json.dumps(settings))

    def find_reference(self, name):
        """Sidecar of a stored reference, or None."""
        try:
            with open(self.path(REFERENCES, name + ".json")) as file:
                found = json.load(file)
            found["samples"] = min(found["samples"], os.stat(self.path(REFERENCES, name + ".pcm"))[6] // 2)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def open_reference(self, name):
        return open(self.path(REFERENCES, name + ".pcm"), "rb")

    def require(self, n_bytes):
        """Raises DeviceError where less is free."""
        free = self.free_bytes() - RESERVE_BYTES
        if free < n_bytes:
            raise DeviceError(FULL, {"needed": n_bytes, "free": max(free, 0)})
        return free

    def check(self):
        """Write a file, read it back, remove it. Returns how long the slowest write took, in ms."""
        path = self.path(CHECK_FILE)
        block = bytes(range(256)) * 2
        slowest_ms = 0
        try:
            with open(path, "wb") as file:
                for _ in range(CHECK_BLOCKS):
                    begun_ms = time.ticks_ms()
                    file.write(block)
                    file.flush()
                    slowest_ms = max(slowest_ms, time.ticks_diff(time.ticks_ms(), begun_ms))
            with open(path, "rb") as file:
                same = all(file.read(len(block)) == block for _ in range(CHECK_BLOCKS))
            os.remove(path)
        except OSError as error:
            raise DeviceError(STORAGE, {"errno": error.errno, "name": CHECK_FILE})
        return {"slowest_write_ms": slowest_ms, "reads_back": same, "free_bytes": self.free_bytes()}

    def new_session(self, facts, with_residual):
        """An open `Session` with an id of its own: the time, or a number where nobody set the clock."""
        return Session(self.path(SESSIONS, self._make_folder()), facts, with_residual)

    def _make_folder(self):
        now = time.localtime()
        pattern = "unset-%04d"
        if now[0] >= FIRST_YEAR:
            pattern = "%04d%02d%02d-%02d%02d%02d" % tuple(now[:6]) + "-%d"
        number = 0
        while True:
            number += 1
            candidate = pattern % number
            try:
                os.mkdir(self.path(SESSIONS, candidate))
            except OSError as error:
                if error.errno != 17:  # EEXIST
                    raise
                continue
            return candidate


class Session:
    """A session being written. facts: what the sidecar says already."""

    def __init__(self, folder, facts, with_residual):
        self.folder = folder
        self.id = folder.split("/")[-1]
        self.facts = facts
        facts["id"] = self.id
        facts["ended"] = "power"
        self.note()
        self.microphone = open(folder + "/" + MICROPHONE, "wb")
        self.residual = open(folder + "/" + RESIDUAL, "wb") if with_residual else None
        self.flushed_ms = time.ticks_ms()
        self.written_bytes = 0

    def note(self):
        """Bring the sidecar up to date."""
        replace(self.folder + "/" + SIDECAR, json.dumps(self.facts))

    def write(self, microphone, residual):
        """Append a block. residual: None where there is none."""
        self.written_bytes += write_whole(self.microphone, microphone)
        if self.residual is not None:
            self.written_bytes += write_whole(self.residual, residual)
        if time.ticks_diff(time.ticks_ms(), self.flushed_ms) >= FLUSH_MS:
            self.flush()

    def flush(self):
        sync(self.microphone)
        if self.residual is not None:
            sync(self.residual)
        self.flushed_ms = time.ticks_ms()

    def close(self):
        self.microphone.close()
        if self.residual is not None:
            self.residual.close()

    def abandon(self):
        """Close what can be closed; a card that has failed fails here once more."""
        for file in (self.microphone, self.residual):
            try:
                if file is not None:
                    file.close()
            except OSError:
                pass

    def finish(self, ended):
        """Close the files; the sidecar says how it ended."""
        self.close()
        self.facts["ended"] = ended
        self.note()


def write_whole(file, samples):
    """Write 16-bit samples; returns bytes. Raises DeviceError where the file system is full."""
    n_bytes = 2 * len(samples)
    if file.write(samples) != n_bytes:
        raise DeviceError(FULL, {"needed": n_bytes, "free": 0})
    return n_bytes
