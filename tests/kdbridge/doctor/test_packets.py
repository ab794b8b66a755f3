"""Packets in streams that are not whole: the recorded line as the witness for whole ones, cuts and changes by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kdbridge.doctor.packets import Shape, scan
from protocol.packet import encode_control, encode_data
from tests.raw import A, change_bytes
from tests.recording import read_chunks, split

_CHANGE = encode_data(7, A | 0x800, change_bytes())


@pytest.mark.parametrize("from_host", [True, False])
def test_a_real_line_is_all_whole_packets(shared: Path, from_host: bool) -> None:
    stream = b"".join(chunk.data for chunk in read_chunks(shared) if chunk.from_host == from_host)
    packets, between = split(stream)
    found = scan(stream)
    assert [(one.at, one.packet_type, one.packet_id) for one in found.found] == [
        (one.offset, one.packet_type, one.packet_id) for one in packets
    ]
    assert [one.body for one in found.good] == [one.payload for one in packets if not one.control]
    assert (found.damaged, found.broken) == ((), ())
    assert found.between == b"".join(data for _, data in between)


def test_half_a_packet_is_no_damage_while_it_may_go_on() -> None:
    stream = _CHANGE + _CHANGE[:100]
    assert [one.shape for one in scan(stream, ended=False).found] == [Shape.GOOD, Shape.UNFINISHED]
    assert [one.shape for one in scan(stream, ended=True).found] == [Shape.GOOD, Shape.SHORT]


@pytest.mark.parametrize(
    ("damaged", "shape", "missing"),
    [
        (_CHANGE[:40] + bytes([_CHANGE[40] ^ 4]) + _CHANGE[41:], Shape.CHANGED, 0),
        (_CHANGE[:40] + _CHANGE[43:], Shape.SHORT, 3),
        (_CHANGE[:40] + b"??" + _CHANGE[40:], Shape.LONG, 0),
        (_CHANGE[:-1] + b"\x2a", Shape.CHANGED, 0),
        (_CHANGE[:60], Shape.SHORT, 197),
    ],
)
def test_a_damaged_packet_between_whole_ones(damaged: bytes, shape: Shape, missing: int) -> None:
    stream = _CHANGE + damaged + encode_control(4, A) + _CHANGE
    found = scan(stream)
    assert [one.shape for one in found.found] == [Shape.GOOD, shape, Shape.GOOD, Shape.GOOD]
    assert found.damaged[0].missing == missing
    assert found.found[2].control


def test_a_leader_without_a_header_is_noted() -> None:
    torn = _CHANGE[:8] + b"\x81" + _CHANGE[9:]
    found = scan(_CHANGE + torn + _CHANGE)
    assert len(found.good) == 2
    assert found.broken == (len(_CHANGE),)


def test_what_looks_like_a_leader_inside_a_payload_is_none() -> None:
    payload = b"0000iiii0000" + bytes(44)
    found = scan(encode_data(2, A, payload) * 3)
    assert [one.body for one in found.good] == [payload] * 3
    assert found.broken == ()


def test_any_bytes_are_survived_and_all_accounted_for() -> None:
    for seed in range(300):
        draw = random.Random(seed)
        stream = bytearray(_CHANGE * 3 + draw.randbytes(40))
        for _ in range(draw.randrange(40)):
            stream[draw.randrange(len(stream))] = draw.choice(b"0i\xaa\x00\x07\x80")
        cut = bytes(stream[draw.randrange(50) : len(stream) - draw.randrange(50)])
        found = scan(cut, ended=bool(seed & 1))
        carried = sum(16 + (0 if one.control else len(one.body) + (one.shape is Shape.GOOD)) for one in found.found)
        assert carried + len(found.between) == len(cut), f"seed {seed}"
