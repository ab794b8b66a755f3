"""DBGKD_ANY_WAIT_STATE_CHANGE: why a target stopped, or what it just loaded (kd-protocol 2)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import TypeAlias

from .errors import RemoteProtocolError

__all__ = [
    "FIXED_SIZE",
    "HIBERNATE_BASE",
    "KERNEL_PROCESS_ID",
    "REBOOT_BASE",
    "Amd64ControlReport",
    "CommandString",
    "ExceptionChange",
    "LoadSymbols",
    "NewState",
    "StateChange",
    "StateChangeEvent",
]

FIXED_SIZE = 0xF0
_REPORT_AT = 0xC0
_UNION_AT = 0x20
_HEAD = struct.Struct("<IHHI4xQQ")
_EXCEPTION = struct.Struct("<IIQQI4x15QI4x")
_LOAD = struct.Struct("<I4xQQIIB7x")
_COMMAND = struct.Struct("<II")
_AMD64_REPORT = struct.Struct("<QQIHH16sHHHH")
assert _HEAD.size == _UNION_AT
assert _EXCEPTION.size == 0xA0
assert _AMD64_REPORT.size == 0x30

REBOOT_BASE = (1 << 64) - 1
HIBERNATE_BASE = (1 << 64) - 2
"""BaseOfDll of an unload notification that means: everything is gone, the machine restarts or hibernates (T57)."""

KERNEL_PROCESS_ID = (1 << 64) - 1
_LONGEST_PATH = 0x1000


class NewState(enum.IntEnum):
    """What kind of state change it is."""

    EXCEPTION = 0x3030
    LOAD_SYMBOLS = 0x3031
    COMMAND_STRING = 0x3032


@dataclass(frozen=True, slots=True)
class ExceptionChange:
    """The target stopped on an exception. Its address may be PC - 1: trust the program counter (T31)."""

    code: int
    flags: int
    record: int
    address: int
    parameters: tuple[int, ...]
    first_chance: bool


@dataclass(frozen=True, slots=True)
class LoadSymbols:
    """An image was loaded or unloaded; the target waits to be continued."""

    path: str
    base: int
    process_id: int
    check_sum: int
    size_of_image: int
    unload: bool

    @property
    def target_is_leaving(self) -> bool:
        """All symbols unloaded at once: the machine reboots or hibernates (T57)."""
        return self.unload and self.base in (REBOOT_BASE, HIBERNATE_BASE)


@dataclass(frozen=True, slots=True)
class CommandString:
    """The target asks the debugger to run a command. We show it, and never run it."""

    name: str
    command: str


StateChangeEvent: TypeAlias = ExceptionChange | LoadSymbols | CommandString


@dataclass(frozen=True, slots=True)
class Amd64ControlReport:
    """AMD64's control report: debug registers, flags, and the code at the program counter (kd-protocol 2.5)."""

    dr6: int
    dr7: int
    e_flags: int
    instruction_count: int
    report_flags: int
    instruction_stream: bytes
    seg_cs: int
    seg_ds: int
    seg_es: int
    seg_fs: int

    @classmethod
    def decode(cls, report: bytes) -> Amd64ControlReport:
        """From the 48 bytes at C0."""
        return cls(*_AMD64_REPORT.unpack(report[: _AMD64_REPORT.size].ljust(_AMD64_REPORT.size, b"\0")))

    def encode(self) -> bytes:
        """The 48 bytes at C0."""
        return _AMD64_REPORT.pack(
            self.dr6,
            self.dr7,
            self.e_flags,
            self.instruction_count,
            self.report_flags,
            self.instruction_stream,
            self.seg_cs,
            self.seg_ds,
            self.seg_es,
            self.seg_fs,
        )


@dataclass(frozen=True, slots=True)
class StateChange:
    """A state change, protocol version 6. Processor fields may be garbage; never index by them."""

    processor_level: int
    processor: int
    number_processors: int
    thread: int
    program_counter: int
    event: StateChangeEvent
    control_report: bytes = field(default=bytes(0x30), repr=False)
    raw: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def decode(cls, payload: bytes) -> StateChange:
        """Raises RemoteProtocolError for what no target of protocol version 6 sends."""
        if len(payload) < FIXED_SIZE:
            raise RemoteProtocolError(
                f"a state change of {len(payload)} bytes came where protocol 6 has {FIXED_SIZE}: "
                "the target is older than Windows XP, or the packet is damaged"
            )
        new_state, level, processor, count, thread, pc = _HEAD.unpack_from(payload)
        extra = payload[FIXED_SIZE:]
        event: StateChangeEvent
        kind = new_state & 0xFFFF
        if kind == NewState.EXCEPTION:
            fields = _EXCEPTION.unpack_from(payload, _UNION_AT)
            code, flags, record, address, parameter_count = fields[:5]
            event = ExceptionChange(
                code, flags, record, address, tuple(fields[5 : 5 + min(parameter_count, 15)]), bool(fields[20])
            )
        elif kind == NewState.LOAD_SYMBOLS:
            length, base, process_id, check_sum, size, unload = _LOAD.unpack_from(payload, _UNION_AT)
            path = extra[: min(length, _LONGEST_PATH)].split(b"\0")[0].decode("latin-1")
            event = LoadSymbols(path, base, process_id, check_sum, size, bool(unload))
        elif kind == NewState.COMMAND_STRING:
            name, _, rest = extra.partition(b"\0")
            event = CommandString(name.decode("latin-1"), rest.split(b"\0")[0].decode("latin-1"))
        else:
            raise RemoteProtocolError(f"the target reported state {new_state:#x}, which nobody documented")
        return cls(level, processor, count, thread, pc, event, payload[_REPORT_AT:FIXED_SIZE], payload)

    def encode(self) -> bytes:
        """The payload of a type 7 packet. What the union does not use is zero."""
        extra = b""
        if isinstance(self.event, ExceptionChange):
            kind = NewState.EXCEPTION
            event = self.event
            parameters = (*event.parameters, *[0] * 15)[:15]
            union = _EXCEPTION.pack(
                event.code,
                event.flags,
                event.record,
                event.address,
                len(event.parameters),
                *parameters,
                int(event.first_chance),
            )
        elif isinstance(self.event, LoadSymbols):
            kind = NewState.LOAD_SYMBOLS
            image = self.event
            extra = image.path.encode("latin-1", "replace") + b"\0" if image.path else b""
            union = _LOAD.pack(
                len(extra), image.base, image.process_id, image.check_sum, image.size_of_image, int(image.unload)
            )
        else:
            kind = NewState.COMMAND_STRING
            union = _COMMAND.pack(0, 0)
            extra = (
                self.event.name.encode("latin-1", "replace")[:127]
                + b"\0"
                + self.event.command.encode("latin-1", "replace")
                + b"\0"
            )
        head = _HEAD.pack(
            kind, self.processor_level, self.processor, self.number_processors, self.thread, self.program_counter
        )
        return head + union.ljust(0xA0, b"\0") + self.control_report.ljust(0x30, b"\0")[:0x30] + extra
