"""The complete plan: what makes a dump open first, then every page of the physical memory runs, ascending."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kdbridge.errors import TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Target

from .plan import PlannedPages
from .vital import vital_pages

__all__ = ["complete_plan"]


async def complete_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """Every page that Windows manages. Raises TargetRefusedError where nobody knows which those are."""
    if target.runs is None or source.physical is None:
        raise TargetRefusedError(
            "a complete dump needs the physical memory runs and physical reads, and this target gives "
            + ("no runs" if target.runs is None else "no physical reads")
            + "; --kind kernel brings home what its page tables map",
            api="ReadPhysicalMemory",
            status=0,
        )
    total = target.runs.page_count
    vital = await vital_pages(source, target)
    yield PlannedPages(vital & target.runs, "what a debugger needs to open the dump", total)
    yield PlannedPages(target.runs, "physical memory", total)
