"""Looking for return addresses on a stack that nothing explains: words that point behind a call in an image."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from protocol.address import PAGE_SIZE
from protocol.errors import LayoutError
from protocol.unwind.code import LONGEST_CALL, direct_target, is_behind_call

from .names import Names
from .unwind_data import UnwindTables

__all__ = ["Guess", "Scanner"]

_AT_ONCE = 0x80
_MOST = 0x18000
"""No kernel stack of x64 is larger."""
_KERNEL_CODE, _KERNEL_DATA, _USER_CODE, _USER_DATA = 0x10, 0x18, 0x33, 0x2B
_LEAST_USER = 0x10000
_STUBS = 0x10000
"""A driver built for retpoline calls stubs that Windows maps behind its image; so far behind it they are looked for."""
_FLAGS = 0x3F7FD7
"""Bits of rflags that exist; bit 1 always is set."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Where a caller, or what was interrupted, may stand, and the word on the stack that says so."""

    slot: int
    address: int
    stack_pointer: int
    seen: bool
    """The call before it was, or all of what a processor pushes. Else only its unwind data speak for it."""
    by_processor: bool = False
    """It was interrupted: `slot` begins a machine frame."""


class Scanner:
    """Guesses for one source."""

    def __init__(self, source: Source, names: Names, tables: UnwindTables) -> None:
        self._source = source
        self._names = names
        self._tables = tables

    async def next(self, start: int, end: int) -> Guess | None:
        """The first guess from the word at `start` on. None: there is none before `end`, or before unread memory."""
        at = start + 7 & ~7
        end = min(end, start + _MOST, 1 << 64)
        while at < end:
            size = min(_AT_ONCE, end - at, PAGE_SIZE - at % PAGE_SIZE) & ~7
            data = await try_read(self._source, at, size) if size else None
            if data is None and size > 8:
                data = await try_read(self._source, at, 8)
            if data is None:
                return None
            for offset in range(0, len(data), 8):
                guess = await self._at(at + offset, int.from_bytes(data[offset : offset + 8], "little"))
                if guess is not None:
                    return guess
            at += len(data)
        return None

    async def _at(self, slot: int, value: int) -> Guess | None:
        if self._names.image_of(value) is None and not _LEAST_USER <= value < 1 << 47:
            return None
        seen = await self.behind_call(value)
        if seen or (seen is None and await self._has_unwind_data(value)):
            machine = None if seen else await self.machine_frame(slot)
            return machine or Guess(slot, value, slot + 8, bool(seen))
        return await self.machine_frame(slot)

    async def machine_frame(self, slot: int) -> Guess | None:
        """What a processor pushes when it is interrupted, if these five words can be that (Intel SDM 3A, 6.14.2)."""
        selector = await try_read_pointer(self._source, slot + 8)
        if selector not in (_KERNEL_CODE, _USER_CODE):
            return None
        data = await try_read(self._source, slot, 40)
        if data is None:
            return None
        rip, code, flags, pointer, stack = struct.unpack("<5Q", data)
        if code == _KERNEL_CODE:
            possible = self._names.image_of(rip) is not None and pointer >> 47 == 0x1FFFF and stack in (0, _KERNEL_DATA)
        else:
            possible = _LEAST_USER <= rip < 1 << 47 and _LEAST_USER <= pointer < 1 << 47 and stack == _USER_DATA
        if not possible or flags & ~_FLAGS or not flags & 2 or pointer % 8:
            return None
        return Guess(slot, rip, pointer, seen=True, by_processor=True)

    async def behind_call(self, address: int) -> bool | None:
        """Whether the instruction before this address is a call in an image. None: its bytes do not tell.

        They cannot be read, or look like a call of what Windows maps behind a driver for its indirect calls.
        """
        image = self._names.image_of(address)
        if image is None or address - image.base < PAGE_SIZE:
            return False
        for size in (LONGEST_CALL, 5, 3, 2):
            code = await try_read(self._source, address - size, size)
            if code is None:
                continue
            if not is_behind_call(code):
                return False if size == LONGEST_CALL else None
            target = direct_target(code, address)
            # What looks like a direct call and goes to no image may still be an indirect one.
            if target is None or self._names.image_of(target) is not None or is_behind_call(b"\0" + code[-4:]):
                return True
            return None if 0 <= target - (image.base + image.size) < _STUBS else False
        return None

    async def may_return_to(self, address: int) -> bool:
        """Whether it is behind a call, or where nobody can tell, in a function that makes calls."""
        seen = await self.behind_call(address)
        return await self._has_unwind_data(address) if seen is None else seen

    async def _has_unwind_data(self, address: int) -> bool:
        """Whoever calls has unwind data: where that is there it knows."""
        image = self._names.image_of(address)
        if image is None:
            return False
        try:
            return await self._tables.function(image, address - 1) is not None
        except (MemoryFault, LayoutError):
            return True
