"""Checking a dump file: is it whole, does it say what a debugger needs, and is every page what was read?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import trio

from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.progress import Meter, ProgressSink
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.header import DumpType

from .overlay import frames_of

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
    """Frames (the first 64) that differ from the witness where nothing was laid over them."""
    overlaid: int
    """Frames that differ because registers or the decoded KDBG were laid over them, as they must be."""
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
    allowed = await frames_of(dump, target)
    compared = 0
    overlaid = 0
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
                    if data[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] == against.page(at + index):
                        continue
                    if at + index in allowed:
                        overlaid += 1
                    elif len(differing) < 64:
                        differing.append(at + index)
                meter.done += piece.page_count * PAGE_SIZE
                meter.tell(trio.current_time())
                await trio.lowlevel.checkpoint()
        extra = (dump.held - against.held).page_count
        if extra:
            problems.append(f"{extra} pages of the dump are not in {against.name}")
        notes.append(f"{compared} pages compared with {against.name}")
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
