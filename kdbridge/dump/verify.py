"""Checking a dump file: is it whole, does it say what a debugger needs, and is every page what was read?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdbridge.discovery import discover
from kdbridge.errors import UsageError
from kdbridge.log_blob import inferred_left_out
from kdbridge.memory.files import DumpFile
from kdbridge.progress import ProgressSink
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from protocol.address import PAGE_SIZE
from protocol.arch import Architecture, architecture_of
from protocol.dumpfile.header import DumpType

from .header import context_record
from .overlay import laid_over
from .verify_pages import Pages, PageWitness, compare_pages, count_among
from .verify_pieces import compare_pieces

__all__ = ["PageWitness", "Verified", "verify"]

_NEEDED = ("KDBG", "processors", "registers", "directory table base", "modules")


@dataclass(frozen=True, slots=True)
class Verified:
    """What the check found. `good` when nothing is wrong with the file."""

    target: Target
    dump_type: DumpType
    pages: int
    compared: int
    """Pages that were held against the witness."""
    compared_bytes: int
    """The same in bytes; of a small dump, which has no pages, the bytes of its pieces."""
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
    """Check a dump's structure and what discovery finds in it; and, with a witness, every page or piece of it.

    Raises UsageError for a witness that this dump cannot be compared with.
    """
    if against is not None:
        _refuse_the_unlike(dump, against)
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
    if inferred := await count_among(dump, dump.inferred):
        notes.append(f"{inferred} pages were not read from the target, but inferred")
    if left_out := inferred_left_out(dump.log):
        notes.append(f"{left_out} more were inferred: which, its log had no room to name")
    pages, compared_bytes = Pages(), 0
    if against is not None:
        pages = await compare_pages(dump, await laid_over(dump, target), against, progress)
        compared_bytes = pages.compared * PAGE_SIZE
        if pages.extra:
            problems.append(f"{pages.extra} pages of the dump are not in {against.name}")
        if dump.small is None:
            notes.append(f"{pages.compared} pages compared with {against.name}")
        if pages.marked:
            notes.append(f"{pages.marked} pages are marked as unreadable, and {against.name} has them")
        if dump.small is not None and isinstance(against, Snapshot | DumpFile):
            pieces = await compare_pieces(dump, target, against)
            compared_bytes = pieces.compared
            notes.append(
                f"{pieces.compared} of {pieces.size} bytes in {pieces.count} pieces compared with {against.name}"
            )
            if pieces.laid_over:
                notes.append(f"{pieces.laid_over} bytes differ where registers or a decoded KDBG were laid over them")
            truth = "what was read" if isinstance(against, Snapshot) else f"the one that {against.name} has"
            problems += [f"the byte at {address:#x} is not {truth}" for address in pieces.differing]
        if isinstance(against, Snapshot):
            # Also of a small dump that was written before any memory came, its registers are compared.
            problems += _not_as_told(layout.header.context_record, target, against)
        elif not compared_bytes and not pages.extra:
            problems.append(f"{against.name} has none of the dump's memory: nothing was compared")
    return Verified(
        target,
        layout.kind,
        layout.pages.page_count,
        pages.compared,
        compared_bytes,
        tuple(pages.differing),
        pages.overlaid,
        tuple(problems),
        tuple(notes),
    )


def _refuse_the_unlike(dump: DumpFile, against: PageWitness) -> None:
    """Pieces of virtual memory and pages can be compared only where page tables lead from one to the other."""
    if dump.small is not None and not isinstance(against, Snapshot | DumpFile):
        raise UsageError(
            f"{against.name} cannot be read by virtual address, as the small dump {dump.name} must be:"
            " give the Snapshot or the dump that it was made of"
        )
    if dump.small is None and isinstance(against, DumpFile) and against.small is not None:
        raise UsageError(f"{against.name} is a small dump, which has no pages: check that one, --against {dump.name}")


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
