"""Pieces of memory that overlap: which of them gives each byte."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Stretch", "without_overlaps"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Addresses from `start` to before `end`, all of one piece."""

    start: int
    end: int
    piece: int
    """Its number, from 0 on."""


def without_overlaps(pieces: Sequence[tuple[int, int]]) -> Iterator[Stretch]:
    """Stretches, ascending, of pieces that are each (address, size): of two that hold a byte, the first has it.

    At most two stretches for each piece, found in a time that grows hardly faster than their number.
    """
    order = sorted((number for number, (_, size) in enumerate(pieces) if size > 0), key=lambda it: pieces[it][0])
    here: list[int] = []  # pieces that have begun, the first of them on top; those that ended go when they come there
    at = begun = 0
    while begun < len(order) or here:
        if not here:
            at = max(at, pieces[order[begun]][0])
        while begun < len(order) and pieces[order[begun]][0] <= at:
            heapq.heappush(here, order[begun])
            begun += 1
        top = here[0]
        end = sum(pieces[top])
        if end <= at:
            heapq.heappop(here)
            continue
        while begun < len(order) and pieces[order[begun]][0] < end:
            if order[begun] < top:
                end = pieces[order[begun]][0]
                break
            heapq.heappush(here, order[begun])
            begun += 1
        yield Stretch(at, end, top)
        at = end
