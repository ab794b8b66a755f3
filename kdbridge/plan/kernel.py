"""The kernel plan: what makes a dump open, then page tables, then every page of RAM that the kernel half maps."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kdbridge.errors import TargetRefusedError
from kdbridge.memory.translate import Translator
from kdbridge.memory.walk import walk
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRun, PageRuns
from protocol.arch import architecture_of

from .plan import PlannedPages
from .vital import vital_pages

__all__ = ["kernel_plan"]


async def kernel_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """Pages of the kernel half, bounded by the physical memory runs: device memory is mapped there too, and reading
    it is no longer reading. Raises TargetRefusedError where there are no page tables to walk."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or target.directory_table_base is None or source.physical is None:
        raise TargetRefusedError(
            "a kernel dump needs page tables, and this target gives no directory table base",
            api="ReadControlSpace",
            status=0,
        )
    if target.runs is None:
        raise TargetRefusedError(
            "the physical memory runs are unknown, so pages of RAM and of devices cannot be told apart; "
            "nothing was read, because reading a device changes it",
            api="ReadVirtualMemory",
            status=0,
        )
    yield PlannedPages(await vital_pages(source, target), "what a debugger needs to open the dump")
    translator = Translator(source.physical, architecture.paging, target.directory_table_base, runs=target.runs)
    tables: list[PageRun] = []
    leaves: list[PageRun] = []
    async for table in walk(translator, architecture.paging.kernel_entries):
        if table.readable:
            tables.append(PageRun(table.pfn, 1))
        leaves.extend(table.leaves)
    # The walk read the tables through the source, which kept them: this says that they belong to the plan.
    yield PlannedPages(PageRuns(tables) & target.runs, "page tables")
    yield PlannedPages((PageRuns(leaves) | PageRuns(tables)) & target.runs, "what the kernel maps")
