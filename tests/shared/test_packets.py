"""The link's packets: runs on CPython and, the same file, on MicroPython (tests/micropython)."""

from unplay_shared import packets

PAYLOAD = bytes(range(256))


def parsed(packet):
    """(type, seq, taken, payload) of a whole packet; None if it is damaged."""
    found = packets.header(packet)
    if found is None:
        return None
    kind, seq, length, taken, crc = found
    body = packet[packets.HEADER_BYTES :]
    if len(body) != packets.body_bytes(length) or not packets.intact(body, length, crc):
        return None
    return kind, seq, taken, body[:length]


def test_what_is_packed_is_read():
    for payload in (b"", b"\0", PAYLOAD, PAYLOAD * 16):
        packet = packets.packet(packets.WRITE, 7, 0x12345, payload)
        assert parsed(packet) == (packets.WRITE, 7, 0x2345, payload)
        assert len(packet) == packets.HEADER_BYTES + packets.body_bytes(len(payload))


def test_the_layout_is_that_of_the_first_version():
    assert packets.packet(packets.WRITE, 7, 3, b"abc") == (
        b"\xa5\x5a\x24\x07\x03\x00\x03\x00\xbe\xc6abc\x856\xfc\x8f"
    )
    assert packets.packet(packets.CREDIT, 0, 60) == b"\xa5\x5a\x31\x00\x00\x00\x3c\x00T\x0c"


def test_every_flipped_bit_is_seen():
    packet = packets.packet(packets.DATA, 200, 999, b"sixteen samples.")
    for bit in range(8 * len(packet)):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parsed(bytes(damaged)) is None


def test_no_start_of_a_packet_is_a_packet():
    packet = packets.packet(packets.DATA, 1, 2, b"abc")
    for length in range(packets.HEADER_BYTES, len(packet)):
        assert parsed(packet[:length]) is None


def test_packets_are_made_in_place():
    buffer = bytearray(packets.OVERHEAD_BYTES + 8)
    buffer[packets.HEADER_BYTES : packets.HEADER_BYTES + 3] = b"abc"
    n = packets.finish(buffer, packets.WRITE, 7, 3, 3)
    assert bytes(buffer[:n]) == packets.packet(packets.WRITE, 7, 3, b"abc")
    assert bytes(buffer[n:]) == bytes(len(buffer) - n)


def test_a_prompt_ignores_hello():
    for byte in packets.hello():
        assert not 1 <= byte <= 5  # Ctrl-A to Ctrl-E


def test_versions_are_read():
    found = parsed(packets.hello())
    assert found is not None
    assert found[0] == packets.HELLO
    assert packets.version_of(found[3]) == (packets.MAJOR, packets.MINOR)
    assert packets.version_of(b"unplay 12.34") == (12, 34)
    for text in (b"", b"unplay", b"unplay x", b"unplay 1", b"unplay 1.x", b"other 1.0", b"\xff\xfe 1.0"):
        assert packets.version_of(text) is None
