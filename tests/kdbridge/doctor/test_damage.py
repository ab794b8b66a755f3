"""What a line does to packets, told from what came: each damage made here by a function of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbridge.doctor.damage import Damage, Pattern, study
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from tests.raw import A, change_bytes
from tests.recording import read_chunks


def _session(count: int = 24) -> list[bytes]:
    """A target's packets: a state change that is repeated, and replies in which every byte value comes."""
    change = bytearray(change_bytes(0xFFFFF802_11131A0D))
    change[0x40:0x50] = bytes(range(0x50, 0x60))
    change[0x50:0x54] = b"\x11\x13\x0a\xff"
    packets = []
    for number in range(count):
        data = bytes((16 * number + at) & 0xFF for at in range(64))
        reply = Manipulate(ApiNumber.READ_VIRTUAL_MEMORY, data=data)
        packets.append(encode_data(7, A | 0x800, bytes(change)))
        packets.append(encode_data(2, A | number & 1, reply.encode()))
    return packets


def _through(mangle: Callable[[bytes], bytes]) -> Damage:
    return study(b"".join(mangle(packet) for packet in _session()))


def _drop_some(draw: random.Random) -> Callable[[bytes], bytes]:
    return lambda data: bytes(byte for byte in data if draw.random() > 0.003)


def _burst(draw: random.Random) -> Callable[[bytes], bytes]:
    def mangle(data: bytes) -> bytes:
        if draw.random() < 0.6:
            return data
        at = draw.randrange(30, 60)
        return data[:at] + data[at + draw.randrange(8, 30) :]

    return mangle


def _insert(draw: random.Random) -> Callable[[bytes], bytes]:
    def mangle(data: bytes) -> bytes:
        if draw.random() < 0.6:
            return data
        at = draw.randrange(16, len(data) - 1)
        return data[:at] + bytes([draw.randrange(1, 0x30)]) + data[at:]

    return mangle


def _flip(draw: random.Random) -> Callable[[bytes], bytes]:
    def mangle(data: bytes) -> bytes:
        out = bytearray(data)
        for bit in range(8 * len(out)):
            if draw.random() < 2e-4:
                out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

    return mangle


def _cut(draw: random.Random) -> Callable[[bytes], bytes]:
    return lambda data: data if draw.random() < 0.6 else data[: draw.randrange(20, len(data))]


_MANGLES: dict[Pattern, Callable[[random.Random], Callable[[bytes], bytes]]] = {
    Pattern.TELNET: lambda draw: lambda data: data.replace(b"\xff", b"\xff\xff"),
    Pattern.NEWLINES: lambda draw: lambda data: data.replace(b"\n", b"\r\n"),
    Pattern.FLOW_CONTROL: lambda draw: lambda data: data.replace(b"\x11", b"").replace(b"\x13", b""),
    Pattern.SEVEN_BITS: lambda draw: lambda data: bytes(byte & 0x7F for byte in data),
    Pattern.PARITY: lambda draw: lambda data: bytes(b & 0x7F | ((b & 0x7F).bit_count() & 1) << 7 for b in data),
    Pattern.OVERRUN: _burst,
    Pattern.LOST: _drop_some,
    Pattern.INSERTED: _insert,
    Pattern.FLIPPED: _flip,
    Pattern.CUT: _cut,
}


def test_a_healthy_line_is_undamaged() -> None:
    assert _through(lambda data: data) == Damage(good=48)


def test_a_real_line_is_undamaged(shared: Path) -> None:
    stream = b"".join(chunk.data for chunk in read_chunks(shared) if not chunk.from_host)
    assert study(stream).damaged == 0
    assert study(stream).pattern is None


@pytest.mark.parametrize("pattern", _MANGLES)
@pytest.mark.parametrize("seed", range(3))
def test_each_damage_is_named(pattern: Pattern, seed: int) -> None:
    damage = _through(_MANGLES[pattern](random.Random(seed)))
    assert damage.pattern is pattern, f"seed {seed}: {damage}"
    assert damage.sure >= 0.6
    assert damage.evidence


@pytest.mark.parametrize(("gone", "instead"), [(b"\r", b"\n"), (b"\n", b"\r"), (b"\r", b"\r\n"), (b"\r", b"\r\0")])
def test_every_way_to_translate_ends_of_lines_is_one(gone: bytes, instead: bytes) -> None:
    assert _through(lambda data: data.replace(gone, instead)).pattern is Pattern.NEWLINES


def test_the_error_rate_is_about_what_it_is() -> None:
    packets = _session(400)
    flipped = _flip(random.Random(7))
    rate = study(b"".join(map(flipped, packets))).bit_error_rate
    assert rate is not None
    assert 1e-4 < rate < 4e-4


def test_flow_control_is_seen_where_it_eats_of_a_header() -> None:
    # A sum that has 13 in it: the header itself comes short.
    tried = (Manipulate(ApiNumber.GET_VERSION, union=bytes([0x11, last]).ljust(40, b"\0")) for last in range(256))
    payload = next(one.encode() for one in tried if sum(one.encode()) & 0xFF == 0x13)
    packet = encode_data(2, A, payload)
    assert packet[12] == 0x13
    stripped = packet.translate(None, b"\x11\x13") * 4
    assert study(stripped).pattern is Pattern.FLOW_CONTROL


def test_one_damaged_packet_alone_names_nothing() -> None:
    packet = bytearray(_session(1)[1])
    del packet[30:50]
    damage = study(bytes(packet))
    assert damage.pattern is None
    assert damage.likely


def test_packets_damaged_alike_are_not_hit_by_chance() -> None:
    packet = bytearray(_session(1)[1])
    packet[40] ^= 0x41
    assert study(bytes(packet) * 8).pattern is not Pattern.FLIPPED


@pytest.mark.slow
@pytest.mark.parametrize("spam", [b"0", b"i", _session(1)[0][:16], b"0000\x07\0\xf0\0", b"\xff", b"\r\n", b"\0"])
def test_no_stream_takes_long(spam: bytes) -> None:
    started = time.process_time()
    study((spam * (1 << 18))[: 1 << 18])
    assert time.process_time() - started < 20


def test_any_bytes_are_survived() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        stream = bytearray(b"".join(_session(2)))
        for _ in range(draw.randrange(60)):
            at = draw.randrange(len(stream))
            stream[at : at + draw.randrange(3)] = draw.choice([b"0000", b"\xff\xff", b"\r\n", b"\x11", b"", b"\xaa"])
        study(bytes(stream), ended=bool(seed & 1))
