"""Where each page lies in a range dump of very many ranges: a number for 64 of them, the table is read where needed."""

from __future__ import annotations

import bisect
import itertools
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from protocol.address import PAGE_SIZE, PageRun

from .believed import left_out
from .index import HIGHEST_PAGE, Extent
from .ranges import Columns

__all__ = ["GROUP", "RangeIndex"]

GROUP = 64
"""Ranges that share one entry of the index: they are read at once."""


class RangeIndex:
    """A PageIndex of ranges that ascend, as WinDbg writes them. It keeps 16 bytes for 64 ranges."""

    __slots__ = ("_bases", "_claimed_count", "_count", "_end", "_first", "_group", "_latest", "_page_count", "_ranks",
                 "problem")  # fmt: skip

    def __init__(
        self,
        first_page_offset: int,
        columns: Iterable[Columns],
        group: Callable[[int], Iterable[PageRun]],
        stored: int | None = None,
    ) -> None:
        """`columns` in the file's order, once, each but the last of whole groups; `group(n)` gives one group again.

        The ranges are believed up to the first that begins before the end of the one before, or is beyond physical
        memory; `problem` says then which that was, and why.
        """
        self.problem = ""
        self._first = first_page_offset
        self._group = group
        self._latest: tuple[int, tuple[PageRun, ...]] = (-1, ())
        self._bases: array[int] = array("Q")
        self._ranks: array[int] = array("Q")
        self._count = self._claimed_count = self._end = 0
        for bases, counts in columns:
            # There may be two million ranges: where all is well, nothing is done for each one alone.
            ends = list(map(operator.add, bases, counts))
            good = len(bases)
            if good and not (
                bases[0] >= self._end and ends[-1] <= HIGHEST_PAGE and all(map(operator.le, ends, bases[1:]))
            ):
                good = self._believed(bases, ends)
            ranks = list(itertools.accumulate(counts[:good], initial=self._claimed_count))
            self._bases.extend(bases[:good:GROUP])
            self._ranks.extend(ranks[:good:GROUP])
            self._count += good
            self._claimed_count = ranks[-1]
            if good < len(bases):
                break
            self._end = ends[-1] if ends else self._end
        self._page_count = self._claimed_count if stored is None else min(self._claimed_count, stored)

    def _believed(self, bases: Sequence[int], ends: Sequence[int]) -> int:
        """How many of these ranges can be."""
        last = self._end
        for at, (base, end) in enumerate(zip(bases, ends, strict=True)):
            what = f"range {self._count + at}"
            if end > HIGHEST_PAGE:
                self.problem = left_out(what, f"({end - base:#x} pages from {base:#x} on) is beyond 52 bits")
                return at
            if base < last:
                self.problem = left_out(what, "does not lie behind the one before, and there are too many to sort")
                return at
            last = end
        return len(bases)

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
