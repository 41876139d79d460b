"""What the link must survive. The tests run a little of each; `python tests/micropython/link_trials.py` all of it."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serial_device import SerialDevice

from unplay.board.faults import PortError, RefusedError
from unplay.board.link import DeviceLink
from unplay.virtual.line import LineModel
from unplay_shared import packets

NAME = "references/song.pcm"
BAD_LINE = LineModel(ring_bytes=260, drops=True, loss=0.01, bit_error_rate=1e-5, seed=1)
GOOD_LINE = LineModel(ring_bytes=260, drops=True, latency_s=0.001)


def survive_faults(device: SerialDevice, folder: Path, n: int, file_bytes: int = 100_000) -> int:
    """Sends files up and down until n faults have happened to them; how many files. All must arrive as they were."""
    files = 0
    with DeviceLink(device.line.path) as link:
        start = device.line.faults
        while device.line.faults - start < n:
            data = random.Random(files).randbytes(file_bytes)
            (folder / "up").write_bytes(data)
            link.put(folder / "up", NAME)
            assert (device.files / NAME).read_bytes() == data
            link.get(NAME, folder / "down")
            assert (folder / "down").read_bytes() == data
            files += 2
    return files


def survive_unplugging(device: SerialDevice, folder: Path, n: int, file_bytes: int = 60_000, seed: int = 1) -> int:
    """Pulls the plug at n random moments of transfers; most bytes that one of them sent twice.

    device: with a `link` for its line. Every transfer must go on where it was, and end right.
    """
    moments = random.Random(seed)
    up, down = folder / "up", folder / "down"
    up.write_bytes(moments.randbytes(file_bytes))
    unplugged = 0
    most_again = 0
    transfers: list[Callable[[DeviceLink, Callable[[int, int], None]], object]] = [
        lambda link, progress: link.put(up, NAME, progress),
        lambda link, progress: link.get(NAME, down, progress),
    ]
    while unplugged < n:
        for transfer in transfers:
            reached = 0
            while True:
                first: list[int] = []
                last = [reached]

                def progress(done: int, size: int, first: list[int] = first, last: list[int] = last) -> None:
                    first.append(done)
                    last[0] = done

                timer = threading.Timer(moments.uniform(0.0, 0.5), device.line.unplug)
                timer.start()
                try:
                    with DeviceLink(device.line.path, raise_baud=False) as link:
                        transfer(link, progress)
                    ended = True
                except PortError:
                    ended = False
                timer.cancel()
                timer.join()
                unplugged += not ended
                device.line.plug()
                if first:
                    most_again = max(most_again, reached - first[0])
                reached = last[0]
                if ended:
                    break
        assert (device.files / NAME).read_bytes() == up.read_bytes() == down.read_bytes()
        (device.files / NAME).unlink()
        down.unlink()
    return most_again


def garbage(n_bytes: int, seed: int = 1) -> list[bytes]:
    """Random bytes, and packets that are cut, damaged, of other versions, unknown or too long."""
    dice = random.Random(seed)
    whole = packets.packet(packets.WRITE, 5, 0, bytes(4) + dice.randbytes(900))
    too_long = bytearray(packets.packet(packets.WRITE, 5, 0, b""))
    packets.finish(too_long + bytearray(0), packets.WRITE, 5, 0, 0)
    pieces = [dice.randbytes(n_bytes)]
    pieces += [whole[: dice.randrange(1, len(whole))] for _ in range(20)]
    pieces += [whole[:500] + dice.randbytes(40) + whole[540:]]
    pieces += [packets.packet(packets.HELLO, 9, 0, b"unplay %d.0" % major) for major in (0, 2, 99)]
    pieces += [packets.packet(packets.HELLO, 9, 0, text) for text in (b"", b"\xff" * 300, b"unplay 1")]
    pieces += [packets.packet(kind, 9, 0, b"x" * dice.randrange(40)) for kind in range(256)]
    pieces += [_with_length(packets.WRITE, length) for length in (1025, 10_000, 65_535)]
    pieces += [packets.packet(packets.CALL, 9, 0, text) for text in BAD_CALLS]
    pieces += [packets.packet(packets.WRITE, 9, 0, (10_000_000).to_bytes(4, "little") + b"data")]
    return pieces


BAD_CALLS = [
    b"", b"{", b"[]", b"7", b"null", b'"text"', b"\xff\xfe", b"{}", b'{"do": 7}', b'{"do": "nothing"}',
    b'{"do": "begin"}', b'{"do": "begin", "name": 7, "size": 1, "sha256": "x"}',
    b'{"do": "begin", "name": "references/a", "size": -1, "sha256": "x"}',
    b'{"do": "begin", "name": "references/a", "size": 10000000000000, "sha256": "%064d"}' % 0,
    b'{"do": "open", "name": ["references", "a"]}', b'{"do": "ls", "start": "x"}', b'{"do": "digest"}',
    b'{"do": "commit"}', b'{"do": "set_baud", "rate": 10}', b'{"do": "config_set", "values": 7}',
    b"[" * 500, b'{"do": "' + b"x" * 900 + b'"}',
]  # fmt: skip


def _with_length(kind: int, length: int) -> bytes:
    """A good header of a packet that is longer than any device's buffer, and some of its bytes."""
    header = bytearray(packets.OVERHEAD_BYTES + length)
    packets.finish(header, kind, 9, 0, length)
    return bytes(header[:200])


def survive_garbage(device: SerialDevice, n_bytes: int, seed: int = 1) -> float:
    """Sends garbage; the longest time in s that the next good packet then waited for its answer."""
    slowest_s = 0.0
    with DeviceLink(device.line.path, raise_baud=False) as link:
        process = device.process.pid
        for piece in garbage(n_bytes, seed):
            for start in range(0, len(piece), 4096):
                link.port.write(piece[start : start + 4096])
                while link.port.read(0):  # its answers
                    pass
            start_s = time.monotonic()
            with contextlib.suppress(RefusedError):  # BYE was among it: an answer, too
                link.channel.request(packets.PING)
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            link.hello()
    assert device.process.pid == process, "the device has restarted"
    return slowest_s
