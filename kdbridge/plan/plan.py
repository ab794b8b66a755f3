"""What a plan is: what to read, most valuable first, each part with the reason why it is worth its time on the line."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRuns

__all__ = ["Plan", "PlannedPages", "Stage", "VirtualRange"]


class Stage(enum.IntEnum):
    """How far a plan is. Each stage is useful alone, and holds all that came before it."""

    SMALL = 1
    """What a small dump shows: registers, stacks, modules, the bug check's own data."""
    CORE = 2
    """Page tables, lists of modules, processes and threads, all kernel stacks, data that the kernel can write to."""
    KERNEL = 3
    """All RAM that the kernel half of any process maps, and every process's page tables."""
    ACTIVE = 4
    """And the pages of processes that are in use."""
    COMPLETE = 5
    """And all the rest."""

    @property
    def brings(self) -> str:
        """What can be written when it has ended; CORE is a part of the way only."""
        name = {Stage.CORE: "kernel"}.get(self, self.name.lower())
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name} dump"

    @property
    def title(self) -> str:
        """As progress names it."""
        return "kernel core" if self is Stage.CORE else self.name.lower()


@dataclass(frozen=True, slots=True)
class VirtualRange:
    """A piece of kernel memory by its virtual address; size in bytes."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class PlannedPages:
    """Pages to read next, and why. A page may be planned twice: it is read once."""

    pages: PageRuns
    reason: str
    known_total: int | None = None
    """How many pages the plan comes to up to the end of this stage, once that is known."""
    stage: Stage = Stage.COMPLETE
    ranges: tuple[VirtualRange, ...] = ()
    """In the place of pages, where nobody can tell which frames these are: read by virtual address."""
    zeroed: bool = False
    """The target says of these pages that they are zero: nobody has to read them who believes it."""
    unmodified: bool = False
    """The target says of these pages that nobody wrote to them since they were read from a file."""
    ends: bool = False
    """Nothing of this stage comes after this part."""


Plan: TypeAlias = Callable[[Source, Target], AsyncIterator[PlannedPages]]
"""Given a source and what discovery found, the parts in order. What it reads to find out (page tables, lists) it
reads through the source, which keeps it: nothing is read twice."""
