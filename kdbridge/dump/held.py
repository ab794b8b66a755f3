"""What a dump can be made from: a Snapshot, another dump, a raw image. Pages that are there, and pages that are not."""

from __future__ import annotations

from typing import Protocol

from kdbridge.source import Source
from protocol.address import PageRun, PageRuns

__all__ = ["HeldPages"]


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
        """Frames among those held whose content was concluded, not read."""
        ...

    def read_run(self, run: PageRun) -> bytes:
        """The pages of a run of which every frame is held."""
        ...
