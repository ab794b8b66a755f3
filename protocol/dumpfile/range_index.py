"""Where each page lies in a range dump of very many ranges: a number for 64 of them, the table is read where needed."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Iterable, Iterator

from protocol.address import PAGE_SIZE, PageRun
from protocol.errors import DumpFormatError

from .index import HIGHEST_PAGE, Extent

__all__ = ["GROUP", "RangeIndex"]

GROUP = 64
"""Ranges that share one entry of the index: they are read at once."""


class RangeIndex:
    """A PageIndex of ranges that ascend, as WinDbg writes them. It keeps 16 bytes for 64 ranges."""

    __slots__ = ("_bases", "_claimed_count", "_count", "_end", "_first", "_group", "_latest", "_page_count", "_ranks")

    def __init__(
        self,
        first_page_offset: int,
        runs: Iterable[PageRun],
        group: Callable[[int], Iterable[PageRun]],
        stored: int | None = None,
    ) -> None:
        """`runs` in the file's order, once; `group(n)` gives those from n x GROUP on again.

        Raises DumpFormatError when a range begins before the end of the one before, or is beyond physical memory.
        """
        self._first = first_page_offset
        self._group = group
        self._latest: tuple[int, tuple[PageRun, ...]] = (-1, ())
        self._bases: array[int] = array("Q")
        self._ranks: array[int] = array("Q")
        self._count = self._claimed_count = self._end = 0
        for number, run in enumerate(runs):
            if run.end_page > HIGHEST_PAGE:
                raise DumpFormatError(
                    f"range {number}, {run.page_count:#x} pages from {run.base_page:#x} on, is beyond 52 bits"
                )
            if run.base_page < self._end:
                raise DumpFormatError(
                    f"range {number} does not lie behind the one before, and there are too many to sort"
                )
            if number % GROUP == 0:
                self._bases.append(run.base_page)
                self._ranks.append(self._claimed_count)
            self._end = run.end_page
            self._count += 1
            self._claimed_count += run.page_count
        self._page_count = self._claimed_count if stored is None else min(self._claimed_count, stored)

    @property
    def page_count(self) -> int:
        """Pages that the file holds."""
        return self._page_count

    @property
    def claimed_count(self) -> int:
        """Pages that the file should hold."""
        return self._claimed_count

    def _runs_of(self, number: int) -> tuple[PageRun, ...]:
        if self._latest[0] != number:
            found = tuple(self._group(number))[: min(GROUP, self._count - number * GROUP)]
            self._latest = (number, found)
        return self._latest[1]

    def offset_of(self, page: int) -> int | None:
        """File offset of a page frame's first byte."""
        extent = self.extent_of(page)
        return None if extent is None else extent.file_offset

    def extent_of(self, page: int) -> Extent | None:
        """From this page to the end of its range."""
        number = bisect.bisect_right(self._bases, page) - 1
        if number < 0:
            return None
        rank = self._ranks[number]
        for run in self._runs_of(number):
            if run.base_page <= page < run.end_page:
                at = rank + page - run.base_page
                count = min(run.end_page - page, self._page_count - at)
                return Extent(self._first + at * PAGE_SIZE, count) if count > 0 else None
            rank += run.page_count
        return None

    def page_at(self, offset: int) -> int | None:
        """The page frame to which the byte at this file offset belongs."""
        at = (offset - self._first) // PAGE_SIZE
        if not 0 <= at < self._page_count:
            return None
        number = bisect.bisect_right(self._ranks, at) - 1
        rank = self._ranks[number]
        for run in self._runs_of(number):
            if at < rank + run.page_count:
                return run.base_page + at - rank
            rank += run.page_count
        return None

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame; ranges that touch are not joined."""
        left = self._page_count
        for number in range(len(self._bases)):
            for run in self._runs_of(number):
                if left <= 0:
                    return
                if run.page_count:
                    yield PageRun(run.base_page, min(run.page_count, left))
                left -= run.page_count
