"""What the link must survive. Tests run a little, `python tests/micropython/link_trials.py` all of it."""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serial_device import SerialDevice

from unplay.board.faults import PortError, RefusedError
from unplay.board.link import DeviceLink
from unplay.virtual.line import PLAIN, LineModel
from unplay_shared import packets

NAME = "references/song.pcm"
GOOD_LINE = LineModel(ring_bytes=260, drops=True, latency_s=0.001)
BAD_LINE = LineModel(ring_bytes=260, drops=True, loss=0.01, bit_error_rate=1e-5, seed=1)


def survive_faults(device: SerialDevice, folder: Path, n: int, file_bytes: int = 100_000) -> int:
    """Sends files up and down until n faults have hit them; how many files. Each must arrive as it was."""
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


_Transfer = Callable[[DeviceLink, "_Watch"], object]


class _Watch:
    """Progress of one attempt: where it began and how far it came."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0

    def __call__(self, done: int, size: int) -> None:
        self.first = done if self.first is None else self.first
        self.last = done


def survive_unplugging(
    device: SerialDevice, folder: Path, n: int, file_bytes: int = 60_000, seed: int = 1
) -> int:
    """Pulls the plug at n random moments of uploads and downloads; each goes on where it was, and ends right.

    device: its line has a `link`. Returns the most acknowledged bytes that an attempt sent again.
    """
    moments = random.Random(seed)
    up, down = folder / "up", folder / "down"
    up.write_bytes(moments.randbytes(file_bytes))
    transfers: list[_Transfer] = [
        lambda link, watch: link.put(up, NAME, watch),
        lambda link, watch: link.get(NAME, down, watch),
    ]
    unplugged = most_again = 0
    while unplugged < n:
        for transfer in transfers:
            reached, ended = 0, False
            while not ended:
                watch = _Watch()
                ended = _interrupted(device, transfer, watch, moments.uniform(0.0, 0.5))
                unplugged += not ended
                if watch.first is not None:
                    most_again = max(most_again, reached - watch.first)
                    reached = watch.last
        assert (device.files / NAME).read_bytes() == up.read_bytes() == down.read_bytes()
        (device.files / NAME).unlink()
        down.unlink()
    return most_again


def _interrupted(device: SerialDevice, transfer: _Transfer, watch: _Watch, after_s: float) -> bool:
    """Whether a transfer ended although the plug is pulled after that time."""
    timer = threading.Timer(after_s, device.line.unplug)
    timer.start()
    try:
        with DeviceLink(device.line.path) as link:
            transfer(link, watch)
        return True
    except PortError:
        return False
    finally:
        timer.cancel()
        timer.join()
        device.line.plug()


BAD_CALLS = [
    b"", b"{", b"[]", b"7", b"null", b'"text"', b"\xff\xfe", b"{}", b'{"do": 7}', b'{"do": "nothing"}',
    b'{"do": "begin"}', b'{"do": "begin", "name": 7, "size": 1, "sha256": "x"}',
    b'{"do": "begin", "name": "references/a", "size": -1, "sha256": "x"}',
    b'{"do": "begin", "name": "references/a", "size": 10000000000000, "sha256": "%064d"}' % 0,
    b'{"do": "open", "name": ["references", "a"]}', b'{"do": "ls", "start": "x"}', b'{"do": "digest"}',
    b'{"do": "commit"}', b'{"do": "set_baud", "rate": 10}', b'{"do": "config_set", "values": 7}',
    b"[" * 500, b'{"do": "' + b"x" * 900 + b'"}',
]  # fmt: skip


def garbage(n_bytes: int, seed: int = 1) -> list[bytes]:
    """Random bytes, and packets that are cut, damaged, of other versions, unknown or too long."""
    dice = random.Random(seed)
    whole = packets.packet(packets.WRITE, 5, 0, bytes(4) + dice.randbytes(900))
    pieces = [dice.randbytes(n_bytes)]
    pieces += [whole[: dice.randrange(1, len(whole))] for _ in range(20)]
    pieces += [whole[:500] + dice.randbytes(40) + whole[540:]]
    pieces += [packets.packet(packets.HELLO, 9, 0, b"unplay %d.0" % major) for major in (0, 2, 99)]
    pieces += [packets.packet(packets.HELLO, 9, 0, text) for text in (b"", b"\xff" * 300, b"unplay 1")]
    pieces += [packets.packet(kind, 9, 0, b"x" * dice.randrange(40)) for kind in range(256)]
    pieces += [_start_of(length) for length in (1025, 10_000, 65_535)]
    pieces += [packets.packet(packets.CALL, 9, 0, text) for text in BAD_CALLS]
    pieces += [packets.packet(packets.WRITE, 9, 0, (10_000_000).to_bytes(4, "little") + b"data")]
    return pieces


def _start_of(length: int) -> bytes:
    """The start of a packet that is longer than any device's buffer."""
    whole = bytearray(packets.OVERHEAD_BYTES + length)
    packets.finish(whole, packets.WRITE, 9, 0, length)
    return bytes(whole[:200])


def survive_garbage(device: SerialDevice, n_bytes: int, seed: int = 1) -> float:
    """Sends garbage; the longest time in s that the next good packet then waited for its answer."""
    slowest_s = 0.0
    with DeviceLink(device.line.path) as link:
        starts = device.starts
        for piece in garbage(n_bytes, seed):
            for start in range(0, len(piece), 4096):
                link.port.write(piece[start : start + 4096])
                while link.port.read(0):  # what it answers
                    pass
            start_s = time.monotonic()
            with contextlib.suppress(RefusedError):  # BYE was among it: an answer, too
                link.channel.request(packets.PING)
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            link.hello()
        assert device.starts == starts, "the device has restarted"
    return slowest_s


def main() -> None:
    """All of it: 10⁴ faults, 100 unplugged transfers, 10⁶ bytes of garbage."""
    micropython = str(Path(sys.executable).with_name("micropython"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with SerialDevice(micropython, folder / "device", BAD_LINE) as device:
            files = survive_faults(device, folder, 10_000)
        print(f"10 000 faults in {files} files of 100 kB: every file right")
        with SerialDevice(micropython, folder / "device", GOOD_LINE, folder / "port") as device:
            again = survive_unplugging(device, folder, 100)
        print(f"unplugged 100 times: every file right; sent again at most {again} bytes")
        with SerialDevice(micropython, folder / "device", PLAIN) as device:
            slowest_s = survive_garbage(device, 1_000_000)
        print(f"10⁶ random bytes, bad packets: the next good packet was answered within {slowest_s:.2f} s")


if __name__ == "__main__":
    main()
