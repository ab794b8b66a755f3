"""The plans: one way through the stages, and where it ends for each kind of dump."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from kdbridge.errors import TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Target

from .kernel import KernelPages
from .plan import Plan, PlannedPages, Stage
from .small import small_plan

__all__ = ["active_plan", "complete_plan", "kernel_plan", "plan_up_to"]


def plan_up_to(last: Stage) -> Plan:
    """The plan that ends with this stage."""
    return {
        Stage.SMALL: small_plan,
        Stage.KERNEL: kernel_plan,
        Stage.ACTIVE: active_plan,
        Stage.COMPLETE: complete_plan,
    }[last]


def kernel_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """What a small dump shows, then all that the kernel half of any process maps, bounded by the frames of RAM:
    devices are mapped there too, and reading one is no longer reading.

    Its first part raises TargetRefusedError where there are no page tables to walk.
    """
    return _staged(source, target, Stage.KERNEL)


def active_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """What the kernel plan has, then what is in use: by the PFN database where its layout can be proven, and by the
    page tables of every process: pages that are mapped, or in transition, in a user half.

    Its first part raises TargetRefusedError where there are no page tables to walk.
    """
    return _staged(source, target, Stage.ACTIVE)


async def complete_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """Every page that Windows manages, in the order of the stages. Without page tables to walk: ascending.

    Raises TargetRefusedError where nobody knows which pages those are.
    """
    if target.runs is None or source.physical is None:
        raise TargetRefusedError(
            "a complete dump needs the physical memory runs and physical reads, and this target gives "
            + ("no runs" if target.runs is None else "no physical reads")
            + "; --kind kernel brings home what its page tables map",
            api="ReadPhysicalMemory",
            status=0,
        )
    if target.directory_table_base is not None:
        async with aclosing(_staged(source, target, Stage.COMPLETE)) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield replace(part, pages=part.pages & target.runs, known_total=target.runs.page_count)
    yield PlannedPages(target.runs, "physical memory", target.runs.page_count, Stage.COMPLETE, ends=True)


async def _staged(source: Source, target: Target, last: Stage) -> AsyncIterator[PlannedPages]:
    pages = KernelPages(source, target)
    stages = [small_plan(source, target), pages.core(), pages.kernel()]
    if last >= Stage.ACTIVE:
        stages.append(pages.active())
    if last >= Stage.COMPLETE:
        stages.append(pages.zeroed())
    for stage in stages:
        async with aclosing(stage) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield part
