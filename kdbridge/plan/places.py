"""From virtual ranges to page frames: what has to be read so that these addresses can be looked at, tables included."""

from __future__ import annotations

from collections.abc import Iterable

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.memory.translate import Presence, Translator
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRuns
from protocol.arch import architecture_of

from .plan import VirtualRange

__all__ = ["Places"]

_LARGEST_RANGE = 1 << 20


class Places:
    """Looks addresses up in the page tables of the kernel half. Tables are read once, through the source."""

    def __init__(self, translator: Translator, runs: PageRuns | None) -> None:
        self._translator = translator
        self._runs = runs
        self.untold = 0
        """Pages of which a missing page table does not tell where they are."""

    @classmethod
    def of(cls, source: Source, target: Target) -> Places | None:
        """None where there are no page tables to look into."""
        architecture = architecture_of(target.version.machine_type)
        if architecture is None or target.directory_table_base is None or source.physical is None:
            return None
        root = target.directory_table_base
        return cls(Translator(source.physical, architecture.paging, root, runs=target.runs), target.runs)

    async def frames(self, ranges: Iterable[VirtualRange]) -> PageRuns:
        """The frames in RAM of all these ranges and of the tables on the way. What is not mapped is left out."""
        frames: set[int] = set()
        geometry = self._translator.geometry
        for wanted in ranges:
            if not wanted.address or not geometry.is_canonical(wanted.address):
                continue
            end = wanted.address + min(wanted.size, _LARGEST_RANGE)
            for page in range(wanted.address & ~(PAGE_SIZE - 1), end, PAGE_SIZE):
                try:
                    found = await self._translator.translate(page & (1 << 64) - 1)
                except (MemoryFault, TargetRefusedError):
                    continue
                frames.update(found.tables)
                self.untold += found.presence is Presence.NO_TABLE
                if found.physical is not None:
                    frames.add(found.physical // PAGE_SIZE)
        pages = PageRuns.from_pages(frames)
        return pages if self._runs is None else pages & self._runs
