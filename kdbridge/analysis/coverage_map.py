"""A map of physical memory as SVG: which of it is held, left to right in rows, of one size whatever the memory's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kdbridge.words import size
from protocol.address import PAGE_SHIFT, PageRun, PageRuns

from .model import Held

__all__ = ["MOST_SHAPES", "coverage_svg"]

MOST_SHAPES = 2000
"""Shapes in a map at most."""
_COLUMNS = 60
_CELLS = 900
"""Cells of all stretches together: each is a rectangle, perhaps two; and the last of a stretch may be begun."""
_STRETCHES = 32
_CELL, _GAP = 10, 16
_LABEL = 96
"""Room for the address that a row begins with."""


@dataclass(slots=True)
class _Cell:
    """Frames of each kind in one cell."""

    memory: int = 0
    held: int = 0
    unreadable: int = 0
    inferred: int = 0

    @property
    def look(self) -> str:
        """The class that says how full it is: in eighths, rounded so that only what is whole looks whole."""
        if not self.memory:
            return "hole"
        if self.held >= self.memory:
            return "k8"
        return f"k{max(1, min(7, 8 * self.held // self.memory))}" if self.held else "k0"

    @property
    def mark(self) -> str:
        """What is to be seen even if it is a single frame."""
        return "bad" if self.unreadable else "inferred" if self.inferred else ""


@dataclass(slots=True)
class _Stretch:
    """Memory without a big hole in it."""

    start: int
    end: int
    cells: list[_Cell] = field(default_factory=list)


def coverage_svg(held: Held) -> str:
    """The map, with a title for those who cannot see it. Holes that are large are left out and named."""
    memory = held.memory if len(held.memory) else held.held | held.unreadable
    stretches = _stretches(memory)
    frames = sum(one.end - one.start for one in stretches)
    each = max(1, -(-frames // _CELLS))
    for one in stretches:
        one.cells = [_Cell() for _ in range(-(-(one.end - one.start) // each))]
    for runs, name in ((memory, "memory"), (held.held, "held"), (held.unreadable, "unreadable"),
                       (held.inferred, "inferred")):  # fmt: skip
        _count(stretches, runs, name, each)
    body, height = _drawn(stretches, each)
    width = _LABEL + _COLUMNS * _CELL
    text = f"{size(held.held.page_count << PAGE_SHIFT)} of {size(memory.page_count << PAGE_SHIFT)} are held"
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="{text}">'
        f"<title>{text}; one cell is {size(each << PAGE_SHIFT)}</title>{body}</svg>"
    )


def _stretches(memory: PageRuns) -> list[_Stretch]:
    """Runs that lie near each other, together: cut at the largest holes, where those are large at all."""
    runs = list(memory)
    if not runs:
        return []
    least = max(1, memory.page_count // _STRETCHES)
    holes = sorted((after.base_page - before.end_page, at) for at, (before, after) in enumerate(pairwise(runs)))
    cuts = {at for hole, at in holes[1 - _STRETCHES :] if hole > least}
    found = [_Stretch(runs[0].base_page, runs[0].end_page)]
    for at, run in enumerate(runs[1:]):
        if at in cuts:
            found.append(_Stretch(run.base_page, run.end_page))
        found[-1].end = run.end_page
    return found


def _count(stretches: Sequence[_Stretch], runs: PageRuns, name: str, each: int) -> None:
    """Add the frames of these runs to the cells in which they lie. Both are in ascending order."""
    at = 0
    for run in runs:
        while at < len(stretches) and stretches[at].end <= run.base_page:
            at += 1
        for one in stretches[at:]:
            if one.start >= run.end_page:
                break
            for index, count in _shares(run, one, each):
                cell = one.cells[index]
                setattr(cell, name, getattr(cell, name) + count)


def _shares(run: PageRun, one: _Stretch, each: int) -> Iterator[tuple[int, int]]:
    """(cell, frames of the run in it)."""
    start, end = max(run.base_page, one.start) - one.start, min(run.end_page, one.end) - one.start
    while start < end:
        index = start // each
        stop = min(end, (index + 1) * each)
        yield index, stop - start
        start = stop


def _drawn(stretches: Sequence[_Stretch], each: int) -> tuple[str, int]:
    parts: list[str] = []
    top = 0
    before: _Stretch | None = None
    for one in stretches:
        if before is not None:
            hole = (one.start - before.end) << PAGE_SHIFT
            parts.append(f'<text x="{_LABEL}" y="{top + 12}">no memory for {size(hole)}</text>')
            top += _GAP
        for row in range(0, len(one.cells), _COLUMNS):
            label = (one.start + row * each) << PAGE_SHIFT
            parts.append(f'<text x="{_LABEL - 8}" y="{top + 9}" text-anchor="end">{label:#x}</text>')
            cells = one.cells[row : row + _COLUMNS]
            parts += [_rect(look, at, count, top, 0) for look, at, count in _same([cell.look for cell in cells])]
            parts += [
                _rect(mark, at, count, top, _CELL - 4)
                for mark, at, count in _same([cell.mark for cell in cells])
                if mark
            ]
            top += _CELL
        before = one
    return "".join(parts), max(top, _CELL)


def _same(words: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Neighbours that are alike, as one: (word, first, count)."""
    at = 0
    while at < len(words):
        end = at
        while end < len(words) and words[end] == words[at]:
            end += 1
        yield words[at], at, end - at
        at = end


def _rect(look: str, at: int, count: int, top: int, lower: int) -> str:
    """Cells side by side; `lower` leaves the upper part of them as it is."""
    x, y, height = _LABEL + at * _CELL, top + lower, _CELL - lower - 1
    return f'<rect class="{look}" x="{x}" y="{y}" width="{count * _CELL}" height="{height}"/>'
