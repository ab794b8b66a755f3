"""Which pages a dump file has, of all frames or of some: and of a complete dump, which of them are only marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

import trio

from kdbridge.errors import DumpError
from kdbridge.progress import Meter, ProgressSink
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.complete import UNREADABLE_PAGE, marks_unreadable
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.layout import DumpLayout, ReadFile

__all__ = ["StoredPages"]

_MOST_RUNS = 1 << 21
"""Runs that a set of pages is kept in memory with: 300 MiB of them. Pages in fewer than that many runs need less."""
_FEW = 1 << 14
"""Frames that are looked up one by one: to go through all runs of the file would take longer."""
_AT_ONCE = 256
"""Pages that are looked at in one piece."""
_STEPS = 1 << 12
"""Runs after which whoever waits is asked whether he still does."""


class StoredPages:
    """Sets of the frames of one dump. Nothing is read before it is asked for."""

    def __init__(self, path: Path, layout: DumpLayout, read: ReadFile, data_from: Callable[[int], int]) -> None:
        """`data_from(offset)` is where, from there on, something was written: what lies before it is zeros."""
        self._path = path
        self._layout = layout
        self._read = read
        self._data_from = data_from

    def all(self) -> PageRuns:
        """Frames that have a place in the file. Raises DumpError as `among` does."""
        return PageRuns(self._kept(self._layout.pages.runs()))

    @cached_property
    def sorted_out(self) -> tuple[PageRuns, PageRuns]:
        """The frames whose content the file holds, and those that it marks; of a complete dump this reads all of it."""
        pieces = self._kept(self._layout.pages.runs())
        if self._layout.kind is not DumpType.FULL:
            return PageRuns(pieces), PageRuns()
        marked = PageRuns(self._kept(run for _, runs in self._looked_at(pieces) for run in runs))
        return PageRuns(pieces) - marked, marked

    async def among(self, wanted: PageRuns, progress: ProgressSink | None = None) -> tuple[PageRuns, PageRuns]:
        """Of these frames those whose content the file holds, and those that it marks as unreadable.

        Raises DumpError where they lie in more runs than are kept in memory.
        """
        pieces: list[PageRun] = []
        for number, piece in enumerate(self._of(wanted)):
            if number % _STEPS == 0:
                await trio.lowlevel.checkpoint()
                if len(pieces) > _MOST_RUNS:
                    break
            if piece.page_count:
                pieces.append(piece)
        stored = PageRuns(self._kept(pieces))
        if self._layout.kind is not DumpType.FULL:
            return stored, PageRuns()
        meter = Meter(progress, "looking for unreadable pages", stored.page_count * PAGE_SIZE)
        found: list[PageRun] = []
        for count, runs in self._looked_at(pieces):
            found += runs
            if len(found) > _MOST_RUNS:
                break
            meter.done += count * PAGE_SIZE
            meter.tell(trio.current_time())
            await trio.lowlevel.checkpoint()
        marked = PageRuns(self._kept(found))
        return stored - marked, marked

    def _kept(self, runs: Iterable[PageRun]) -> list[PageRun]:
        found = list(islice(runs, _MOST_RUNS + 1))
        if len(found) > _MOST_RUNS:
            raise DumpError(
                f"the pages in {self._path} lie in more than {_MOST_RUNS} runs: too many to be kept in memory"
            )
        return found

    def _of(self, wanted: PageRuns) -> Iterator[PageRun]:
        """These frames as far as they have a place: each piece lies in the file as a whole.

        An empty piece where there is nothing for long: so whoever waits can be asked whether he still does.
        """
        if wanted.page_count <= _FEW:
            there = self._layout.pages.offset_of
            yield from (PageRun(pfn, 1) for pfn in wanted.pages() if there(pfn) is not None)
            return
        number = 0
        for run in self._layout.pages.runs():
            yield PageRun(run.base_page, 0)
            while number < len(wanted) and wanted[number].end_page <= run.base_page:
                number += 1
            if number == len(wanted):
                return
            while number < len(wanted) and wanted[number].base_page < run.end_page:
                one = wanted[number]
                start, end = max(one.base_page, run.base_page), min(one.end_page, run.end_page)
                yield PageRun(start, end - start)
                if one.end_page > run.end_page:
                    break
                number += 1

    def _looked_at(self, pieces: Iterable[PageRun]) -> Iterator[tuple[int, PageRuns]]:
        """How many pages were looked at, and which of them a complete dump marks: it tells so only page by page.

        `pieces` are not joined where they touch: they may lie apart in the file.
        """
        for piece in pieces:
            start, at = self._layout.pages.offset_of(piece.base_page) or 0, 0
            while at < piece.page_count:
                empty = (self._data_from(start + at * PAGE_SIZE) - start) // PAGE_SIZE
                if empty > at:  # zeros are no mark
                    count, marked = min(empty, piece.page_count) - at, PageRuns()
                else:
                    count = min(_AT_ONCE, piece.page_count - at)
                    marked = self._marked(piece.base_page + at, self._read(start + at * PAGE_SIZE, count * PAGE_SIZE))
                yield count, marked
                at += count

    def _marked(self, first: int, data: bytes) -> PageRuns:
        if UNREADABLE_PAGE[:16] not in data:
            return PageRuns()
        pages = (data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE))
        return PageRuns.from_pages(
            first + at for at, page in enumerate(pages) if marks_unreadable(self._layout.kind, page)
        )
