"""Which physical memory a source holds, for a map of it."""

from __future__ import annotations

import itertools

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRuns

from .model import Held
from .reading import ReadOnce

__all__ = ["held_of"]

_MOST_RUNS = 1 << 16


def held_of(source: Source, target: Target) -> Held | None:
    """Of a Snapshot or a dump with pages; None of small dumps and of live targets, which hold none.

    A complete dump marks what could not be read by the content of a page. To look at every page of it for that takes
    minutes, so here it holds all that it has a place for: `verify` looks. Any other dump leaves such pages out.
    Of a file that holds pages in more than 65,536 runs there is no map: memory that grows with a file is not to be had
    here.
    """
    if isinstance(source, ReadOnce):
        source = source.source
    if source.physical is None:
        return None
    if isinstance(source, Snapshot):
        return _held(target.runs, source.held, source.unreadable, source.inferred)
    if not isinstance(source, DumpFile) or source.small is not None:
        return None
    # As many runs as this take 10 MiB; a map has 2,000 cells.
    runs = list(itertools.islice(source.layout.pages.runs(), _MOST_RUNS + 1))
    if len(runs) > _MOST_RUNS:
        return None
    held = PageRuns(runs)
    return _held(target.runs or source.file_facts.runs, held, PageRuns(), held & source.inferred)


def _held(memory: PageRuns | None, held: PageRuns, unreadable: PageRuns, inferred: PageRuns) -> Held:
    return Held((memory or PageRuns()) | held | unreadable, held, unreadable, inferred)
