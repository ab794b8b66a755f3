"""What is true of every frame of RAM: who maps it, or on which list of the memory manager it waits."""

from __future__ import annotations

import bisect
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from protocol.address import PAGE_SHIFT, PageRun, PageRuns
from protocol.layouts.pfn import PageLocation

from .errors import SimulationError
from .image import MemoryImage
from .paging import PteFlag

__all__ = ["FrameState", "FrameStates"]

_TABLE = struct.Struct("<512Q")
_FRAME = 0x000F_FFFF_FFFF_F000
_SHIFTS = (39, 30, 21, 12)
_ADDRESS = (1 << 48) - 1
_STRETCH = 8
"""Frames that nobody ever wrote to are zeroed or free by stretches of so many bits."""

_GONE = (PageLocation.STANDBY, PageLocation.MODIFIED, PageLocation.TRANSITION, PageLocation.MODIFIED_NO_WRITE)
"""Where a page in transition may be, in turn."""

_LEFT: dict[PageLocation, int] = {
    PageLocation.STANDBY: 45,  # the file cache
    PageLocation.FREE: 25,  # what its last owner left in it
    PageLocation.MODIFIED: 10,
    PageLocation.MODIFIED_NO_WRITE: 5,
    PageLocation.TRANSITION: 5,
    PageLocation.ACTIVE: 10,  # locked by a driver, or a section that nobody maps just now
}
"""Where pages with data are that no table leads to, in percent."""


@dataclass(frozen=True, slots=True)
class FrameState:
    """One frame. `pte_address` is where the self map shows the entry that leads to it, or the prototype's place."""

    location: PageLocation
    pte_address: int = 0
    pte_frame: int = 0
    """The table that holds the entry."""
    share_count: int = 0
    prototype: bool = False


_ZEROED, _FREE = FrameState(PageLocation.ZEROED), FrameState(PageLocation.FREE)


