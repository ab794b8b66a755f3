"""KD packets in data datagrams: the real ones, the made ones, and what is none (kdnet 5)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.framing import ControlFrame, DataFrame
from protocol.kdnet import Endpoint, Sealer, parse_key
from protocol.kdnet.packet import (
    FIRST_HOST_ID,
    FIRST_TARGET_ID,
    ConnectionCheck,
    encode_connection_check,
    is_newer,
    next_id,
    read_packet,
)
from protocol.link import Discard
from protocol.packet import PacketType, encode_control, encode_data
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame

_MANIPULATE = {
    "ReadVirtualMemory": 0x3130, "GetContext": 0x3132, "SetContext": 0x3133, "RestoreBreakPoint": 0x3135,
    "Continue": 0x3136, "ReadControlSpace": 0x3137, "WriteControlSpace": 0x3138, "Continue2": 0x313C,
    "GetVersion": 0x3146, "GetContextEx": 0x315F,
}  # fmt: skip


def test_every_real_packet_is_what_its_description_says(frames: list[Frame], summary: dict[str, Any]) -> None:
    sealer = Sealer(parse_key(KEY_TEXT), Aes())
    key = bytes.fromhex(summary["meta"]["data_key_hex"])
    counted = 0
    for frame in frames:
        said = frame.said
        if said["channel"] != "data":
            continue
        opened = sealer.open(frame.datagram, key)
        assert opened is not None
        counted += 1
        content = read_packet(opened.payload)
        if said["kd_packet_type"] == "UNUSED":
            assert content == ConnectionCheck(bytes.fromhex("0102a8c0"))
            assert opened.payload.hex() == said["raw"]
            assert encode_connection_check(Endpoint("192.168.2.1", 51111)) == opened.payload
            continue
        packet_type, packet_id = PacketType[said["kd_packet_type"]], int(said["kd_packet_id"], 16)
        if said["kd_leader"] == "0x69696969":
            assert content == ControlFrame(packet_type, packet_id)
            assert encode_control(packet_type, packet_id) == opened.payload
            continue
        assert isinstance(content, DataFrame)
        assert (content.packet_type, content.packet_id) == (packet_type, packet_id)
        assert len(content.payload) == said["kd_byte_count"]
        assert content.flaw is None and said["kd_checksum_ok"]
        assert encode_data(packet_type, packet_id, content.payload, trailer=False) == opened.payload
        api, _, status = struct.unpack_from("<III", content.payload)
        assert api == int(said["api_number"], 16)
        if said["kd_packet_type"] == "STATE_MANIPULATE":
            assert api == _MANIPULATE[said["api"]]
            assert status == int(said["params"]["return_status"], 16)
        if said["kd_packet_type"] == "FILE_IO":
            assert struct.unpack_from("<I", content.payload, 4)[0] == int(said["params"]["status"], 16)
    assert counted == 527


def test_ids_of_the_real_session_go_up_by_two_without_a_hole(frames: list[Frame]) -> None:
    ids = {
        from_host: [int(f.said["kd_packet_id"], 16) for f in frames if f.is_first_try and f.from_host is from_host]
        for from_host in (True, False)
    }
    for first, seen in ((FIRST_HOST_ID, ids[True]), (FIRST_TARGET_ID, ids[False])):
        assert seen[0] == first
        assert [next_id(packet_id) for packet_id in seen[:-1]] == seen[1:]
    assert (ids[True][-1], ids[False][-1]) == (0x800000FC, 0x108)


@pytest.mark.parametrize(
    ("packet_id", "expected", "newer"),
    [
        (0x926, 0x926, True),
        (0x928, 0x926, True),
        (0x924, 0x926, False),
        # Bit 800h is a bit like others (trap 6 of the reference): 0x126 is not 0x926.
        (0x126, 0x926, False),
        (0x800, 0x7FE, True),
        (0x80000000, 0x80000002, False),
        (0x00000002, 0xFFFFFFFE, True),
        (0xFFFFFFFE, 0x00000002, False),
    ],
)
def test_ids_are_compared_as_numbers_that_wrap(packet_id: int, expected: int, newer: bool) -> None:
    assert is_newer(packet_id, expected) is newer


def test_ids_wrap() -> None:
    assert next_id(0x7FE) == 0x800
    assert next_id(0xFFFFFFFE) == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Discard.BAD_SIZE),
        (bytes(11), Discard.BAD_SIZE),
        (bytes(16), Discard.NOISE),
        (b"0000\x02", Discard.BAD_SIZE),
        (encode_data(2, 0, bytes(56)), Discard.BAD_SIZE),
        (encode_data(2, 0, bytes(56), trailer=False)[:-1], Discard.BAD_SIZE),
        (encode_data(2, 0, b"a" * 56, trailer=False)[:-1] + b"b", Discard.BAD_CHECKSUM),
        (encode_data(12, 0, bytes(56), trailer=False), Discard.BAD_TYPE),
        (encode_data(4, 0, bytes(56), trailer=False), Discard.BAD_TYPE),
        (encode_data(0, 0, b"", trailer=False), Discard.BAD_TYPE),
        (encode_control(2), Discard.BAD_TYPE),
        (encode_control(4) + b"\0", Discard.BAD_SIZE),
        (b"iiii" + bytes.fromhex("0400 0100 00000000 00000000"), Discard.BAD_SIZE),
    ],
)
def test_what_is_no_packet_has_a_reason(payload: bytes, reason: Discard) -> None:
    assert read_packet(payload) is reason


def test_the_check_for_a_debugger_with_ipv6_is_as_long() -> None:
    assert read_packet(encode_connection_check(Endpoint("2001:db8::1", 50000))) == ConnectionCheck(bytes(4))


@given(st.binary(max_size=120), st.sampled_from([b"", b"0000", b"iiii", b"0000\x02\0\x08\0", bytes(8)]))
def test_any_payload_is_a_packet_or_a_reason(tail: bytes, head: bytes) -> None:
    content = read_packet(head + tail)
    if isinstance(content, DataFrame):
        assert encode_data(content.packet_type, content.packet_id, content.payload, trailer=False) == head + tail
