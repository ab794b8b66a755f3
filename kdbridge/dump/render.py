"""Rendering: from pages that were brought home to a dump file that every Windows debugger opens."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from kdbridge.errors import DumpError
from kdbridge.plan import kernel_plan
from kdbridge.progress import Meter, ProgressSink
from kdbridge.target import Target
from protocol.address import PageRun, PageRuns
from protocol.arch import Architecture, architecture_of
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.header import DumpHeader, DumpType
from protocol.dumpfile.header_layout import COMMENT_SIZE, MOST_RUNS
from protocol.dumpfile.plan import DumpPlan, plan_bitmap, plan_complete
from protocol.errors import DumpFormatError
from protocol.ntstatus import STATUS_BREAKPOINT

from .held import HeldPages
from .overlay import Overlay, overlay_for

__all__ = ["DumpKind", "DumpLayoutChoice", "Rendered", "context_record", "render"]

_RUN_PAGES = 256


class DumpKind(enum.StrEnum):
    """How much memory a dump holds."""

    COMPLETE = "complete"
    KERNEL = "kernel"


class DumpLayoutChoice(enum.StrEnum):
    """How a complete dump is laid out: auto takes runs (type 1) where they fit, and a bitmap (type 5) beyond."""

    AUTO = "auto"
    RUNS = "runs"
    BITMAP = "bitmap"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The file that was written."""

    path: Path
    dump_type: DumpType
    size: int
    pages: int
    """Pages of the target's memory in it."""
    unreadable: int
    """Pages that the target refused: marked in a complete dump, left out of a bitmap dump."""
    missing: int
    """Pages that belong into this kind and were never read."""
    overlaid: int
    """Pages over which registers or a decoded KDBG were laid."""
    shortcomings: tuple[str, ...]


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
    progress: ProgressSink | None = None,
) -> Rendered:
    """Write a dump file: under a temporary name first, renamed when it is whole.

    Raises DumpError when the file exists and `force` is not set, when it cannot be written, when the target lacks
    what a header needs (an architecture, a directory table base, memory runs), or when pages of this kind were never
    read and `partial` does not say that this is known.
    """
    _make_sure_of(path, force)
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or not target.directory_table_base or target.runs is None:
        lacking = "no directory table base" if not target.directory_table_base else "no physical memory runs"
        raise DumpError(f"a dump of {source.name} cannot be written: discovery found {lacking}")
    overlay = await overlay_for(source, target)
    wanted = target.runs
    if kind is DumpKind.KERNEL:
        wanted = PageRuns([run async for part in kernel_plan(source, target) for run in part.pages])
    held = source.held & wanted
    unreadable = source.unreadable & wanted
    missing = wanted.page_count - held.page_count - unreadable.page_count
    if missing and not partial:
        raise DumpError(
            f"{source.name} lacks {missing} of the {wanted.page_count} pages of a {kind} dump; "
            "--partial writes what there is, --kind kernel needs fewer"
        )
    if missing:
        layout = DumpLayoutChoice.BITMAP
    lacking = f"PARTIAL: {held.page_count} of {wanted.page_count} pages" if missing else ""
    header = _header(target, architecture, _comment(target, comment, lacking))
    try:
        plan = _plan(header, target.runs, held, kind, layout)
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


def _make_sure_of(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise DumpError(f"{path} exists already; --force overwrites it")


def _plan(header: DumpHeader, runs: PageRuns, held: PageRuns, kind: DumpKind, layout: DumpLayoutChoice) -> DumpPlan:
    if kind is DumpKind.KERNEL:
        return plan_bitmap(header, runs, held, DumpType.BITMAP_KERNEL)
    fits = len(runs) <= MOST_RUNS[header.bits]
    if layout is DumpLayoutChoice.RUNS or (layout is DumpLayoutChoice.AUTO and fits):
        return plan_complete(header, runs)
    return plan_bitmap(header, runs, held, DumpType.BITMAP_FULL)


def _header(target: Target, architecture: Architecture, comment: str) -> DumpHeader:
    """Every field from what the target said; what it did not say stays unset."""
    block = target.kdbg.block if target.kdbg is not None else None
    stop = target.stop
    shared = target.shared_data
    place = stop.program_counter if stop is not None else 0
    code = stop.exception_code if stop is not None and stop.exception_code else STATUS_BREAKPOINT
    return DumpHeader(
        bits=64 if architecture.pointer_size == 8 else 32,
        major_version=target.version.major_version,
        minor_version=target.version.minor_version,
        directory_table_base=(target.directory_table_base or 0) & architecture.paging.root_mask,
        pfn_database=block["mm_pfn_database"] if block is not None else 0,
        ps_loaded_module_list=target.version.ps_loaded_module_list,
        ps_active_process_head=block["ps_active_process_head"] if block is not None else 0,
        machine_image_type=target.version.machine_type,
        number_processors=max(len(target.processors), 1),
        bug_check_code=target.bug_check_code or 0,
        bug_check_parameters=target.bug_check_parameters,
        kd_debugger_data_block=target.kdbg.address if target.kdbg is not None else 0,
        context_record=context_record(target, architecture),
        exception=ExceptionRecord(code, 1, 0, place).encode(64 if architecture.pointer_size == 8 else 32),
        system_time=shared.system_time if shared is not None else None,
        system_up_time=shared.interrupt_time if shared is not None else None,
        comment=comment,
        product_type=shared.product_type if shared is not None else None,
        suite_mask=shared.suite_mask if shared is not None else None,
        writer_status=0 if target.modules else 1,
        kd_secondary_version=0,
        attributes=0,
    )


def context_record(target: Target, architecture: Architecture) -> bytes:
    """The stopped processor's registers. kdmp-parser refuses a file whose two copies of MXCSR differ."""
    place = target.stop.program_counter if target.stop is not None else None
    contexts = [processor.context for processor in target.processors if processor.context is not None]
    chosen = next((c for c in contexts if c[architecture.program_counter] == place), contexts[0] if contexts else None)
    if chosen is None:
        return b""
    raw = chosen.raw[: architecture.context.size]
    if chosen.has("mx_csr2"):
        raw = architecture.context.encode({"mx_csr2": chosen["mx_csr"]}, raw)
    return raw


def _comment(target: Target, comment: str, lacking: str) -> str:
    text = comment or "kdbridge" + (": KDBG decoded by kdbridge" if target.kdbg and target.kdbg.encoded else "")
    text = text.encode("ascii", "replace").decode("ascii").replace("\0", "?")
    if lacking:
        # What is missing has to be read first, however long the user's own words are.
        text = f"{lacking}; {text}"
    return text[: COMMENT_SIZE - 1]


async def _write(source: HeldPages, plan: DumpPlan, held: PageRuns, overlay: Overlay, path: Path, meter: Meter) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with temporary.open("wb") as file:
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
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise DumpError(
            f"{path} cannot be written: {error.strerror or error}; {plan.total_size} bytes are needed. "
            "What was read is kept."
        ) from None
    except BaseException:
        _remove(temporary)
        raise
    meter.tell(trio.current_time(), always=True)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


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
