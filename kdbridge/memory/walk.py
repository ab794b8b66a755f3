"""Everything that page tables map: walked by whole tables, each read once, whatever a broken machine's tables say."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from protocol.address import PAGE_SHIFT, PageRun

from .translate import Presence, Translator, classify, transition_frame

__all__ = ["WalkedTable", "walk"]


@dataclass(frozen=True, slots=True)
class WalkedTable:
    """One page table: its frame, and the frames of the pages that it maps itself (large ones included)."""

    pfn: int
    level: int
    """0 is the top."""
    address: int
    """The first virtual address that it covers."""
    leaves: tuple[PageRun, ...]
    readable: bool
    transition: tuple[PageRun, ...] = ()
    """Frames of pages in transition: in memory, but not valid (see `transition_frame` for how far to believe them)."""


async def walk(translator: Translator, slots: range) -> AsyncIterator[WalkedTable]:
    """Every table below these entries of the top table, each before those below it, ascending by address.

    An entry that leads back to the top table (the self map) is not followed, and no table is visited twice at the
    same level: so tables that point in circles end, after at most levels x frames steps. Give the translator the
    runs of RAM, and a table elsewhere is told as unreadable without being read.
    """
    geometry = translator.geometry
    last = len(geometry.shifts) - 1
    unpack = struct.Struct(f"<{geometry.entries}{'Q' if geometry.entry_size == 8 else 'I'}").unpack_from
    root = translator.root >> PAGE_SHIFT
    pending: list[tuple[int, int, int]] = [(root, 0, 0)]
    seen: set[tuple[int, int]] = {(root, 0)}
    while pending:
        pfn, level, base = pending.pop()
        await trio.lowlevel.checkpoint()
        data = await translator.table(pfn)
        if data is None:
            yield WalkedTable(pfn, level, geometry.canonical(base), (), readable=False)
            continue
        below: list[tuple[int, int, int]] = []
        leaves: list[PageRun] = []
        transition: list[PageRun] = []
        shift = geometry.shifts[level]
        pages = 1 << shift - PAGE_SHIFT
        for index, entry in enumerate(unpack(data)):
            if not entry or (level == 0 and index not in slots):
                continue
            if not entry & geometry.valid_bit:
                if level == last and classify(entry, geometry) is Presence.TRANSITION:
                    _add(transition, transition_frame(entry, geometry), 1)
                continue
            frame = (entry & geometry.frame_mask) >> PAGE_SHIFT
            if level == last or (level in geometry.large_levels and entry & geometry.large_bit):
                _add(leaves, frame & ~(pages - 1), pages)
            elif frame != root and (frame, level + 1) not in seen:
                seen.add((frame, level + 1))
                below.append((frame, level + 1, base | index << shift))
        pending.extend(reversed(below))
        yield WalkedTable(pfn, level, geometry.canonical(base), tuple(leaves), True, tuple(transition))


def _add(runs: list[PageRun], start: int, pages: int) -> None:
    if runs and runs[-1].end_page == start:
        runs[-1] = PageRun(runs[-1].base_page, runs[-1].page_count + pages)
    else:
        runs.append(PageRun(start, pages))
