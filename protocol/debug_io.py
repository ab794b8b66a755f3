"""Debug prints and prompts, trace buffers and control requests: what a target says unasked (kd-protocol 4)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from .errors import RemoteProtocolError

__all__ = [
    "ControlRequest",
    "DebugIoApi",
    "GetString",
    "GetStringReply",
    "PrintString",
    "TraceIo",
    "decode_debug_io",
]

_HEADER = struct.Struct("<IHHII")
_SHORT_HEADER = struct.Struct("<IHHI")
_TRACE = struct.Struct("<IHHI52x")
_CONTROL = struct.Struct("<III")
assert _HEADER.size == 16
assert _TRACE.size == 64


class DebugIoApi(enum.IntEnum):
    """ApiNumber of DEBUG_IO, TRACE_IO and CONTROL_REQUEST packets."""

    PRINT_STRING = 0x3230
    GET_STRING = 0x3231
    PRINT_TRACE = 0x3330
    REQUEST_HARDWARE_BREAK_POINT = 0x4300
    RELEASE_HARDWARE_BREAK_POINT = 0x4301


@dataclass(frozen=True, slots=True)
class PrintString:
    """A debug print. The text is 8-bit and not terminated."""

    processor_level: int
    processor: int
    text: bytes

    def encode(self) -> bytes:
        """The payload of a type 3 packet."""
        head = _HEADER.pack(DebugIoApi.PRINT_STRING, self.processor_level, self.processor, len(self.text), 0)
        return head + self.text


@dataclass(frozen=True, slots=True)
class GetString:
    """A prompt: the target does nothing else until it is answered (T19)."""

    processor_level: int
    processor: int
    prompt: bytes
    longest_answer: int

    def encode(self) -> bytes:
        """The payload of a type 3 packet."""
        head = _HEADER.pack(
            DebugIoApi.GET_STRING, self.processor_level, self.processor, len(self.prompt), self.longest_answer
        )
        return head + self.prompt

    def answer(self, text: bytes) -> GetStringReply:
        """The answer, cut to what the target has room for."""
        return GetStringReply(self.processor_level, self.processor, len(self.prompt), text[: self.longest_answer])


@dataclass(frozen=True, slots=True)
class GetStringReply:
    """The host's answer to a prompt, without a NUL."""

    processor_level: int
    processor: int
    prompt_length: int
    text: bytes

    def encode(self) -> bytes:
        """The payload of a type 3 packet."""
        head = _HEADER.pack(
            DebugIoApi.GET_STRING, self.processor_level, self.processor, self.prompt_length, len(self.text)
        )
        return head + self.text

    @classmethod
    def decode(cls, payload: bytes) -> GetStringReply:
        """At the target. Raises RemoteProtocolError."""
        if len(payload) < _HEADER.size:
            raise RemoteProtocolError(f"an answer to a prompt of {len(payload)} bytes came; its header has 16")
        api, level, processor, prompt_length, length = _HEADER.unpack_from(payload)
        if api != DebugIoApi.GET_STRING:
            raise RemoteProtocolError(f"debug I/O {api:#x} came where the answer to a prompt was due")
        return cls(level, processor, prompt_length, payload[_HEADER.size : _HEADER.size + length])


def decode_debug_io(payload: bytes) -> PrintString | GetString:
    """What a target sent as type 3; some stubs' prints have a header of 12 bytes (T52). RemoteProtocolError."""
    if len(payload) < _SHORT_HEADER.size:
        raise RemoteProtocolError(f"a debug print of {len(payload)} bytes came; its header alone has 16")
    api, level, processor, length = _SHORT_HEADER.unpack_from(payload)
    if api == DebugIoApi.PRINT_STRING:
        start = _HEADER.size if len(payload) >= _HEADER.size + length else _SHORT_HEADER.size
        return PrintString(level, processor, payload[start : start + length])
    if api == DebugIoApi.GET_STRING and len(payload) >= _HEADER.size:
        longest = _HEADER.unpack_from(payload)[4]
        return GetString(level, processor, payload[_HEADER.size : _HEADER.size + length], longest)
    raise RemoteProtocolError(f"debug I/O with the unknown number {api:#x} came")


@dataclass(frozen=True, slots=True)
class TraceIo:
    """An ETW buffer; acknowledged and dropped."""

    processor_level: int
    processor: int
    data: bytes

    def encode(self) -> bytes:
        """The payload of a type 9 packet."""
        return _TRACE.pack(DebugIoApi.PRINT_TRACE, self.processor_level, self.processor, len(self.data)) + self.data

    @classmethod
    def decode(cls, payload: bytes) -> TraceIo:
        """Raises RemoteProtocolError."""
        if len(payload) < _TRACE.size:
            raise RemoteProtocolError(f"a trace packet of {len(payload)} bytes came; its header has {_TRACE.size}")
        api, level, processor, length = _TRACE.unpack_from(payload)
        if api != DebugIoApi.PRINT_TRACE:
            raise RemoteProtocolError(f"trace I/O with the unknown number {api:#x} came")
        return cls(level, processor, payload[_TRACE.size : _TRACE.size + length])


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """The target asks for a hardware breakpoint register, or gives it back. Never seen on a wire, reply unknown."""

    api: int
    hardware_breakpoint_number: int
    available: int

    def encode(self) -> bytes:
        """The payload of a type 10 packet."""
        return _CONTROL.pack(self.api, self.hardware_breakpoint_number, self.available)

    @classmethod
    def decode(cls, payload: bytes) -> ControlRequest:
        """Raises RemoteProtocolError."""
        if len(payload) < _CONTROL.size:
            raise RemoteProtocolError(f"a control request of {len(payload)} bytes came; it has {_CONTROL.size}")
        return cls(*_CONTROL.unpack_from(payload))
