"""What a bug check's parameters point to: how much of it is worth reading, by the kind of each parameter."""

from __future__ import annotations

from kdbridge.discovery.notes import try_read
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE
from protocol.bugcheck import ParameterKind, bug_check, parameters_of

from .plan import VirtualRange

__all__ = ["bug_check_ranges", "is_kernel_address"]

_SIZES: dict[ParameterKind, int] = {
    ParameterKind.ADDRESS: 0x100,
    ParameterKind.CODE_ADDRESS: 0x100,
    ParameterKind.EXCEPTION_RECORD: 0x98,
    ParameterKind.CONTEXT_RECORD: 0x4D0,
    ParameterKind.TRAP_FRAME: 0x190,
    ParameterKind.THREAD: 0x800,
    ParameterKind.PROCESS: 0xA00,
    ParameterKind.OBJECT: 0x200,
    ParameterKind.DEVICE_OBJECT: 0x150,
    ParameterKind.DRIVER_OBJECT: 0x150,
    ParameterKind.IRP: 0x400,
    ParameterKind.MDL: 0x100,
    ParameterKind.UNICODE_STRING: 0x10,
    ParameterKind.RESERVED: 0x100,
    ParameterKind.VALUE: 0x100,
}
"""Bytes at the address, in the structures of x64 (CONTEXT and trap frame: dump-formats 1.5; others: room enough)."""

_PLACES: dict[ParameterKind, tuple[int, int]] = {
    ParameterKind.CONTEXT_RECORD: (0xF8, 0x98),
    ParameterKind.TRAP_FRAME: (0x168, 0x180),
}
"""Where rip and rsp stand in it (x64)."""

_SAVED_CODE, _SAVED_STACK = 0x100, 0x1000


def is_kernel_address(value: int) -> bool:
    """Whether it may point to memory of the kernel half (x64)."""
    return value >> 47 == 0x1FFFF


async def bug_check_ranges(source: Source, target: Target) -> list[VirtualRange]:
    """The structures that the parameters point to, and the code and stack that a saved context in them names."""
    found: list[VirtualRange] = []
    values = target.bug_check_parameters
    meanings = parameters_of(bug_check(target.bug_check_code or 0), values)
    for value, meaning in zip(values, meanings, strict=True):
        kind = meaning.kind
        size = _SIZES.get(kind, 0)
        if not size or not is_kernel_address(value):
            continue
        found.append(VirtualRange(value, size))
        if kind in _PLACES:
            data = await try_read(source, value, size)
            places = [0, 0] if data is None else [int.from_bytes(data[at : at + 8], "little") for at in _PLACES[kind]]
            for place, amount in zip(places, (_SAVED_CODE, _SAVED_STACK), strict=True):
                if is_kernel_address(place):
                    found.append(VirtualRange(place, min(amount, PAGE_SIZE)))
    return found
