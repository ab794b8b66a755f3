"""Checking a dump file: is it whole, does it say what a debugger needs, and is every page what was read?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import trio

from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.progress import Meter, ProgressSink
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.arch import Architecture, architecture_of
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpType

from .header import context_record
from .overlay import laid_over
from .verify_pieces import compare_pieces

__all__ = ["PageWitness", "Verified", "verify"]

_RUN_PAGES = 256
_NEEDED = ("KDBG", "processors", "registers", "directory table base", "modules")


class PageWitness(Protocol):
    """Something that has the same pages: the Snapshot that a dump was made of, or a raw image."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def held(self) -> PageRuns:
        """Frames whose content it has."""
        ...

    def page(self, pfn: int) -> bytes | None:
        """One page."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What the check found. `good` when nothing is wrong with the file."""

    target: Target
    dump_type: DumpType
    pages: int
    compared: int
    differing: tuple[int, ...]
    """Frames (the first 64) that differ from the witness elsewhere than where something was laid over them."""
    overlaid: int
    """Frames that differ by registers or the decoded KDBG only, which were laid over them, as they must be."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """No problem, no difference."""
        return not self.problems and not self.differing


async def verify(dump: DumpFile, against: PageWitness | None = None, progress: ProgressSink | None = None) -> Verified:
    """Check a dump's structure and what discovery finds in it; and, with a witness, every page of it."""
    layout = dump.layout
    problems = list(layout.shortcomings)
    if layout.size > layout.expected_size and not layout.secondary and layout.kind is not DumpType.TRIAGE:
        problems.append(f"{layout.size - layout.expected_size} bytes behind the last page belong to nothing")
    target = await discover(dump)
    notes: list[str] = []
    problems += [f"{part.step}: {part.text}" for part in target.shortcomings if part.step in _NEEDED]
    if len(target.processors) != layout.header.number_processors:
        problems.append(
            f"the header says {layout.header.number_processors} processors, KiProcessorBlock {len(target.processors)}"
        )
    told = layout.header.kd_debugger_data_block
    if target.kdbg is not None and target.kdbg.address != told:
        problems.append(
            f"KDBG: it lies at {target.kdbg.address:#x}, and the header says {told:#x}: debuggers look there"
        )
    problems += _nonsense(target)
    if dump.inferred:
        notes.append(f"{dump.inferred.page_count} pages were not read from the target, but inferred")
    laid = await laid_over(dump, target)
    compared = 0
    overlaid = marked = 0
    differing: list[int] = []
    if against is not None:
        common = dump.stored & against.held
        meter = Meter(progress, "comparing", common.page_count * PAGE_SIZE)
        for run in common:
            for at in range(run.base_page, run.end_page, _RUN_PAGES):
                piece = PageRun(at, min(_RUN_PAGES, run.end_page - at))
                data = dump.read_run(piece)
                for index in range(piece.page_count):
                    compared += 1
                    page = data[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
                    truth = against.page(at + index)
                    if page == truth:
                        continue
                    if truth is not None and laid.onto(at + index, truth) == page:
                        overlaid += 1
                    elif page == UNREADABLE_PAGE and not isinstance(against, Snapshot):
                        marked += 1  # the target refused it then; a raw image may have come by another way
                    elif len(differing) < 64:
                        differing.append(at + index)
                meter.done += piece.page_count * PAGE_SIZE
                meter.tell(trio.current_time())
                await trio.lowlevel.checkpoint()
        extra = (dump.held - against.held).page_count
        if extra:
            problems.append(f"{extra} pages of the dump are not in {against.name}")
        if dump.small is None:
            notes.append(f"{compared} pages compared with {against.name}")
        if marked:
            notes.append(f"{marked} pages are marked as unreadable, and {against.name} has them")
        if isinstance(against, Snapshot) and dump.small is not None:
            pieces = await compare_pieces(dump, against.virtual, against.target)
            notes.append(
                f"{pieces.compared} of {pieces.size} bytes in {pieces.count} pieces compared with {against.name}"
            )
            problems += [f"the byte at {address:#x} is not what was read" for address in pieces.differing]
        if isinstance(against, Snapshot):
            problems += _not_as_told(layout.header.context_record, target, against)
    return Verified(
        target,
        layout.kind,
        layout.pages.page_count,
        compared,
        tuple(differing),
        overlaid,
        tuple(problems),
        tuple(notes),
    )


def _nonsense(target: Target) -> Iterator[str]:
    """Registers that no processor can have had."""
    architecture = architecture_of(target.version.machine_type)
    for processor in target.processors:
        context = processor.context
        if context is None or architecture is None:
            continue
        base = architecture.context_flags_base
        if context[architecture.context_flags] & base != base:
            yield f"registers: what lies where processor {processor.number} keeps its CONTEXT is none"
        elif not all(architecture.paging.is_canonical(context[name]) for name in _places(architecture)):
            yield f"registers: processor {processor.number} stands at an address that does not exist"


def _places(architecture: Architecture) -> tuple[str, str]:
    return architecture.program_counter, architecture.stack_pointer


def _not_as_told(header_context: bytes, found: Target, snapshot: Snapshot) -> Iterator[str]:
    """Registers and a KDBG that are not what the target gave when the Snapshot was made."""
    told = snapshot.target
    architecture = architecture_of(told.version.machine_type)
    if architecture is None:
        return
    size = architecture.context.size
    given = {processor.number: processor.context for processor in told.processors}
    for processor in found.processors:
        truth = given.get(processor.number)
        if truth is not None and processor.context is not None and processor.context.raw[:size] != truth.raw[:size]:
            yield f"registers: those of processor {processor.number} are not the ones that the target gave"
    expected = context_record(told, architecture)
    if header_context[: len(expected)] != expected:
        yield "registers: those in the header are not the ones that the target gave"
    if told.kdbg is not None and found.kdbg is not None and found.kdbg.block.raw != told.kdbg.block.raw:
        yield "KDBG: it is not the one that the target gave"
