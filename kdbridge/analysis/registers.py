"""Registers that a broken machine kept somewhere: a CONTEXT, a trap frame, an exception record. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbridge.discovery.notes import try_read
from kdbridge.source import Source
from protocol.address import format_address
from protocol.arch import Architecture, MachineType
from protocol.dumpfile.exception import ExceptionRecord
from protocol.errors import DumpFormatError
from protocol.layouts.trap_frame import (
    KTRAP_FRAME32,
    KTRAP_FRAME64,
    TRAP_FRAME_REGISTERS,
    TRAP_FRAME_REGISTERS32,
)
from protocol.structure import Structure

__all__ = [
    "Registers",
    "bad_pointer",
    "find_trap_frame",
    "known_of",
    "read_context",
    "read_exception_record",
    "read_trap_frame",
]

_CONTROL, _INTEGER = 1, 2
"""Bits of ContextFlags, the same on every architecture (kd-protocol 5.1 to 5.3)."""
_TRAP_FRAMES = {MachineType.AMD64: KTRAP_FRAME64, MachineType.I386: KTRAP_FRAME32}
_KERNEL_CODE, _KERNEL_STACKS, _USER_CODE, _USER_STACK = 0x10, (0x18, 0), (0x33, 0x23), 0x2B
_KERNEL_CODE32, _KERNEL_STACK32, _USER_CODE32, _USER_STACK32 = 0x08, 0x10, 0x1B, 0x23
_ALWAYS_SET, _NEVER_SET = 1 << 1, 0xFFC0_8028
"""Bits of EFLAGS that are 1 and 0 on every processor."""
_CHUNK = 0x400
_LARGEST_SEARCH = 0x6000
"""Bytes of stack: a kernel stack has so many."""


@dataclass(frozen=True, slots=True)
class Registers:
    """A CONTEXT, and which registers in it are real."""

    context: Structure
    known: frozenset[str]


def bad_pointer(architecture: Architecture, address: int) -> str:
    """What is wrong with an address that should lie in the kernel; empty: nothing."""
    if not address:
        return "the pointer is null"
    if not architecture.paging.is_canonical(address):
        return f"{format_address(address)} is not canonical"
    if not architecture.is_kernel_address(address):
        return f"{format_address(address)} is no kernel address"
    return ""


def known_of(architecture: Architecture, context: Structure) -> frozenset[str]:
    """The registers that a CONTEXT holds, by its flags."""
    names = {architecture.program_counter, architecture.stack_pointer, architecture.flags_register}
    if context[architecture.context_flags] & _INTEGER:
        names.update(name for line in architecture.display for name in line)
    return frozenset(name for name in names if context.has(name))


async def read_context(source: Source, architecture: Architecture, address: int) -> Registers | str:
    """The CONTEXT at this address, or why there is none."""
    if why := bad_pointer(architecture, address):
        return why
    data = await try_read(source, address, architecture.context.size)
    if data is None:
        return f"the memory at {format_address(address)} cannot be read"
    context = architecture.context.decode(data)
    flags, base = context[architecture.context_flags], architecture.context_flags_base
    if flags & base != base or not flags & _CONTROL:
        return f"at {format_address(address)} lies no CONTEXT: its flags are {flags:#x}"
    for name in (architecture.program_counter, architecture.stack_pointer):
        if not architecture.paging.is_canonical(context[name]):
            return f"at {format_address(address)} lies no CONTEXT: its {name} is {format_address(context[name])}"
    return Registers(context, known_of(architecture, context))


async def read_trap_frame(source: Source, architecture: Architecture, address: int) -> Registers | str:
    """The KTRAP_FRAME at this address as a CONTEXT, or why there is none. Of x64 and x86."""
    layout = _TRAP_FRAMES.get(architecture.machine_type)
    if layout is None:
        return f"trap frames of {architecture.name} are not read"
    if why := bad_pointer(architecture, address):
        return why
    data = await try_read(source, address, layout.size)
    if data is None:
        return f"the memory at {format_address(address)} cannot be read"
    frame = layout.decode(data)
    if not _believable(architecture, frame):
        return f"at {format_address(address)} lies no trap frame: what it has of registers does not fit together"
    names = TRAP_FRAME_REGISTERS if layout is KTRAP_FRAME64 else TRAP_FRAME_REGISTERS32
    values = {name: frame[name] for name in names}
    if layout is KTRAP_FRAME32 and frame["seg_cs"] == _KERNEL_CODE32:
        values |= {"esp": address + layout.offset_of("esp"), "seg_ss": _KERNEL_STACK32}
    values[architecture.context_flags] = architecture.context_flags_base | _CONTROL | _INTEGER
    return Registers(architecture.context.decode(architecture.context.encode(values)), frozenset(names))


def _believable(architecture: Architecture, frame: Structure) -> bool:
    canonical = architecture.paging.is_canonical
    flags, code, stack = frame["e_flags"], frame["seg_cs"], frame["seg_ss"]
    if not flags & _ALWAYS_SET or flags & _NEVER_SET:
        return False
    if architecture.machine_type is MachineType.I386:
        return code == _KERNEL_CODE32 or (code, stack) == (_USER_CODE32, _USER_STACK32)
    if not canonical(frame["rip"]) or not canonical(frame["rsp"]):
        return False
    if code == _KERNEL_CODE:
        return stack in _KERNEL_STACKS and architecture.is_kernel_address(frame["rsp"])
    return code in _USER_CODE and stack == _USER_STACK


async def find_trap_frame(
    source: Source, architecture: Architecture, start: int, wanted: Callable[[Structure], bool], value: int, field: str
) -> int | None:
    """The first trap frame on the stack that begins at `start` whose `field` has this value and that is wanted.

    Reads upwards, a little at a time: what is looked for mostly lies near.
    """
    layout = _TRAP_FRAMES.get(architecture.machine_type)
    if layout is None or field not in layout.fields or bad_pointer(architecture, start):
        return None
    width, offset = architecture.pointer_size, layout.offset_of(field)
    needle = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    at, end = start & -width, min(start + _LARGEST_SEARCH, 1 << 64)
    while at < end:
        size = min(_CHUNK - at % _CHUNK, end - at)
        data = await try_read(source, at, size)
        if data is None:
            return None
        for found in range(0, len(data) - width + 1, width):
            if data[found : found + width] != needle:
                continue
            frame = await try_read(source, at + found - offset, layout.size)
            if frame is not None:
                decoded = layout.decode(frame)
                if _believable(architecture, decoded) and wanted(decoded):
                    return at + found - offset
        at += size
    return None


async def read_exception_record(source: Source, architecture: Architecture, address: int) -> ExceptionRecord | str:
    """The EXCEPTION_RECORD at this address, or why there is none."""
    if why := bad_pointer(architecture, address):
        return why
    wide = architecture.pointer_size == 8
    data = await try_read(source, address, 0x98 if wide else 0x50)
    if data is None:
        return f"the memory at {format_address(address)} cannot be read"
    try:
        record = ExceptionRecord.decode(data, 64 if wide else 32)
    except DumpFormatError as error:
        return f"at {format_address(address)} lies no exception record: {error}"
    if not record.code:
        return f"at {format_address(address)} lies no exception record: its code is 0"
    return record
