"""Where RAM lies and which frames are taken: believable runs, and an allocator that scatters pages."""

from __future__ import annotations

import bisect
import random

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns

from .errors import SimulationError

__all__ = ["FrameAllocator", "believable_runs"]

_HOLE = PageRun(0xC0000, 0x40000)
"""3 GiB to 4 GiB: PCI devices, APICs and firmware. RAM that would lie there lies behind 4 GiB."""

_SMALL_WINDOW = 0x10000
"""Single pages come from so many frames at the bottom (and, where there is much memory, at the top)."""


def believable_runs(memory_size: int, count: int | None = None, seed: int = 0) -> PageRuns:
    """The runs of a PC with so many bytes of RAM: page 1 to 9E, from 100 on, and a hole under 4 GiB.

    With `count`, firmware has cut further small holes until there are exactly so many runs.
    """
    frames = memory_size >> PAGE_SHIFT
    whole = PageRuns([PageRun(1, 0x9E), PageRun(0x100, min(frames, _HOLE.base_page) - 0x100)])
    if frames > _HOLE.base_page:
        whole |= PageRuns([PageRun(_HOLE.end_page, frames - _HOLE.base_page)])
    if count is None:
        return whole
    if count < len(whole):  # one run only: a virtual machine whose firmware hides nothing
        return PageRuns([PageRun(1, min(frames, _HOLE.base_page) - 1)]) if count == 1 else whole
    rng = random.Random(f"runs {seed}")
    for _ in range(64 * count):
        if len(whole) == count:
            return whole
        run = whole[rng.randrange(len(whole))]
        # Not below 4 MiB: the kernel's own page tables live there.
        low = max(run.base_page + 16, 0x400)
        size = rng.choice((1, 1, 2, 3, 8))
        if run.end_page - size - 16 > low:
            whole -= PageRuns([PageRun(rng.randrange(low, run.end_page - size - 16), size)])
    raise SimulationError(f"{memory_size:#x} bytes of memory cannot be cut into {count} runs")


class FrameAllocator:
    """Hands out frames of the runs, each once. Single pages come scattered, blocks come whole and aligned."""

    def __init__(self, runs: PageRuns, rng: random.Random) -> None:
        self._runs = runs
        self._rng = rng
        self._used: set[int] = set()
        self._blocks: list[tuple[int, int]] = []
        self._firsts: list[int] = []  # index of each run's first frame, counted over all runs
        total = 0
        for run in runs:
            self._firsts.append(total)
            total += run.page_count
        self._total = total
        self._scan = 0
        self._high = total - _SMALL_WINDOW if total > 16 * _SMALL_WINDOW else total

    def allocate(self) -> int:
        """One free frame from anywhere in the windows for small pages."""
        for _ in range(24):
            if self._high < self._total and self._rng.randrange(4) == 0:
                pfn = self._frame(self._rng.randrange(self._high, self._total))
            else:
                pfn = self._frame(self._rng.randrange(min(_SMALL_WINDOW, self._total)))
            if self._free(pfn):
                self._used.add(pfn)
                return pfn
        while self._scan < self._total:
            pfn = self._frame(self._scan)
            self._scan += 1
            if self._free(pfn):
                self._used.add(pfn)
                return pfn
        raise SimulationError(f"{self._total * PAGE_SIZE:#x} bytes of memory are too little for this machine")

    def take(self, pfn: int) -> bool:
        """Take this very frame, if it is RAM and free."""
        if pfn in self._runs and self._free(pfn):
            self._used.add(pfn)
            return True
        return False

    def allocate_block(self, pages: int, align: int) -> int | None:
        """`pages` frames that follow each other, the first a multiple of `align`; None where there are none left."""
        for run in reversed(list(self._runs)):
            top = min(run.end_page, self._frame(self._high)) if self._high < self._total else run.end_page
            start = (top - pages) // align * align
            while start >= max(run.base_page, 0x100):
                if all(self._free(pfn) for pfn in range(start, start + pages)):
                    bisect.insort(self._blocks, (start, start + pages))
                    return start
                start -= align
        return None

    def _frame(self, index: int) -> int:
        at = bisect.bisect_right(self._firsts, index) - 1
        return self._runs[at].base_page + index - self._firsts[at]

    def _free(self, pfn: int) -> bool:
        if pfn in self._used:
            return False
        at = bisect.bisect_right(self._blocks, (pfn, 1 << 60)) - 1
        return at < 0 or pfn >= self._blocks[at][1]
