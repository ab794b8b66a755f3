"""Checking the pages of a dump against what they were made of, as they come: no set of them is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import trio

from kdbridge.memory.files import DumpFile
from kdbridge.progress import Meter, ProgressSink
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.complete import marks_unreadable

from .overlay import Overlay

__all__ = ["PageWitness", "Pages", "compare_pages", "count_among"]

_MOST_NAMED = 64
_RUN_PAGES = 256
_STEPS = 1 << 12
"""Runs after which whoever waits is asked whether he still does."""


class PageWitness(Protocol):
    """Something that has the same pages: the Snapshot that a dump was made of, another dump, or a raw image."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def page(self, pfn: int) -> bytes | None:
        """One page; None where it has none."""
        ...


@dataclass(slots=True)
class Pages:
    """What the comparison found."""

    compared: int = 0
    overlaid: int = 0
    """Pages that differ by what was laid over them only."""
    marked: int = 0
    """Pages that the dump marks as unreadable, and the witness has."""
    extra: int = 0
    """Pages that the witness does not have."""
    differing: list[int] = field(default_factory=list)
    """Frames (the first 64) that differ elsewhere."""


async def compare_pages(dump: DumpFile, laid: Overlay, against: PageWitness, progress: ProgressSink | None) -> Pages:
    """Hold every page of a dump against the witness's; `laid` is what was laid over the dump's."""
    found, kind = Pages(), dump.layout.kind
    meter = Meter(progress, "comparing", dump.layout.pages.page_count * PAGE_SIZE)
    told = 0
    for piece in _in_pieces(dump.layout.pages.runs()):
        data = dump.read_run(piece)
        for index in range(piece.page_count):
            pfn = piece.base_page + index
            page, truth = data[index * PAGE_SIZE : (index + 1) * PAGE_SIZE], against.page(pfn)
            if truth is None:
                found.extra += not marks_unreadable(kind, page)
                continue
            found.compared += 1
            if page == truth:
                continue
            if laid.onto(pfn, truth) == page:
                found.overlaid += 1
            elif marks_unreadable(kind, page) and not isinstance(against, Snapshot):
                found.marked += 1  # the target refused it then; a raw image may have come by another way
            elif len(found.differing) < _MOST_NAMED:
                found.differing.append(pfn)
        meter.done += len(data)
        if meter.done - told >= _RUN_PAGES * PAGE_SIZE:  # pieces may have one page each
            told = meter.done
            meter.tell(trio.current_time())
            await trio.lowlevel.checkpoint()
    return found


async def count_among(dump: DumpFile, wanted: PageRuns) -> int:
    """How many of these frames have a place in the dump."""
    count = at = 0
    for step, run in enumerate(dump.layout.pages.runs() if wanted else ()):
        if step % _STEPS == 0:
            await trio.lowlevel.checkpoint()
        while at < len(wanted) and wanted[at].base_page < run.end_page:
            one = wanted[at]
            count += max(min(one.end_page, run.end_page) - max(one.base_page, run.base_page), 0)
            if one.end_page > run.end_page:
                break
            at += 1
    return count


def _in_pieces(runs: Iterator[PageRun]) -> Iterator[PageRun]:
    for run in runs:
        for at in range(run.base_page, run.end_page, _RUN_PAGES):
            yield PageRun(at, min(_RUN_PAGES, run.end_page - at))
