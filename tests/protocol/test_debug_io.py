"""Debug prints, prompts, traces and control requests: the layouts of kd-protocol 4.1, 4.3 and 4.4."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.debug_io import (
    ControlRequest,
    DebugIoApi,
    GetString,
    GetStringReply,
    PrintString,
    TraceIo,
    decode_debug_io,
)
from protocol.errors import RemoteProtocolError
from tests.protocol.kdnet_capture import Captured

_HEX = bytes.fromhex
_U16, _U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
_TEXT = st.binary(max_size=100)

_PRINT = _HEX("30320000 0600 0100 05000000 00000000") + b"hello"
_PROMPT = _HEX("31320000 0600 0100 04000000 08000000") + b"(b)?"
_ANSWER = _HEX("31320000 0600 0100 04000000 01000000") + b"b"
_TRACE = _HEX("30330000 0600 0100 03000000") + bytes(52) + b"etw"
_CONTROL = _HEX("00430000 02000000 01000000")


def test_numbers_of_the_reference() -> None:
    assert [int(api) for api in DebugIoApi] == [0x3230, 0x3231, 0x3330, 0x4300, 0x4301]


def test_messages_are_these_bytes() -> None:
    assert PrintString(6, 1, b"hello").encode() == _PRINT
    assert GetString(6, 1, b"(b)?", 8).encode() == _PROMPT
    assert GetStringReply(6, 1, 4, b"b").encode() == _ANSWER
    assert TraceIo(6, 1, b"etw").encode() == _TRACE
    assert ControlRequest(0x4300, 2, 1).encode() == _CONTROL


def test_these_bytes_are_the_messages() -> None:
    assert decode_debug_io(_PRINT) == PrintString(6, 1, b"hello")
    assert decode_debug_io(_PROMPT) == GetString(6, 1, b"(b)?", 8)
    assert GetStringReply.decode(_ANSWER) == GetStringReply(6, 1, 4, b"b")
    assert TraceIo.decode(_TRACE) == TraceIo(6, 1, b"etw")
    assert ControlRequest.decode(_CONTROL) == ControlRequest(0x4300, 2, 1)


def test_a_boot_debugger_s_prints(captured: list[Captured]) -> None:
    prints = [packet for packet in captured if packet.packet_type == 3]
    assert len(prints) == 7
    for packet in prints:
        said = packet.params
        message = decode_debug_io(packet.payload)
        assert message == PrintString(said["processor_level"], said["processor"], said["text"].encode("latin-1"))
        # The last word of the header is garbage of its stack (kd-protocol 4.1); ours is zero.
        assert message.encode() == packet.payload[:12] + bytes(4) + packet.payload[16:]
    first = decode_debug_io(prints[0].payload)
    assert isinstance(first, PrintString) and first.text == b"BD: Boot Debugger Initialized\n"


def test_old_stubs_print_behind_a_header_of_twelve_bytes() -> None:
    assert decode_debug_io(_HEX("30320000 0000 0000 05000000") + b"hello") == PrintString(0, 0, b"hello")
    assert decode_debug_io(_HEX("30320000 0000 0000 00000000")) == PrintString(0, 0, b"")


def test_what_lies_behind_a_text_is_not_the_text() -> None:
    assert decode_debug_io(_PRINT + b"rest") == PrintString(6, 1, b"hello")
    assert decode_debug_io(_PROMPT + b"rest") == GetString(6, 1, b"(b)?", 8)
    assert GetStringReply.decode(_ANSWER + b"rest").text == b"b"
    assert TraceIo.decode(_TRACE + b"rest").data == b"etw"


@pytest.mark.parametrize(("room", "text"), [(0, b""), (1, b"b"), (2, b"bo"), (512, b"boipt")])
def test_an_answer_is_cut_to_the_room_for_it(room: int, text: bytes) -> None:
    answer = GetString(6, 3, b"Break? ", room).answer(b"boipt")
    assert answer == GetStringReply(6, 3, 7, text)


@given(_U16, _U16, _TEXT, _U32, _U32)
def test_any_message_survives_the_wire(level: int, processor: int, text: bytes, number: int, other: int) -> None:
    for message in (PrintString(level, processor, text), GetString(level, processor, text, number)):
        assert decode_debug_io(message.encode()) == message
    reply = GetStringReply(level, processor, number, text)
    assert GetStringReply.decode(reply.encode()) == reply
    trace = TraceIo(level, processor, text)
    assert TraceIo.decode(trace.encode()) == trace
    control = ControlRequest(other, number, level)
    assert ControlRequest.decode(control.encode()) == control


@pytest.mark.parametrize(
    ("decode", "payload", "least"),
    [
        (decode_debug_io, _PRINT, 12),
        (decode_debug_io, _PROMPT, 16),
        (GetStringReply.decode, _ANSWER, 16),
        (TraceIo.decode, _TRACE, 64),
        (ControlRequest.decode, _CONTROL, 12),
    ],
)
def test_every_truncation_is_a_message_or_the_peer_s_mistake(
    decode: Callable[[bytes], object], payload: bytes, least: int
) -> None:
    for size in range(least):
        with pytest.raises(RemoteProtocolError):
            decode(payload[:size])
    for size in range(least, len(payload)):
        decode(payload[:size])


@given(st.binary(max_size=80), st.sampled_from([b"", _PRINT[:4], _PROMPT[:4], _TRACE[:4]]))
def test_any_bytes_are_a_message_or_the_peer_s_mistake(rest: bytes, api: bytes) -> None:
    for decode in (decode_debug_io, GetStringReply.decode, TraceIo.decode, ControlRequest.decode):
        try:
            message = decode(api + rest)
        except RemoteProtocolError:
            continue
        assert decode(message.encode()) == message, "what was understood is said again in the same words"


@pytest.mark.parametrize("decode", [decode_debug_io, GetStringReply.decode, TraceIo.decode])
def test_an_unknown_number_is_the_peer_s_mistake_and_named(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(RemoteProtocolError, match="0x3232"):
        decode(_HEX("32320000") + bytes(80))