class FrameStates:
    """The state of each frame of the runs, found by walking all page tables once; costs memory for used frames only."""

    def __init__(self, image: MemoryImage, pte_base: int, seed: int) -> None:
        self._image = image
        self._pte_base = pte_base
        self._seed = seed
        self._single: dict[int, FrameState] = {}
        self._large: list[tuple[int, int, FrameState]] = []
        self._large_starts: list[int] = []
        self._known: list[int] = []
        self._transition: dict[int, FrameState] = {}
        self._seen: set[tuple[int, int]] = set()
        self.runs = image.runs

    def walk(self, root: int) -> None:
        """Take in all that this root maps."""
        self._visit(root >> PAGE_SHIFT, root >> PAGE_SHIFT, 0, 0)

    def finish(self, content: PageRuns, prototypes: int, rng: random.Random) -> None:
        """When every root was walked: pages in transition, pages with data that no table leads to (those in `content`
        are where data is; others are free), and pages that cannot be read. `prototypes` is where a file's PTEs lie.
        """
        self._large = _disjoint(self._large)
        self._large_starts = [start for start, _, _ in self._large]
        gone = 0
        for pfn, state in self._transition.items():
            if pfn not in self._single and self._large_of(pfn) is None:
                self._single[pfn] = replace(state, location=_GONE[gone % len(_GONE)])
                gone += 1
        mapped = PageRuns(PageRun(start, end - start) for start, end, _ in self._large)
        places, weights = list(_LEFT), list(_LEFT.values())
        for pfn in self._image.content_pages():
            if pfn in self._single or pfn in mapped:
                continue
            (place,) = rng.choices(places, weights)
            if pfn in self._image.unreadable:
                self._single[pfn] = FrameState(PageLocation.BAD)
            elif pfn not in content or place is PageLocation.FREE:
                self._single[pfn] = _FREE
            else:
                shared = 1 if place is PageLocation.ACTIVE else 0
                address = prototypes + rng.randrange(1 << 16) * 8
                self._single[pfn] = FrameState(place, address, prototypes >> PAGE_SHIFT & 0xFFFFFF, shared, True)
        self._transition.clear()
        self._seen.clear()
        self._known = sorted(self._single)

    def state(self, pfn: int) -> FrameState | None:
        """The state of a frame; None for what is no RAM."""
        found = self._single.get(pfn) or self._large_of(pfn)
        if found is not None or pfn not in self.runs:
            return found
        return self._untouched(pfn)

    def frames(self, *locations: PageLocation) -> PageRuns:
        """All frames at these locations."""
        return PageRuns(
            PageRun(start, end - start) for start, end, state in self._stretches() if state.location in locations
        )

    def is_untouched(self, first: int, last: int) -> bool:
        """Whether these frames, both ends included, are all RAM that nobody uses or ever wrote to."""
        at = bisect.bisect_left(self._known, first)
        if at < len(self._known) and self._known[at] <= last:
            return False
        at = bisect.bisect_right(self._large_starts, last) - 1
        if at >= 0 and self._large[at][1] > first:
            return False
        run = self.runs.run_of(first)
        return run is not None and last < run.end_page

    def untouched(self, first: int, last: int) -> Iterator[tuple[int, int, PageLocation]]:
        """Frames for which `is_untouched` holds: (first, count, location) of stretches that are alike."""
        while first <= last:
            end = min((first >> _STRETCH) + 1 << _STRETCH, last + 1)
            yield first, end - first, self._untouched(first).location
            first = end

    def _untouched(self, pfn: int) -> FrameState:
        return _FREE if ((pfn >> _STRETCH) + self._seed) * 2654435761 >> 7 & 7 == 0 else _ZEROED

    def _stretches(self) -> Iterator[tuple[int, int, FrameState]]:
        for pfn, state in self._single.items():
            yield pfn, pfn + 1, state
        single = PageRuns.from_pages(self._single)
        for start, end, state in self._large:
            yield from (
                (run.base_page, run.end_page, state) for run in PageRuns([PageRun(start, end - start)]) - single
            )
        used = single | PageRuns(PageRun(start, end - start) for start, end, _ in self._large)
        for run in self.runs - used:
            start = run.base_page
            while start < run.end_page:
                end = min((start >> _STRETCH) + 1 << _STRETCH, run.end_page)
                yield start, end, self._untouched(start)
                start = end

    def _large_of(self, pfn: int) -> FrameState | None:
        at = bisect.bisect_right(self._large_starts, pfn) - 1
        return self._large[at][2] if at >= 0 and pfn < self._large[at][1] else None

    def _pte_of(self, address: int) -> int:
        return self._pte_base + ((address & _ADDRESS) >> PAGE_SHIFT) * 8

    def _visit(self, table: int, parent: int, address: int, level: int) -> None:
        """A table at this level (0 is the root), for addresses from `address` on."""
        if (table, level) in self._seen:
            return
        self._seen.add((table, level))
        page = self._image.read_page(table)
        if page is None:
            raise SimulationError(f"the page table in frame {table:#x} cannot be read")
        entries = _TABLE.unpack(page)
        place = address
        for _ in range(len(_SHIFTS) - level + 1):
            place = self._pte_of(place)
        self._map(table, FrameState(PageLocation.ACTIVE, place, parent, sum(map(bool, entries)) + 1))
        for index, entry in enumerate(entries):
            if entry:
                self._take(table, entry, address | index << _SHIFTS[level], level)

    def _take(self, table: int, entry: int, address: int, level: int) -> None:
        frame = (entry & _FRAME) >> PAGE_SHIFT
        last = len(_SHIFTS) - 1
        if not entry & PteFlag.VALID:
            kind = entry & (PteFlag.TRANSITION | PteFlag.PROTOTYPE)
            if level == last and kind == PteFlag.TRANSITION and frame in self.runs:
                self._transition.setdefault(frame, FrameState(PageLocation.STANDBY, self._pte_of(address), table))
        elif level == last:
            if frame in self.runs:
                self._map(frame, FrameState(PageLocation.ACTIVE, self._pte_of(address), table, 1))
        elif level and entry & PteFlag.LARGE:
            place = address
            for _ in range(len(_SHIFTS) - level):
                place = self._pte_of(place)
            pages = 1 << _SHIFTS[level] - PAGE_SHIFT
            for run in PageRuns([PageRun(frame & ~(pages - 1), pages)]) & self.runs:
                self._large.append((run.base_page, run.end_page, FrameState(PageLocation.ACTIVE, place, table, 1)))
        elif level or frame != table:  # not the self map
            self._visit(frame, table, address, level + 1)

    def _map(self, pfn: int, state: FrameState) -> None:
        before = self._single.get(pfn)
        self._single[pfn] = state if before is None else replace(before, share_count=before.share_count + 1)


def _disjoint(large: Iterable[tuple[int, int, FrameState]]) -> list[tuple[int, int, FrameState]]:
    """Ascending, each frame once: where two large pages show the same frames, the smaller one tells their state."""
    parts: list[tuple[int, int, FrameState]] = []
    taken = PageRuns()
    for start, end, state in sorted(large, key=lambda part: part[1] - part[0]):
        runs = PageRuns([PageRun(start, end - start)])
        parts += ((run.base_page, run.end_page, state) for run in runs - taken)
        taken |= runs
    return sorted(parts, key=lambda part: part[0])
