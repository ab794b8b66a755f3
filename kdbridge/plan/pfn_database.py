"""The PFN database: which frames are in use, and which are free, zeroed or only a cache.

Its records differ between builds, and nothing tells their layout. So it is found out and proven on what is known by
other means: frames that hold page tables, frames that tables map, and frames that entries in transition name. A layout
that contradicts a single one of them is none, and without exactly one layout the database is not used.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import trio

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRun, PageRuns
from protocol.layouts.pfn import PageLocation

from .bug_check_data import is_kernel_address

__all__ = ["PfnDatabase", "find_pfn_database"]

_RECORD_SIZES = (0x30, 0x28, 0x38, 0x20)
"""Bytes of MMPFN on x64: 30 in all versions since Vista, as far as is known (dump-formats 3.2 B)."""
_LOCATION_BITS = 7
_MODIFIED = 1 << 4
"""In the same byte: the page was written to since it was read."""
_SAMPLE = 48
"""Known frames of each sort that a layout is proven on."""
_LEAST_TABLES, _LEAST_MAPPED, _LEAST_TRANSITION = 8, 8, 2
_CHUNK = 1 << 12
"""Records that are looked at in one go."""


_IN_TRANSITION = frozenset(
    {PageLocation.STANDBY, PageLocation.MODIFIED, PageLocation.MODIFIED_NO_WRITE, PageLocation.TRANSITION}
)


@dataclass(frozen=True, slots=True)
class PfnDatabase:
    """A database whose layout was proven: where it begins, bytes of a record, and which byte has the location."""

    address: int
    record_size: int
    location_offset: int
    proven_on: int
    """Frames whose record said what was known of them."""

    def __str__(self) -> str:
        return (
            f"the PFN database at {self.address:#x}: records of {self.record_size:#x} bytes, the location in byte "
            f"{self.location_offset:#x}, proven on {self.proven_on} frames"
        )

    async def frames(self, source: Source, runs: PageRuns, *locations: PageLocation) -> AsyncIterator[PageRun]:
        """The frames of `runs` that are at one of these locations, ascending. Records that cannot be read tell none."""
        wanted = bytes(byte & _LOCATION_BITS in locations for byte in range(256))
        async with aclosing(self._where(source, runs, wanted)) as found:  # type: ignore[type-var]
            async for run in found:
                yield run

    async def _where(self, source: Source, runs: PageRuns, wanted: bytes) -> AsyncIterator[PageRun]:
        for run in runs:
            for start in range(run.base_page, run.end_page, _CHUNK):
                count = min(_CHUNK, run.end_page - start)
                data = await try_read(source, self.address + start * self.record_size, count * self.record_size)
                await trio.lowlevel.checkpoint()
                if data is None:
                    data = await self._readable(source, start, count)
                marks = data[self.location_offset :: self.record_size].translate(wanted)
                for found in re.finditer(rb"\x01+", marks):
                    yield PageRun(start + found.start(), found.end() - found.start())

    async def unmodified(self, source: Source, runs: PageRuns) -> AsyncIterator[PageRun]:
        """The frames of `runs` that are active and, by the memory manager's own account, never were written to."""
        wanted = bytes(byte & _LOCATION_BITS == PageLocation.ACTIVE and not byte & _MODIFIED for byte in range(256))
        async with aclosing(self._where(source, runs, wanted)) as found:  # type: ignore[type-var]
            async for run in found:
                yield run

    async def _readable(self, source: Source, start: int, count: int) -> bytes:
        """Record by record; those that are not there are filled with ones, which is no location that is asked for."""
        parts: list[bytes] = []
        for pfn in range(start, start + count):
            data = await try_read(source, self.address + pfn * self.record_size, self.record_size)
            parts.append(data if data is not None else b"\x05" * self.record_size)
        return b"".join(parts)


async def find_pfn_database(
    source: Source, target: Target, tables: PageRuns, mapped: PageRuns, transition: PageRuns
) -> PfnDatabase | None:
    """The database, if its layout can be told and proven; else None.

    `tables` hold page tables, `mapped` are mapped by one, `transition` are named by an entry in transition.
    """
    block = target.kdbg.block if target.kdbg is not None else None
    base = await try_read_pointer(source, block["mm_pfn_database"]) if block is not None else None
    known = [*_sample(tables), *_sample(mapped)]
    gone = _sample(transition - mapped - tables)
    if not base or not is_kernel_address(base) or target.runs is None:
        return None
    if tables.page_count < _LEAST_TABLES or mapped.page_count < _LEAST_MAPPED or len(gone) < _LEAST_TRANSITION:
        return None
    found: list[PfnDatabase] = []
    for size in _RECORD_SIZES:
        active = [await try_read(source, base + pfn * size, size) for pfn in known]
        away = [await try_read(source, base + pfn * size, size) for pfn in gone]
        if None in active or None in away:
            continue
        found += (
            PfnDatabase(base, size, offset, len(known) + len(gone))
            for offset in range(size)
            if all(record is not None and record[offset] & _LOCATION_BITS == PageLocation.ACTIVE for record in active)
            and all(record is not None and record[offset] & _LOCATION_BITS in _IN_TRANSITION for record in away)
        )
    return found[0] if len(found) == 1 else None


def _sample(pages: PageRuns) -> list[int]:
    """Frames from all over a set: so many at most, the same each time."""
    return [*_every(pages, max(pages.page_count // _SAMPLE, 1))][:_SAMPLE]


def _every(pages: PageRuns, step: int) -> Iterator[int]:
    position = 0
    for run in pages:
        first = -position % step
        yield from range(run.base_page + first, run.end_page, step)
        position += run.page_count
