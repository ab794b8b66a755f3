"""Manipulate messages: numbers and offsets of kd-protocol 3, and those of a real session."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.manipulate import (
    HEADER_SIZE,
    LARGEST_TRANSFER,
    NO_REPLY,
    STATE_CHANGE_FOLLOWS,
    UNIONS,
    ApiNumber,
    Manipulate,
    api_name,
)
from tests.protocol.kdnet_capture import Captured
from tests.protocol.reference import tables

_MEMORY = {"address": (0, 8), "transfer_count": (8, 4), "actual_bytes": (12, 4)}
_IO = {"io_address": (0, 8), "data_size": (8, 4), "data_value": (12, 4)}
_IO_EXTENDED = {
    "data_size": (0, 4), "interface_type": (4, 4), "bus_number": (8, 4), "address_space": (12, 4),
    "io_address": (16, 8), "data_value": (24, 4),
}  # fmt: skip
_MSR = {"msr": (0, 4), "low": (4, 4), "high": (8, 4)}
_BUS = {"bus_data_type": (0, 4), "bus_number": (4, 4), "slot_number": (8, 4), "offset": (12, 4), "length": (16, 4)}
_CONTEXT_EX = {"offset": (0, 4), "byte_count": (4, 4), "bytes_copied": (8, 4)}
_BREAK_POINT_EX = {"count": (0, 4), "continue_status": (4, 4)}

# Offset in the union and size, as sections 2.8 and 3.3 to 3.17 give them.
_PUBLISHED: dict[int, dict[str, tuple[int, int]]] = {
    0x3130: _MEMORY, 0x3131: _MEMORY, 0x313D: _MEMORY, 0x313E: _MEMORY, 0x3137: _MEMORY, 0x3138: _MEMORY,
    0x3132: {"context_flags": (0, 4)}, 0x3133: {"context_flags": (0, 4)},
    0x3134: {"address": (0, 8), "handle": (8, 4)}, 0x3135: {"handle": (0, 4)},
    0x3147: _BREAK_POINT_EX, 0x3148: _BREAK_POINT_EX,
    0x315E: {"address": (0, 8), "instruction": (8, 8), "handle": (0x10, 4), "size": (0x14, 1), "alignment": (0x15, 1)},
    0x3136: {"continue_status": (0, 4)},
    0x313C: {
        "continue_status": (0, 4), "trace_flag": (4, 4), "dr7": (8, 8), "current_symbol_start": (0x10, 8),
        "current_symbol_end": (0x18, 8),
    },
    0x3139: _IO, 0x313A: _IO, 0x3144: _IO_EXTENDED, 0x3145: _IO_EXTENDED, 0x3152: _MSR, 0x3153: _MSR,
    0x3156: {"address": (0, 8), "search_length": (8, 8), "pattern_length": (0x10, 4)},
    0x3157: _BUS, 0x3158: _BUS,
    0x315B: {"address": (0, 8), "length": (8, 4), "flags": (0xC, 2), "pattern_length": (0xE, 2)},
    0x315C: {"address": (0, 8), "reserved": (8, 8), "address_space": (0x10, 4), "flags": (0x14, 4)},
    0x313F: {"count": (0, 4)}, 0x3140: {"special_call": (0, 8)}, 0x3142: {"address": (0, 8), "flags": (8, 4)},
    0x3143: {
        "address": (0, 8), "flags": (8, 4), "calls": (0xC, 4), "max_calls_per_period": (0x10, 4),
        "min_instructions": (0x14, 4), "max_instructions": (0x18, 4), "total_instructions": (0x1C, 4),
    },
    0x315D: {"partition": (0, 4)}, 0x315F: _CONTEXT_EX, 0x3160: _CONTEXT_EX,
    0x3146: {
        "major_version": (0, 2), "minor_version": (2, 2), "protocol_version": (4, 1), "kd_secondary_version": (5, 1),
        "version_flags": (6, 2), "machine_type": (8, 2), "max_packet_type": (0xA, 1), "max_state_change": (0xB, 1),
        "max_manipulate": (0xC, 1), "simulation": (0xD, 1), "unused": (0xE, 2), "kern_base": (0x10, 8),
        "ps_loaded_module_list": (0x18, 8), "debugger_data_list": (0x20, 8),
    },
}  # fmt: skip
_SAID_AS = {"actual_bytes": "actual_count", "current_symbol_start": "sym_start", "current_symbol_end": "sym_end"}


def test_every_number_and_name_is_the_reference_s(shared: Path) -> None:
    (rows,) = tables(shared, "3.2")
    assigned = [row for row in rows if row[1] and row[1].split()[0] not in ("unassigned", "Maximum")]
    published = {
        int(number, 16): name.split()[0]
        for row in assigned
        for number, name in zip(row[0].split(", "), row[1].split(", "), strict=True)
    }
    ours = {int(ApiNumber.READ_PHYSICAL_BULK): "ReadPhysicalBulk"}
    assert {int(api): api_name(api) for api in ApiNumber} == published | ours, "one is seen and not documented"
    assert len(published) == 43
    silent = {int(row[0], 16) for row in assigned if row[2].startswith("**no**")}
    assert {int(api) for api in NO_REPLY} == silent
    assert {0x3150} == STATE_CHANGE_FOLLOWS < silent


def test_a_number_nobody_assigned_is_itself() -> None:
    assert api_name(0x314A) == "api 0x314a"
    message = Manipulate(0x314A, union=bytes(range(40)))
    assert (message.name, message.fields()) == ("api 0x314a", {})
    assert message.reply(0xC0000001, anything=1).union == bytes(range(40))


def test_the_header_s_fields_stand_where_the_reference_says() -> None:
    assert (HEADER_SIZE, LARGEST_TRANSFER) == (0x38, 4000 - 0x38)
    payload = bytes(range(0x38)) + b"data"
    message = Manipulate.decode(payload)
    assert (message.api, message.processor_level, message.processor) == (0x03020100, 0x0504, 0x0706)
    assert (message.status, message.padding) == (0x0B0A0908, b"\x0c\x0d\x0e\x0f")
    assert (message.union, message.data) == (payload[0x10:0x38], b"data")
    assert message.encode() == payload


@pytest.mark.parametrize("api", sorted(_PUBLISHED))
def test_union_fields_stand_where_the_reference_says(api: int) -> None:
    union = bytes(range(0x81, 0x81 + 40))
    fields = {name: int.from_bytes(union[at : at + size], "little") for name, (at, size) in _PUBLISHED[api].items()}
    assert Manipulate(api, union=union).fields() == fields
    # And the other way: a request holds them at these places and nothing else.
    raw = bytearray(40)
    for at, size in _PUBLISHED[api].values():
        raw[at : at + size] = union[at : at + size]
    request = Manipulate.request(ApiNumber(api), data=b"", **fields).encode()
    assert request == struct.pack("<I4xI4x", api, 0x103) + raw, "WinDbg's ReturnStatus in a request (3.1)"
    # Laid over a request's garbage, one field changes its own bytes only.
    for name, (at, size) in _PUBLISHED[api].items():
        changed = Manipulate(api, union=union).reply(0, data=b"", **{name: 0}).union
        assert changed == union[:at] + bytes(size) + union[at + size :]


def test_every_other_request_has_an_empty_union() -> None:
    others = {int(api) for api in ApiNumber} - set(_PUBLISHED) - {ApiNumber.READ_PHYSICAL_BULK}
    assert {api: UNIONS[api].fields for api in others} == dict.fromkeys(others, ())
    assert others == {0x313B, 0x3149, 0x3150, 0x3151, 0x3159, 0x3141, 0x315A, 0x3154, 0x3155}


def test_a_real_session_s_messages_come_back_as_the_same_bytes(captured: list[Captured]) -> None:
    messages = [packet for packet in captured if packet.packet_type == 2]
    assert len(messages) == 187
    for packet in messages:
        message, said = Manipulate.decode(packet.payload), packet.params
        assert message.encode() == packet.payload
        assert (message.api, message.name) == (int(packet.said["api_number"], 16), packet.said["api"])
        assert (message.processor_level, message.processor) == (said["processor_level"], said["processor"])
        assert (message.status, message.union.hex()) == (said["return_status"], said["union_hex"])
        assert len(message.data) == packet.said["data_len"]
        if message.api != ApiNumber.GET_VERSION:
            fields = {_SAID_AS.get(name, name): value for name, value in message.fields().items()}
            assert fields == {name: said[name] for name in fields} and fields


def test_a_real_target_s_answers_are_its_requests_echoed(captured: list[Captured]) -> None:
    # T34: WinDbg's garbage comes back byte for byte, with the output fields laid over it.
    requests = {packet.said["frame"]: packet.payload for packet in captured if packet.from_host}
    outputs = {0x3130: ("actual_bytes",), 0x3137: ("actual_bytes",), 0x3138: ("actual_bytes",)}
    replies = [packet for packet in captured if "answers_frame" in packet.said]
    assert len(replies) == 92
    for packet in replies:
        request, reply = Manipulate.decode(requests[packet.said["answers_frame"]]), Manipulate.decode(packet.payload)
        names = reply.fields() if reply.api == ApiNumber.GET_VERSION else outputs.get(reply.api, ())
        fields = {name: reply.fields()[name] for name in names}
        assert request.reply(reply.status, data=reply.data, **fields).encode() == packet.payload


@given(
    st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF),
    st.binary(min_size=4, max_size=4), st.binary(min_size=40, max_size=40), st.binary(max_size=100),
)  # fmt: skip
def test_any_message_survives_the_wire(
    api: int, level: int, processor: int, status: int, padding: bytes, union: bytes, data: bytes
) -> None:
    message = Manipulate(api, level, processor, status, padding, union, data)
    assert Manipulate.decode(message.encode()) == message


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_the_peer_s_mistake(payload: bytes) -> None:
    try:
        message = Manipulate.decode(payload)
    except RemoteProtocolError:
        assert len(payload) < HEADER_SIZE
    else:
        # A refusal may be short (T55); nothing else is made up.
        assert message.encode()[: len(payload)] == payload
        assert len(payload) >= HEADER_SIZE or message.status >= 0x80000000


def test_every_truncation_is_a_message_or_the_peer_s_mistake() -> None:
    whole = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0x1000, transfer_count=4).reply(
        0, data=b"abcd", actual_bytes=4
    )
    payload = whole.encode()
    for size in range(len(payload)):
        if size < HEADER_SIZE:
            with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
                Manipulate.decode(payload[:size])
        else:
            assert Manipulate.decode(payload[:size]).data == b"abcd"[: size - HEADER_SIZE]


def test_a_field_that_a_union_does_not_have_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="no field adress"):
        Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, adress=1)


def test_a_read_for_less_is_the_same_read() -> None:
    # kd-protocol 3.4: TargetBaseAddress, TransferCount, ActualBytesRead, which carries the cache type.
    read = Manipulate.request(
        ApiNumber.READ_PHYSICAL_MEMORY, processor=3, address=0x123456789, transfer_count=3944, actual_bytes=2
    )
    assert (read.memory_wanted, read.divisible) == (3944, True)
    for size, wanted in ((500, 500), (3000, 1972)):
        less = read.less(size)
        assert less.fields() == {"address": 0x123456789, "transfer_count": wanted, "actual_bytes": 2}
        assert less._replace(union=read.union) == read
    assert not read.less(255).divisible
    control = Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=3944)
    assert (control.memory_wanted, control.divisible) == (0, False)
