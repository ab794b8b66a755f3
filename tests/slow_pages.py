"""Which pages belong into a kernel or an active dump, worked out slowly: a witness that shares no code with any reader.

Every table of every root is looked into, entry by entry, as often as something leads to it. `read_page` gives the 4,096
bytes of a frame or None, `runs` are pairs of first frame and number of frames: what is not in them is no RAM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["Found", "active_pages", "database_locations", "kernel_pages", "look_through", "table_pages"]

_ENTRIES = 512
_USER_HALF = range(256)
_KERNEL_HALF = range(256, 512)


@dataclass
class Found:
    """Frames in RAM, by what led to them."""

    tables: set[int] = field(default_factory=set)
    leaves: set[int] = field(default_factory=set)
    transition: set[int] = field(default_factory=set)


class _Ram:
    """The frames that are RAM, as ranges: a set of them would have millions."""

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._runs = [range(base, base + count) for base, count in runs]

    def __contains__(self, pfn: int) -> bool:
        return any(pfn in run for run in self._runs)

    def __rand__(self, pfns: Iterable[int]) -> set[int]:
        return {pfn for pfn in pfns if pfn in self}


ReadPage = Callable[[int], bytes | None]
Runs = Iterable[tuple[int, int]]


def look_through(read_page: ReadPage, runs: Runs, root: int, slots: range) -> Found:
    """All that the tables below these entries of a root (a physical address) lead to."""
    ram = _Ram(runs)
    found = Found()
    _look_into(read_page, ram, root >> 12 & 0xFF_FFFF_FFFF, 4, slots, root >> 12 & 0xFF_FFFF_FFFF, found)
    return found


def _look_into(
    read_page: ReadPage, ram: _Ram, table: int, levels_left: int, slots: Iterable[int], root: int, found: Found
) -> None:
    if table not in ram:
        return
    found.tables.add(table)
    page = read_page(table)
    if page is None:
        return
    entries = struct.unpack("<512Q", page)
    for index in slots:
        entry = entries[index]
        pfn = entry // 4096 % 2**40 if entry & 1 else entry // 4096 % 2**36
        if not entry & 1:
            if levels_left == 1 and entry & 0x800 and not entry & 0x400 and pfn in ram:
                found.transition.add(pfn)
        elif levels_left == 1:
            found.leaves |= {pfn} & ram
        elif levels_left in (2, 3) and entry & 0x80:
            pages = 512 if levels_left == 2 else 512 * 512
            first = pfn - pfn % pages
            found.leaves |= set(range(first, first + pages)) & ram
        elif levels_left == 4 and pfn == root:
            continue  # the self map
        else:
            _look_into(read_page, ram, pfn, levels_left - 1, range(_ENTRIES), root, found)


def table_pages(read_page: ReadPage, runs: Runs, roots: Iterable[int]) -> set[int]:
    """Every page table of these roots, the roots themselves among them."""
    runs = list(runs)
    found: set[int] = set()
    for root in set(roots):
        found |= look_through(read_page, runs, root, range(_ENTRIES)).tables
    return found


def kernel_pages(read_page: ReadPage, runs: Runs, system_root: int, process_roots: Iterable[int]) -> set[int]:
    """What a kernel dump holds: all of every root's kernel half, and the tables alone of every user half."""
    runs = list(runs)
    pages: set[int] = set()
    for root in {system_root, *process_roots}:
        kernel = look_through(read_page, runs, root, _KERNEL_HALF)
        pages |= kernel.tables | kernel.leaves | kernel.transition
        pages |= look_through(read_page, runs, root, _USER_HALF).tables
    return pages


def active_pages(read_page: ReadPage, runs: Runs, system_root: int, process_roots: Iterable[int]) -> set[int]:
    """What an active dump holds as far as page tables tell: the kernel's, and what user halves map or just lost."""
    runs, roots = list(runs), {system_root, *process_roots}
    pages = kernel_pages(read_page, runs, system_root, roots)
    for root in roots:
        user = look_through(read_page, runs, root, _USER_HALF)
        pages |= user.leaves | user.transition
    return pages


def database_locations(
    read_page: ReadPage, runs: Runs, root: int, address: int, record_size: int, location: int
) -> dict[int, int]:
    """Each frame's location, 0 to 7, as the array of records at this virtual address tells it.

    Frames whose record is not mapped are left out.
    """
    told: dict[int, int] = {}
    cached: dict[int, bytes | None] = {}
    for base, count in runs:
        for pfn in range(base, base + count):
            place = address + pfn * record_size + location
            if place >> 12 not in cached:
                cached = {place >> 12: _virtual_page(read_page, root, place)}
            page = cached[place >> 12]
            if page is not None:
                told[pfn] = page[place % 4096] % 8
    return told


def _virtual_page(read_page: ReadPage, root: int, address: int) -> bytes | None:
    table = root >> 12 & 0xFF_FFFF_FFFF
    for shift in (39, 30, 21, 12):
        page = read_page(table)
        if page is None:
            return None
        entry = struct.unpack_from("<Q", page, (address >> shift) % 512 * 8)[0]
        if not entry & 1:
            return None
        table = entry >> 12 & 0xFF_FFFF_FFFF
        if shift in (30, 21) and entry & 0x80:
            pages = 1 << shift - 12
            return read_page(table - table % pages + (address >> 12) % pages)
    return read_page(table)
