"""What a dump can be made from: a Snapshot, another dump, a raw image. Pages that are there, and pages that are not."""

from __future__ import annotations

from typing import Protocol

from kdbridge.memory.files import DumpFile
from kdbridge.progress import ProgressSink
from kdbridge.source import Source
from protocol.address import PageRun, PageRuns

__all__ = ["HeldPages", "held_among"]


class HeldPages(Source, Protocol):
    """A Source that needs no target any more: it knows which pages it has."""

    @property
    def held(self) -> PageRuns:
        """Frames whose content it has."""
        ...

    @property
    def unreadable(self) -> PageRuns:
        """Frames that are known to be unreadable."""
        ...

    @property
    def inferred(self) -> PageRuns:
        """Frames whose content was concluded, not read; it need not hold all of them."""
        ...

    def read_run(self, run: PageRun) -> bytes:
        """The pages of a run of which every frame is held."""
        ...


async def held_among(
    source: HeldPages, wanted: PageRuns, progress: ProgressSink | None = None
) -> tuple[PageRuns, PageRuns]:
    """Of these frames those whose content it has, and those that are known to be unreadable.

    A complete dump tells the latter only page by page: it is asked about what is wanted, and no more.
    """
    if isinstance(source, DumpFile):
        return await source.among(wanted, progress)
    return source.held & wanted, source.unreadable & wanted
