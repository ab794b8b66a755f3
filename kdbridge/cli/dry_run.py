"""dump --dry-run: for each kind, how much would be read and how long it would take, before anything is decided."""

from __future__ import annotations

import tempfile
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import trio

from kdbridge.acquire import KeepingMemory, KeepingSource
from kdbridge.budget import Budget
from kdbridge.dump import DumpKind
from kdbridge.memory.virtual import PagedVirtualMemory
from kdbridge.opening import OpenTarget
from kdbridge.plan import Plan, Stage, complete_plan, small_plan
from kdbridge.progress import Meter
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.arch import architecture_of

from .bringing import announce
from .budget_options import Limits
from .output import print_json, target_document, tell
from .run import open_live, say
from .words import duration, size

__all__ = ["dry_run"]

_SAMPLE = 16
"""Pages that are read to see how fast the line is: 6 s at 115200 baud."""
_KINDS = (DumpKind.SMALL, DumpKind.KERNEL, DumpKind.ACTIVE, DumpKind.COMPLETE)


@dataclass(frozen=True, slots=True)
class _Estimate:
    kind: DumpKind
    pages: int
    seconds: float

    @property
    def bytes(self) -> int:
        return self.pages * PAGE_SIZE


async def dry_run(target: str, kind: DumpKind, wait: float, limits: Limits, *, break_in: bool, as_json: bool) -> int:
    """Measure the line, make the plan, print both. What is read for that is not kept."""
    async with open_live(target, wait, break_in=break_in) as opened:
        started = trio.current_time()
        found = await opened.discover(lambda finding: None)
        began = trio.current_time() - started
        announce(found)
        say("working out what would be read: page tables and lists are read for it")
        amounts = await _amounts(opened, found)
        rate = await _rate(opened, found)
        estimates = [
            _Estimate(one, amounts[one.stage], began + amounts[one.stage] * PAGE_SIZE / rate)
            for one in _KINDS
            if one.stage in amounts
        ]
        promised = [
            one
            for one in estimates
            if one.kind.stage <= kind.stage and one.seconds <= limits.seconds and one.bytes <= limits.size
        ]
        if as_json:
            print_json(_document(estimates, promised, kind, rate, limits, found))
        else:
            for one in estimates:
                mark = "  <- asked for" if one.kind.stage is kind.stage else ""
                tell(f"{one.kind:>9}: {one.pages:>9} pages, {size(one.bytes):>10}, about {duration(one.seconds)}{mark}")
            tell(f"at {size(round(rate))}/s, as measured just now")
            if limits.set:
                best = promised[-1].kind.words if promised else "not even a small dump"
                tell(f"within {limits}: {best}")
        return 1 if found.shortcomings else 0


def _document(
    estimates: list[_Estimate],
    promised: list[_Estimate],
    kind: DumpKind,
    rate: float,
    limits: Limits,
    found: Target,
) -> dict[str, object]:
    kinds = {
        str(one.kind): {"pages": one.pages, "bytes": one.bytes, "seconds": round(one.seconds, 1)} for one in estimates
    }
    asked = next((one for one in estimates if one.kind.stage is kind.stage), None)
    return {
        "kind": str(kind),
        "pages": asked.pages if asked else None,
        "bytes": asked.bytes if asked else None,
        "seconds": round(asked.seconds) if asked else None,
        "bytes_per_second": round(rate),
        "kinds": kinds,
        "promised": str(promised[-1].kind) if limits.set and promised else None,
        "target": target_document(found),
    }


async def _amounts(opened: OpenTarget, found: Target) -> dict[Stage, int]:
    """Pages up to the end of each stage, as far as this target allows."""
    with (
        tempfile.TemporaryDirectory(prefix="kdbridge") as folder,
        Snapshot.create(Path(folder) / "planned", found) as scratch,
    ):
        source = _planning_source(opened, found, scratch)
        if source.physical is None:
            return await _counted(small_plan, source, found)
        plan = complete_plan if found.runs is not None else small_plan
        return await _counted(plan, source, found)


async def _counted(plan: Plan, source: KeepingSource, found: Target) -> dict[Stage, int]:
    pages, pieces = PageRuns(), 0
    amounts: dict[Stage, int] = {}
    async with aclosing(plan(source, found)) as parts:  # type: ignore[type-var]
        async for part in parts:
            pages |= part.pages
            pieces += sum(piece.size for piece in part.ranges)
            if part.ends:
                amounts[part.stage] = pages.page_count + -(-pieces // PAGE_SIZE)
    return amounts


def _planning_source(opened: OpenTarget, found: Target, scratch: Snapshot) -> KeepingSource:
    architecture = architecture_of(found.version.machine_type)
    if opened.physical is None or architecture is None or found.directory_table_base is None:
        memory = None if opened.physical is None else KeepingMemory(opened.physical, scratch, _silent(), Budget())
        return KeepingSource(opened, memory, opened.virtual)
    memory = KeepingMemory(opened.physical, scratch, _silent(), Budget())
    virtual = PagedVirtualMemory(memory, architecture.paging, found.directory_table_base, found.runs)
    return KeepingSource(opened, memory, virtual)


def _silent() -> Meter:
    return Meter(None, "planning", None)


async def _rate(opened: OpenTarget, found: Target) -> float:
    """Bytes a second of reading pages in a row, by reading a few."""
    if opened.physical is None or not found.runs:
        return 1.0
    started, count = trio.current_time(), 0
    sample = PageRun(found.runs[0].base_page, min(found.runs[0].page_count, _SAMPLE))
    async with aclosing(opened.physical.read_pages([sample])) as pages:  # type: ignore[type-var]
        async for page in pages:
            count += len(page.data or b"")
    return max(count / max(trio.current_time() - started, 1e-3), 1.0)
