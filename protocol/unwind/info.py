"""RUNTIME_FUNCTION and UNWIND_INFO, versions 1 and 2 (Microsoft Learn: "x64 exception handling")."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = [
    "LONGEST_CHAIN",
    "REGISTERS",
    "RUNTIME_FUNCTION_SIZE",
    "UNWIND_HEAD_SIZE",
    "RuntimeFunction",
    "UnwindCode",
    "UnwindFlag",
    "UnwindInfo",
    "UnwindOperation",
    "parse_runtime_function",
    "parse_unwind_info",
    "unwind_codes_end",
    "unwind_info_size",
]

REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
"""By the numbers that unwind codes (and instructions) use."""

RUNTIME_FUNCTION_SIZE = 12
UNWIND_HEAD_SIZE = 4

LONGEST_CHAIN = 32
"""More links of chained unwind data than this are not followed."""

_ROW = struct.Struct("<III")


class UnwindFlag(enum.IntFlag):
    """UNW_FLAG_…: what follows the unwind codes."""

    EHANDLER = 1
    UHANDLER = 2
    CHAININFO = 4


class UnwindOperation(enum.IntEnum):
    """UWOP_…"""

    PUSH_NONVOL = 0
    ALLOC_LARGE = 1
    ALLOC_SMALL = 2
    SET_FPREG = 3
    SAVE_NONVOL = 4
    SAVE_NONVOL_FAR = 5
    EPILOG = 6
    """Version 1 never had it: there it was the first UWOP_SAVE_XMM."""
    SPARE = 7
    SAVE_XMM128 = 8
    SAVE_XMM128_FAR = 9
    PUSH_MACHFRAME = 10


_SLOTS = {
    UnwindOperation.SAVE_NONVOL: 2,
    UnwindOperation.SAVE_NONVOL_FAR: 3,
    UnwindOperation.SAVE_XMM128: 2,
    UnwindOperation.SAVE_XMM128_FAR: 3,
}
"""16-bit units that a code takes, where it is not one."""


@dataclass(frozen=True, slots=True)
class RuntimeFunction:
    """A row of .pdata, in RVAs: `begin` to (not including) `end`, and where the unwind data lies."""

    begin: int
    end: int
    unwind_data: int

    @property
    def indirect(self) -> bool:
        """RUNTIME_FUNCTION_INDIRECT: in the place of unwind data lies the row of the function that this is a part of.

        That row's address is `unwind_data` without the lowest bit.
        """
        return bool(self.unwind_data & 1)


@dataclass(frozen=True, slots=True)
class UnwindCode:
    """What one instruction of a prolog did. `offset` is that of the next instruction, from the part's beginning.

    `info` is a register's number, or what else the operation keeps there; `operand` is in bytes.
    """

    offset: int
    operation: UnwindOperation
    info: int
    operand: int = 0


@dataclass(frozen=True, slots=True)
class UnwindInfo:
    """Unwind data of (a part of) a function. `codes` are in the order in which they are undone."""

    version: int
    flags: UnwindFlag
    prolog_size: int
    frame_register: int
    """0: none."""
    frame_offset: int
    """Bytes from where rsp was to where the frame register points."""
    codes: tuple[UnwindCode, ...]
    slots: int
    """CountOfCodes."""
    chained: RuntimeFunction | None
    """What it goes on with; only with UNW_FLAG_CHAININFO."""
    handler: int
    """RVA of the language's handler; only with UNW_FLAG_EHANDLER or UNW_FLAG_UHANDLER."""

    def epilogs(self, function: RuntimeFunction) -> Iterator[tuple[int, int]]:
        """(RVA, size in bytes) of each epilog that version 2 declares, as far as they lie in `function`."""
        declared = [code for code in self.codes if code.operation is UnwindOperation.EPILOG]
        if self.version != 2 or not declared:
            return
        size = declared[0].offset
        places = [size] if declared[0].info & 1 else []
        places += [code.offset | code.info << 8 for code in declared[1:]]
        for from_end in places:
            if 0 < from_end <= function.end - function.begin:
                yield function.end - from_end, size


