"""Packets against the worked bytes of the reference (kd-protocol 1.16)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import (
    BREAK_IN_BYTE,
    INITIAL_PACKET_ID,
    LARGEST_PAYLOAD_ACCEPTED,
    PACKET_MAX_SIZE,
    SYNC_PACKET_ID,
    PacketType,
    checksum,
    encode_control,
    encode_data,
)

_HEX = bytes.fromhex


def test_control_packets_are_sixteen_bytes_and_no_trailer() -> None:
    assert encode_control(PacketType.RESET) == _HEX("69 69 69 69 06 00 00 00 00 00 00 00 00 00 00 00")
    assert encode_control(PacketType.ACKNOWLEDGE, 0x80800000) == _HEX("69696969 0400 0000 00008080 00000000")
    assert encode_control(PacketType.RESEND) == _HEX("69 69 69 69 05 00 00 00 00 00 00 00 00 00 00 00")


@pytest.mark.parametrize(
    ("packet_id", "request_", "head", "payload"),
    [
        (
            0x80800000,
            Manipulate.request(ApiNumber.GET_VERSION),
            "30 30 30 30 02 00 38 00 00 00 80 80 77 00 00 00",
            "46 31 00 00" + "00" * 52,
        ),
        (
            0x80800001,
            Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0xFFFFF78000000000, transfer_count=0x330),
            "30 30 30 30 02 00 38 00 01 00 80 80 09 04 00 00",
            "30 31 00 00" + "00" * 12 + "00 00 00 00 80 F7 FF FF" + "30 03 00 00" + "00" * 28,
        ),
        (
            0x80800000,
            Manipulate.request(
                ApiNumber.CONTINUE2, continue_status=0x10002, trace_flag=0, dr7=0x400, current_symbol_start=1
            ),
            "30 30 30 30 02 00 38 00 00 00 80 80 75 00 00 00",
            "3C 31 00 00" + "00" * 12 + "02 00 01 00 00 00 00 00 00 04" + "00" * 6 + "01" + "00" * 7 + "00" * 16,
        ),
    ],
)
def test_data_packets_are_the_worked_bytes(packet_id: int, request_: Manipulate, head: str, payload: str) -> None:
    wire = encode_data(PacketType.STATE_MANIPULATE, packet_id, request_._replace(status=0).encode())
    assert wire[:16] == _HEX(head)
    assert wire[16:-1] == _HEX(payload)
    assert wire[-1] == 0xAA


def test_without_its_trailer_it_is_one_byte_shorter() -> None:
    # KDNET's form (kd-protocol 1.15).
    assert encode_data(3, 5, b"abc", trailer=False) == encode_data(3, 5, b"abc")[:-1]


@given(st.binary(max_size=5000))
def test_the_checksum_is_the_plain_sum(payload: bytes) -> None:
    assert checksum(payload) == sum(payload)
    assert checksum(memoryview(payload)) == sum(payload)


def test_the_checksum_of_the_heaviest_payload() -> None:
    # 256 bytes of FF add up to just below Adler-32's modulus: the trick must not wrap.
    assert checksum(b"\xff" * 4096) == 255 * 4096


def test_numbers_of_the_reference() -> None:
    assert (INITIAL_PACKET_ID, SYNC_PACKET_ID, PACKET_MAX_SIZE) == (0x80800000, 0x800, 0xFA0)
    assert BREAK_IN_BYTE == b"\x62"
    assert [packet_type.value for packet_type in PacketType if packet_type.is_control] == [4, 5, 6]
    assert (PacketType.STATE_CHANGE64, PacketType.FILE_IO, PacketType.TRACE_IO) == (7, 11, 9)


def test_a_payload_that_fits_no_packet_is_our_mistake() -> None:
    encode_data(2, INITIAL_PACKET_ID, bytes(LARGEST_PAYLOAD_ACCEPTED))
    with pytest.raises(LocalProtocolError, match="4161 bytes"):
        encode_data(2, INITIAL_PACKET_ID, bytes(LARGEST_PAYLOAD_ACCEPTED + 1))
