"""Rendering: from pages that were brought home to a dump file that every Windows debugger opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import trio

from kdbridge.errors import DumpError
from kdbridge.log_blob import encode_log
from kdbridge.plan import Stage, plan_up_to
from kdbridge.progress import Meter, ProgressSink
from kdbridge.target import Target
from protocol.address import PageRun, PageRuns
from protocol.arch import architecture_of
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpAttributes, DumpHeader, DumpType
from protocol.dumpfile.header_layout import MOST_RUNS
from protocol.dumpfile.plan import DumpPlan, plan_bitmap, plan_complete
from protocol.errors import DumpFormatError

from .header import comment_of, header_of
from .held import HeldPages, held_among
from .kind import DumpKind, DumpLayoutChoice
from .log import log_of
from .overlay import Overlay, overlay_for
from .rendered import Rendered
from .small import render_small
from .whole import whole_file

__all__ = ["render"]

_RUN_PAGES = 256


async def render(
    source: HeldPages,
    target: Target,
    path: Path,
    *,
    kind: DumpKind = DumpKind.COMPLETE,
    layout: DumpLayoutChoice = DumpLayoutChoice.AUTO,
    comment: str = "",
    force: bool = False,
    partial: bool = False,
    strict: bool = False,
    progress: ProgressSink | None = None,
) -> Rendered:
    """Write a dump file: under a temporary name first, renamed when it is whole.

    Raises DumpError when the file exists and `force` is not set, when it cannot be written, when the target lacks
    what a header needs (an architecture, a directory table base, memory runs), or when pages of this kind were never
    read and `partial` does not say that this is known. `strict`: pages that were inferred count as never read.
    """
    _make_sure_of(path, force)
    architecture = architecture_of(target.version.machine_type)
    if architecture is not None and architecture.pointer_size != 8:
        raise DumpError(f"{path} cannot be written: dumps of 32-bit machines are read, and not written")
    if kind is DumpKind.SMALL:
        return await render_small(source, target, path, comment=comment, partial=partial)
    if architecture is None or not target.directory_table_base or target.runs is None:
        lacking = "no directory table base" if not target.directory_table_base else "no physical memory runs"
        raise DumpError(f"a dump of {source.name} cannot be written: discovery found {lacking}")
    overlay = await overlay_for(source, target)
    wanted = await _pages_of(kind, source, target, target.runs)
    held, unreadable = await held_among(source, wanted, progress)
    if strict:
        held -= source.inferred
    missing = wanted.page_count - held.page_count - unreadable.page_count
    if missing and not partial:
        raise DumpError(
            f"{source.name} lacks {missing} of the {wanted.page_count} pages of a {kind} dump; "
            "--partial writes what there is, a smaller --kind needs fewer"
        )
    if missing:
        layout = DumpLayoutChoice.BITMAP
    lacking = f"PARTIAL: {held.page_count} of {wanted.page_count} pages" if missing else ""
    attributes = DumpAttributes.FILTER_DUMP_FILE if kind is DumpKind.ACTIVE else 0
    header = header_of(target, architecture, comment_of(target, comment, lacking), attributes)
    try:
        plan = _plan(header, target.runs, held, kind, layout)
        if kind is DumpKind.ACTIVE or held & source.inferred:
            # Windows' kernel and complete dumps have no such piece, and ours only where there is something to tell.
            plan = plan.with_secondary(encode_log(log_of(source, held, unreadable, missing), header.minor_version))
    except DumpFormatError as error:
        raise DumpError(f"{path} cannot be written: {error}") from None
    meter = Meter(progress, f"writing {path.name}", plan.total_size)
    await _write(source, plan, held, overlay, path, meter)
    return Rendered(
        path=path,
        dump_type=plan.header.dump_type,
        size=plan.total_size,
        pages=held.page_count,
        unreadable=unreadable.page_count,
        missing=missing,
        overlaid=len(overlay.frames),
        shortcomings=tuple(overlay.missing),
    )


async def _pages_of(kind: DumpKind, source: HeldPages, target: Target, runs: PageRuns) -> PageRuns:
    """The pages that belong into a dump of this kind, as far as what is held tells."""
    if kind is DumpKind.COMPLETE:
        return runs
    parts = [part.pages async for part in plan_up_to(kind.stage)(source, target)]
    return PageRuns(run for pages in parts for run in pages) & runs


def _make_sure_of(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise DumpError(f"{path} exists already; --force overwrites it")


def _plan(header: DumpHeader, runs: PageRuns, held: PageRuns, kind: DumpKind, layout: DumpLayoutChoice) -> DumpPlan:
    if kind.stage is Stage.KERNEL:
        return plan_bitmap(header, runs, held, DumpType.BITMAP_KERNEL)
    if kind is DumpKind.ACTIVE:
        return plan_bitmap(header, runs, held, DumpType.BITMAP_FULL)
    fits = len(runs) <= MOST_RUNS[header.bits]
    if layout is DumpLayoutChoice.RUNS or (layout is DumpLayoutChoice.AUTO and fits):
        return plan_complete(header, runs)
    return plan_bitmap(header, runs, held, DumpType.BITMAP_FULL)


async def _write(source: HeldPages, plan: DumpPlan, held: PageRuns, overlay: Overlay, path: Path, meter: Meter) -> None:
    with whole_file(path, plan.total_size) as file:
        for piece in plan.prefix():
            file.write(piece)
            meter.done += len(piece)
        for run, there in _pieces(plan.pages, held):
            pages = bytearray(source.read_run(run) if there else UNREADABLE_PAGE * run.page_count)
            if there:
                overlay.apply(run.base_page, pages)
            file.write(pages)
            meter.done += len(pages)
            meter.tell(trio.current_time())
            await trio.lowlevel.checkpoint()
        file.write(plan.secondary)
    meter.tell(trio.current_time(), always=True)


def _pieces(pages: PageRuns, held: PageRuns) -> Iterator[tuple[PageRun, bool]]:
    """The pages in order, in pieces of at most 1 MiB, each either held as a whole or not at all."""
    there = iter(held & pages)
    inside = next(there, None)
    for run in pages:
        at = run.base_page
        while at < run.end_page:
            known = inside is not None and inside.base_page <= at
            end = run.end_page
            if inside is not None:
                end = inside.end_page if known else min(end, inside.base_page)
            for start in range(at, end, _RUN_PAGES):
                yield PageRun(start, min(_RUN_PAGES, end - start)), known
            if known:
                inside = next(there, None)
            at = end
