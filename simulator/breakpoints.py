"""The target's own breakpoints: 32 slots that outlive a debugger, and what lies under each (kd-protocol 3.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.arch import AMD64

__all__ = ["MOST_BREAKPOINTS", "Breakpoints"]

MOST_BREAKPOINTS = 32
"""Slots; handles are 1 to 32 (T21)."""


@dataclass(slots=True)
class _Breakpoint:
    address: int
    original: bytes | None
    """None: the page was not there; the breakpoint waits for it."""


class Breakpoints:
    """The table, over memory that is read and written by virtual address."""

    __slots__ = ("_entries", "_read", "_write")

    def __init__(self, read: Callable[[int, int], bytes], write: Callable[[int, bytes], int]) -> None:
        """`read` gives what is there, `write` the number of bytes written."""
        self._read = read
        self._write = write
        self._entries: dict[int, _Breakpoint] = {}

    def insert(self, address: int) -> int:
        """A handle, or 0: the address has one already, or all slots are in use (T21, T22)."""
        free = next((n for n in range(1, MOST_BREAKPOINTS + 1) if n not in self._entries), 0)
        if not free or any(entry.address == address for entry in self._entries.values()):
            return 0
        entry = _Breakpoint(address, None)
        self._entries[free] = entry
        self._put(entry)
        return free

    def remove(self, handle: int) -> bool:
        """Give the original byte back; False where the slot is empty. A page that is gone is no failure (T23)."""
        entry = self._entries.pop(handle, None)
        if entry is None:
            return False
        if entry.original is not None:
            self._write(entry.address, entry.original)
        return True

    def remove_window(self, start: int, size: int) -> None:
        """Before a report: those in the bytes that it shows are gone for good (T20)."""
        for handle, entry in list(self._entries.items()):
            if start <= entry.address < start + size:
                self.remove(handle)

    def insert_owed(self) -> None:
        """Put in those whose page was not there when they were asked for, and is now."""
        for entry in self._entries.values():
            if entry.original is None:
                self._put(entry)

    def _put(self, entry: _Breakpoint) -> None:
        original = self._read(entry.address, 1)
        if original and self._write(entry.address, AMD64.break_instruction):
            entry.original = original
