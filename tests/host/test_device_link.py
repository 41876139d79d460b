"""The host's end of the link, and both ends together, under faults of every kind."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_pair import Application, Clock, Damage, Pair

from unplay.board import faults as sentences
from unplay.board import ports
from unplay.board.channel import Decoder
from unplay.board.faults import NoAnswerError, OtherVersionError, PortError, RefusedError
from unplay.board.link import DeviceLink
from unplay.errors import DeviceUnreachableError
from unplay_device.console import Console
from unplay_device.files import Files
from unplay_device.link import Link
from unplay_shared import faults, packets

NAME = "references/song.pcm"
FILE = random.Random(3).randbytes(9000)
WELCOME = {"protocol": [1, 0], "credit": 240, "packet": 1024, "bauds": [], "calls": []}

once_for_all = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.stop_the_others(monkeypatch)
    return clock


@pytest.fixture
def pair(tmp_path: Path, clock: Clock) -> Pair:
    return Pair(tmp_path / "device", clock)


@pytest.fixture(autouse=True)
def device_folder(tmp_path: Path) -> Path:
    (tmp_path / "device").mkdir()
    (tmp_path / "up").write_bytes(FILE)
    return tmp_path / "device"


def bad_luck(seed: int, rate: float) -> Damage:
    """Takes bytes away, puts some in and flips bits, each at `rate` per byte."""
    dice = random.Random(seed)

    def damage(data: bytes) -> bytes:
        out = bytearray()
        i = 0
        while i < len(data):
            accident = dice.random() / rate
            if accident < 1:
                i += dice.randrange(1, 64)
            elif accident < 2:
                out += dice.randbytes(dice.randrange(1, 8))
            elif accident < 3:
                out.append(data[i] ^ 1 << dice.randrange(8))
                i += 1
            else:
                out.append(data[i])
                i += 1
        return bytes(out)

    return damage


# Both ends


@settings(once_for_all, max_examples=30)
@given(seed=st.integers(0, 1 << 32), rate=st.sampled_from([1e-4, 5e-4, 2e-3]))
def test_no_fault_changes_a_file(
    tmp_path: Path, device_folder: Path, clock: Clock, seed: int, rate: float
) -> None:
    pair = Pair(device_folder, clock, bad_luck(seed, rate))
    for path in (device_folder / NAME, tmp_path / "down"):
        path.unlink(missing_ok=True)
    try:
        with DeviceLink(pair, patience_s=60) as link:
            link.put(tmp_path / "up", NAME)
            link.get(NAME, tmp_path / "down")
        done = True
    except DeviceUnreachableError:
        done = False
    assert done or rate > 1e-3, "the link gives up where it need not"
    assert not done or (device_folder / NAME).read_bytes() == FILE
    for path in (device_folder / NAME, tmp_path / "down"):
        assert not path.exists() or path.read_bytes() == FILE, "a wrong file got its name"


def test_a_good_line_carries_little_more_than_the_file(pair: Pair, tmp_path: Path) -> None:
    with DeviceLink(pair) as link:
        before = pair.written
        link.put(tmp_path / "up", NAME)
        assert pair.written - before < 1.1 * len(FILE)
        before = pair.written
        assert not link.put(tmp_path / "up", NAME)
        assert pair.written - before < 300
        link.get(NAME, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == FILE


def test_progress_ends_with_the_size(pair: Pair, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with DeviceLink(pair) as link:
        link.put(tmp_path / "up", NAME, lambda done, size: seen.append((done, size)))
        assert seen[-1] == (len(FILE), len(FILE))
        assert seen == sorted(seen)
        seen.clear()
        link.get(NAME, tmp_path / "down", lambda done, size: seen.append((done, size)))
        assert seen[-1] == (len(FILE), len(FILE))
        assert seen == sorted(seen)


def test_ctrl_c_works_unless_there_is_a_session(pair: Pair, clock: Clock) -> None:
    with DeviceLink(pair) as link:
        assert not pair.wires.interrupts
        clock.now_s += 9
        link.info()
        assert not pair.wires.interrupts
        clock.now_s += 11
        pair.device.poll()
        assert pair.wires.interrupts, "a host that is silent for 10 s is gone"
        assert link.info()["board"] == "none", "and welcome again"
        assert not pair.wires.interrupts
    assert pair.wires.interrupts


def test_nothing_but_hello_is_answered_without_a_session(pair: Pair) -> None:
    pair.write(packets.packet(packets.CALL, 1, 0, b'{"do": "record"}'))
    assert b'"code": 12' in pair.read(0)
    assert not pair.application.recording


# The device, whatever arrives

call_names = ["begin", "open", "digest", "commit", "ls", "rm", "log", "config_set", "set_baud"]
call_keys = ["name", "size", "sha256", "start", "values", "rate", "on", "restart"]
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=70), st.lists(st.integers()))
some_call = st.builds(
    lambda name, arguments: json.dumps({"do": name, **arguments}).encode(),
    st.sampled_from(call_names),
    st.dictionaries(st.sampled_from(call_keys), plain),
)
some_packet = st.builds(
    packets.packet,
    st.sampled_from([*range(0x20, 0x26), *range(0x30, 0x38), 0, 255]),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.one_of(st.binary(max_size=64), some_call),
)


@once_for_all
@given(pieces=st.lists(st.one_of(st.binary(max_size=300), some_packet), max_size=12))
def test_the_device_survives_all_bytes(
    tmp_path: Path, device_folder: Path, clock: Clock, pieces: list[bytes]
) -> None:
    pair = Pair(device_folder, clock)
    for piece in [packets.hello(), *pieces]:
        pair.write(piece)
        pair.read(0)
    with DeviceLink(pair) as link:
        assert link.info()["board"] == "none"
    assert {path.name for path in tmp_path.iterdir()} <= {"device", "up"}, "a file outside its folder"


def test_a_device_whose_card_is_gone_says_so(pair: Pair, device_folder: Path, tmp_path: Path) -> None:
    with DeviceLink(pair) as link:
        (device_folder / "references").write_bytes(b"a file where a folder should be")
        with pytest.raises(RefusedError, match="the device cannot use its card or flash"):
            link.put(tmp_path / "up", NAME)


# The host, whatever answers


class Answers:
    """A port at which each packet is answered with what the test says."""

    name = "answers"
    has_baud = False
    baud = 115200

    def __init__(self, clock: Clock, answers: Iterator[bytes]) -> None:
        self.clock = clock
        self.answers = answers
        self.waiting = b""

    def read(self, timeout_s: float) -> bytes:
        data, self.waiting = self.waiting, b""
        if not data:
            self.clock.now_s += max(timeout_s, 1e-3)
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        found = packets.header(data) if len(data) >= packets.HEADER_BYTES else None
        answer = next(self.answers, b"")
        if found is not None and len(answer) > 4 and answer[:2] == b"\xa5\x5a":
            again = bytearray(answer)  # to this request, whatever its seq
            length = int.from_bytes(again[4:6], "little")
            packets.finish(again, again[2], found[1], 0, length)
            answer = bytes(again)
        self.waiting += answer

    def close(self) -> None:
        pass


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 1 << 40), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
answer_keys = ["length", "hashed", "crc32", "sha256", "size", "files", "lines", "next", "code", "detail"]
an_answer = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda kind, content: packets.packet(kind, 0, 0, json.dumps(content).encode()),
        st.sampled_from([packets.WELCOME, packets.ANSWER, packets.FAULT, packets.STATUS]),
        st.one_of(
            anything,
            st.dictionaries(
                st.sampled_from(
                    [*WELCOME, "length", "hashed", "crc32", "sha256", "size", "files", "next", "code"]
                ),
                anything,
            ),
        ),
    ),
    st.builds(
        lambda kind, offset: packets.packet(kind, 0, 0, offset.to_bytes(4, "little")),
        st.sampled_from([packets.ACK, packets.AGAIN, packets.DATA, packets.CREDIT]),
        st.integers(0, (1 << 32) - 1),
    ),
)


@once_for_all
@given(welcomed=st.booleans(), answers=st.lists(an_answer, max_size=30))
def test_the_host_survives_all_answers(
    tmp_path: Path, clock: Clock, welcomed: bool, answers: list[bytes]
) -> None:
    first = [packets.packet(packets.WELCOME, 0, 0, json.dumps(WELCOME).encode())] if welcomed else []
    port = Answers(clock, iter(first + answers))
    with contextlib.suppress(DeviceUnreachableError), DeviceLink(port) as link:
        for use in (
            lambda: link.put(tmp_path / "up", NAME),
            lambda: link.get(NAME, tmp_path / "down"),
            link.ls,
            link.log,
            link.info,
        ):
            with contextlib.suppress(DeviceUnreachableError):
                use()


@pytest.mark.parametrize(
    ("welcome", "words"),
    [
        ({**WELCOME, "protocol": [2, 1]}, r"speaks version 2\.1 .* this program 1\.\d; update unplay"),
        ({**WELCOME, "protocol": [0, 9]}, r"speaks version 0\.9 .*`unplay device install`"),
        ({**WELCOME, "credit": "many"}, "credit = 'many' where int was expected"),
    ],
)
def test_a_device_that_does_not_fit_is_refused(clock: Clock, welcome: dict[str, Any], words: str) -> None:
    port = Answers(clock, iter([packets.packet(packets.WELCOME, 0, 0, json.dumps(welcome).encode())]))
    with pytest.raises(OtherVersionError, match=words):
        DeviceLink(port)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "nothing answers at answers; is it the right port"),
        (b"\r\n>>> ", "MicroPython's prompt answers at answers.*unplay device install"),
        (b"ATE0\r\nOK\r\n", r"answers, but not as unplay does \('.*OK"),
    ],
)
def test_what_is_no_device_is_named(clock: Clock, answer: bytes, words: str) -> None:
    with pytest.raises(NoAnswerError, match=words):
        DeviceLink(Answers(clock, iter([answer] * 100)))
    assert clock.now_s < 10


def test_every_fault_has_its_sentence() -> None:
    codes = {name: code for name, code in vars(faults).items() if isinstance(code, int)}
    assert len(set(codes.values())) == len(codes)
    detail = {
        "kind": "Error", "text": "text", "call": "dance", "name": NAME, "value": 3, "what": "recording",
        "free": 1, "needed": 2, "offset": 3, "size": 4, "errno": 5, "major": 6, "minor": 7,
    }  # fmt: skip
    for name, code in codes.items():
        assert "refuses with number" not in str(RefusedError(code, detail)), name
        assert str(RefusedError(code, {})), name
    assert "refuses with number 999" in str(RefusedError(999, {}))
    assert sentences.RefusedError(faults.FULL, detail).detail == detail


# Packets among bytes


@given(
    pieces=st.lists(
        st.one_of(some_packet, st.binary(max_size=30).map(lambda noise: noise.replace(b"\xa5", b"")))
    ),
    cuts=st.lists(st.integers(1, 50), min_size=1),
)
def test_packets_are_found_however_the_bytes_come(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    expected = [piece for piece in pieces if piece[:1] == b"\xa5"]
    decoder = Decoder()
    found = []
    for i in range(len(data)):
        cut = cuts[i % len(cuts)]
        found += decoder.feed(data[:cut])
        data = data[cut:]
    assert [packets.packet(p.kind, p.seq, p.taken, p.payload) for p in found] == expected


def test_a_packet_that_never_ends_hides_no_other() -> None:
    decoder = Decoder()
    broken = packets.packet(packets.DATA, 1, 0, bytes(1000))[:500]
    whole = packets.packet(packets.ACK, 2, 0, bytes(4))
    assert decoder.feed(broken + whole) == []
    assert [packet.seq for packet in decoder.give_up()] == [2]


# Ports


def test_a_device_without_micropython_is_reached_over_tcp(tmp_path: Path, device_folder: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            link = Link(Console(stream), Files(lambda: str(device_folder)), Application())
            while not stop.is_set():
                link.poll(20)
            link.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with DeviceLink(f"tcp://127.0.0.1:{server.getsockname()[1]}") as link:
            link.put(tmp_path / "up", NAME)
            link.get(NAME, tmp_path / "down")
            stop.set()
            thread.join()
            with pytest.raises(PortError, match="has gone"):
                link.info()
    finally:
        stop.set()
        thread.join()
        server.close()
    assert (tmp_path / "down").read_bytes() == (device_folder / NAME).read_bytes() == FILE


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/no-such-port", "there is no port /dev/no-such-port; `unplay device list`"),
        ("tcp://127.0.0.1", r"write tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1", "nothing accepts connections at tcp://127.0.0.1:1"),
    ],
)
def test_ports_that_cannot_be_opened_say_why(name: str, words: str) -> None:
    with pytest.raises(PortError, match=re.escape(words)) as raised:
        DeviceLink(name)
    assert raised.value.exit_code == 5


def test_a_port_that_may_not_be_opened_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(13, "Permission denied")

    monkeypatch.setattr(ports.serial, "Serial", refuse)
    with pytest.raises(PortError, match="you may not open /dev/ttyUSB0; add yourself to its group"):
        ports.open_port("/dev/ttyUSB0")


def test_candidates_are_usb_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def __init__(self, device: str, vid: int | None) -> None:
            self.device, self.vid = device, vid

    found = [Found("/dev/ttyUSB1", 0x10C4), Found("/dev/ttyS0", None), Found("/dev/ttyACM0", 0x2E8A)]
    monkeypatch.setattr(ports.list_ports, "comports", lambda: found)
    assert ports.candidates() == ["/dev/ttyACM0", "/dev/ttyUSB1"]