def parse_runtime_function(data: bytes, address: int | None = None) -> RuntimeFunction:
    """The row. Raises LayoutError when there are fewer than 12 bytes."""
    if len(data) < RUNTIME_FUNCTION_SIZE:
        raise LayoutError("RUNTIME_FUNCTION", f"only {len(data)} of {RUNTIME_FUNCTION_SIZE} bytes are there", address)
    return RuntimeFunction(*_ROW.unpack_from(data))


def unwind_codes_end(head: bytes, address: int | None = None) -> int:
    """Bytes of the unwind data of which these are the first four, to the end of its codes.

    Raises LayoutError when there are fewer.
    """
    if len(head) < UNWIND_HEAD_SIZE:
        raise LayoutError("UNWIND_INFO", f"only {len(head)} of {UNWIND_HEAD_SIZE} bytes are there", address)
    return UNWIND_HEAD_SIZE + 2 * (head[2] + 1 & ~1)


def unwind_info_size(head: bytes, address: int | None = None) -> int:
    """The same, to the end of what `parse_unwind_info` needs."""
    size = unwind_codes_end(head, address)
    flags = UnwindFlag(head[0] >> 3)
    if flags & UnwindFlag.CHAININFO:
        return size + RUNTIME_FUNCTION_SIZE
    return size + 4 if flags & (UnwindFlag.EHANDLER | UnwindFlag.UHANDLER) else size


def parse_unwind_info(data: bytes, address: int | None = None) -> UnwindInfo:
    """The unwind data; `data` may be longer. LayoutError where it is neither version 1 nor 2, or a code is not one."""
    size = unwind_info_size(data, address)
    if len(data) < size:
        raise LayoutError("UNWIND_INFO", f"only {len(data)} of {size} bytes are there", address)
    version, flags = data[0] & 7, UnwindFlag(data[0] >> 3)
    if version not in (1, 2):
        raise LayoutError("UNWIND_INFO", f"version {version} is not known", address)
    count = data[2]
    words = struct.unpack_from(f"<{count}H", data, UNWIND_HEAD_SIZE)
    tail = unwind_codes_end(data)
    chained = parse_runtime_function(data[tail:]) if flags & UnwindFlag.CHAININFO else None
    handled = chained is None and flags & (UnwindFlag.EHANDLER | UnwindFlag.UHANDLER)
    return UnwindInfo(
        version=version,
        flags=flags,
        prolog_size=data[1],
        frame_register=data[3] & 15,
        frame_offset=(data[3] >> 4) * 16,
        codes=tuple(_codes(words, version, address)),
        slots=count,
        chained=chained,
        handler=int.from_bytes(data[tail : tail + 4], "little") if handled else 0,
    )


def _codes(words: tuple[int, ...], version: int, address: int | None) -> Iterator[UnwindCode]:
    at = 0
    while at < len(words):
        offset, number, info = words[at] & 0xFF, words[at] >> 8 & 15, words[at] >> 12
        if number > UnwindOperation.PUSH_MACHFRAME:
            raise LayoutError("UNWIND_INFO", f"unwind operation {number} is not known", address)
        operation = UnwindOperation(number)
        slots = _slots(operation, info, version)
        extra = words[at + 1 : at + slots]
        if len(extra) < slots - 1:
            raise LayoutError("UNWIND_INFO", f"the last unwind code ({operation.name}) is cut off", address)
        yield UnwindCode(offset, operation, info, _operand(operation, info, extra))
        at += slots


def _slots(operation: UnwindOperation, info: int, version: int) -> int:
    if operation is UnwindOperation.ALLOC_LARGE:
        return 3 if info else 2
    if operation is UnwindOperation.EPILOG:
        return 1 if version == 2 else 2
    if operation is UnwindOperation.SPARE:
        return 2 if version == 2 else 3
    return _SLOTS.get(operation, 1)


def _operand(operation: UnwindOperation, info: int, extra: tuple[int, ...]) -> int:
    """Bytes that were allocated, or the offset at which something was saved."""
    if operation is UnwindOperation.ALLOC_SMALL:
        return info * 8 + 8
    if len(extra) == 2:
        return extra[0] | extra[1] << 16
    if len(extra) == 1:
        return extra[0] * (16 if operation is UnwindOperation.SAVE_XMM128 else 8)
    return 0
