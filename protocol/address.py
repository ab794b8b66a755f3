"""Addresses, page frames and runs of pages: the arithmetic that every other file speaks in."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NewType

from .errors import LayoutError

__all__ = [
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "PageRun",
    "PageRuns",
    "Pfn",
    "PhysicalAddress",
    "VirtualAddress",
    "format_address",
    "parse_address",
]

PhysicalAddress = NewType("PhysicalAddress", int)
VirtualAddress = NewType("VirtualAddress", int)
Pfn = NewType("Pfn", int)
"""Page frame number: a physical address divided by PAGE_SIZE."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
"""4096 on x86, x64 and ARM64 Windows alike (dump-formats 2.7)."""

_ADDRESS = re.compile(r"(?:0x|0n)?[0-9a-f`]+", re.IGNORECASE)


def parse_address(text: str) -> int:
    """Read an address as WinDbg writes it: hexadecimal, with or without 0x, backquotes allowed, 0n for decimal.

    Raises LayoutError for anything else, or for more than 64 bits.
    """
    plain = text.strip()
    digits = plain.lower().replace("`", "")
    if not plain or not _ADDRESS.fullmatch(plain):
        raise LayoutError("address", f"{text!r} is not one; write it as fffff804`7c62a390, 0x1000 or 0n4096")
    try:
        value = int(digits[2:], 10) if digits.startswith("0n") else int(digits, 16)
    except ValueError:
        raise LayoutError("address", f"{text!r} is not a number") from None
    if value >> 64:
        raise LayoutError("address", f"{text!r} needs more than 64 bits")
    return value


def format_address(value: int) -> str:
    """Write a 64-bit address as WinDbg does: fffff804`7c62a390."""
    return f"{value >> 32 & 0xFFFFFFFF:08x}`{value & 0xFFFFFFFF:08x}"


@dataclass(frozen=True, slots=True, order=True)
class PageRun:
    """`page_count` page frames that follow each other, from `base_page` on."""

    base_page: int
    page_count: int

    @property
    def end_page(self) -> int:
        """The first frame behind the run."""
        return self.base_page + self.page_count


class PageRuns:
    """A set of page frames: runs in ascending order that neither touch nor overlap. Immutable."""

    __slots__ = ("_page_count", "_runs", "_starts")

    def __init__(self, runs: Iterable[PageRun] = ()) -> None:
        merged: list[PageRun] = []
        for run in sorted(run for run in runs if run.page_count > 0):
            if merged and run.base_page <= merged[-1].end_page:
                last = merged[-1]
                merged[-1] = PageRun(last.base_page, max(last.end_page, run.end_page) - last.base_page)
            else:
                merged.append(run)
        self._runs = tuple(merged)
        self._starts = [run.base_page for run in merged]
        self._page_count = sum(run.page_count for run in merged)

    @classmethod
    def from_pages(cls, pages: Iterable[int]) -> PageRuns:
        """The set of these frames; any order, repeats allowed."""
        runs: list[PageRun] = []
        start = end = -1
        for page in sorted(set(pages)):
            if page != end:
                if end > start:
                    runs.append(PageRun(start, end - start))
                start = page
            end = page + 1
        if end > start:
            runs.append(PageRun(start, end - start))
        return cls(runs)

    @property
    def page_count(self) -> int:
        """Frames in the set."""
        return self._page_count

    @property
    def end_page(self) -> int:
        """One beyond the highest frame; 0 for the empty set."""
        return self._runs[-1].end_page if self._runs else 0

    def __iter__(self) -> Iterator[PageRun]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> PageRun:
        return self._runs[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageRuns) and self._runs == other._runs

    def __hash__(self) -> int:
        return hash(self._runs)

    def __repr__(self) -> str:
        return f"PageRuns({list(self._runs)!r})"

    def __contains__(self, page: object) -> bool:
        return isinstance(page, int) and self.run_of(page) is not None

    def run_of(self, page: int) -> PageRun | None:
        """The run that holds this frame."""
        at = bisect.bisect_right(self._starts, page) - 1
        if at < 0 or page >= self._runs[at].end_page:
            return None
        return self._runs[at]

    def pages(self) -> Iterator[int]:
        """Every frame, ascending."""
        for run in self._runs:
            yield from range(run.base_page, run.end_page)

    def __or__(self, other: PageRuns) -> PageRuns:
        return PageRuns([*self._runs, *other._runs])

    def __and__(self, other: PageRuns) -> PageRuns:
        found: list[PageRun] = []
        mine, theirs = 0, 0
        while mine < len(self._runs) and theirs < len(other._runs):
            a, b = self._runs[mine], other._runs[theirs]
            start, end = max(a.base_page, b.base_page), min(a.end_page, b.end_page)
            if start < end:
                found.append(PageRun(start, end - start))
            if a.end_page <= b.end_page:
                mine += 1
            else:
                theirs += 1
        return PageRuns(found)

    def __sub__(self, other: PageRuns) -> PageRuns:
        left: list[PageRun] = []
        for run in self._runs:
            start = run.base_page
            at = max(bisect.bisect_right(other._starts, start) - 1, 0)
            for cut in other._runs[at:]:
                if cut.base_page >= run.end_page:
                    break
                if cut.end_page <= start:
                    continue
                if cut.base_page > start:
                    left.append(PageRun(start, cut.base_page - start))
                start = cut.end_page
            if start < run.end_page:
                left.append(PageRun(start, run.end_page - start))
        return PageRuns(left)
