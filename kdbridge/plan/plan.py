"""What a plan is: page ranges, most valuable first, each with the reason why it is worth its time on the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRuns

__all__ = ["Plan", "PlannedPages"]


@dataclass(frozen=True, slots=True)
class PlannedPages:
    """Pages to read next, and why. A page may be planned twice: it is read once."""

    pages: PageRuns
    reason: str
    known_total: int | None = None
    """How many pages the whole plan comes to, once that is known."""


Plan: TypeAlias = Callable[[Source, Target], AsyncIterator[PlannedPages]]
"""Given a source and what discovery found, the pages in order. What it reads to find out (page tables, lists) it
reads through the source, which keeps it: nothing is read twice."""
