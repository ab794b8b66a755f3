"""Entries of page tables that are not valid: pages that are in memory all the same, and entries that only look so."""

from __future__ import annotations

import random

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .paging import PageTables, PteFlag
from .space import KernelSpace

__all__ = ["lay_transition"]

_READ_WRITE = 4 << 5
"""MM_READWRITE in the protection field."""

_NO_MEMORY = 0xC0000
"""A frame of device memory."""


def lay_transition(space: KernelSpace, tables: PageTables, address: int, count: int, rng: random.Random) -> None:
    """`count` pages with data from `address` on, each in transition; behind them entries that hold no page.

    Those are in the page file or prototypes, though where others hold a frame's number they hold one too, of a page
    that nobody has any more; one is in transition to what is no memory.
    """
    if not count:
        return

    def page() -> int:
        frame = space.frames.allocate()
        while frame in space.covered:
            frame = space.frames.allocate()
        space.image.write(frame << PAGE_SHIFT, rng.randbytes(PAGE_SIZE))
        return frame << PAGE_SHIFT

    for number in range(count):
        tables.set_entry(address + number * PAGE_SIZE, page() | PteFlag.TRANSITION | _READ_WRITE)
    place = address + (count + 1) * PAGE_SIZE
    for value in (
        page() | _READ_WRITE,  # page file
        page() | PteFlag.PROTOTYPE | _READ_WRITE,
        page() | PteFlag.PROTOTYPE | PteFlag.TRANSITION | _READ_WRITE,
        _NO_MEMORY << PAGE_SHIFT | PteFlag.TRANSITION | _READ_WRITE,
        _READ_WRITE,  # demand zero
    ):
        tables.set_entry(place, value)
        place += PAGE_SIZE
