"""Where each page lies in a dump file: found by bisection, never one entry a page.

RunIndex is for dumps that say runs: three numbers a run. BitmapIndex is for dumps that say bits: the bitmap itself and
one sum for 4,096 bits, so that 64 GiB of memory cost less than 3 MiB however torn the set of pages is. Of a bitmap that
is too large to be kept the sums alone stay, one for 32,768 bits: at most 2 MiB.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.errors import DumpFormatError

__all__ = [
    "CHUNK_BITS",
    "CHUNK_SIZE",
    "HIGHEST_PAGE",
    "LARGE_CHUNK_SIZE",
    "BitmapIndex",
    "Extent",
    "PageIndex",
    "RunIndex",
    "runs_of_bits",
]

HIGHEST_PAGE = 1 << 40
"""One beyond the highest page frame: physical addresses have 52 bits."""

CHUNK_SIZE = 512
CHUNK_BITS = 8 * CHUNK_SIZE
"""Bits of a bitmap that share one sum."""
LARGE_CHUNK_SIZE = 4096
"""Bytes of bitmap that share one sum where the bitmap is not kept."""

_EMPTY = bytes(CHUNK_SIZE)
_NOTHING = bytes(1 << 16)
"""A piece of a bitmap in which no bit is set, of the size in which files are read."""
_FULL = b"\xff" * CHUNK_SIZE
_WORDS = struct.Struct(f"<{CHUNK_SIZE // 8}Q")
_ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """Pages that follow each other both in memory and in the file. At least one; more may lie right behind them."""

    file_offset: int
    page_count: int


class PageIndex(Protocol):
    """Which pages a file holds, and where. Pages that the file is too short for are not in it."""

    @property
    def page_count(self) -> int:
        """Pages that the file holds."""
        ...

    @property
    def claimed_count(self) -> int:
        """Pages that the file should hold: more than `page_count` where it was cut off."""
        ...

    def offset_of(self, page: int) -> int | None:
        """File offset of a page frame's first byte; None where the file does not hold it."""
        ...

    def extent_of(self, page: int) -> Extent | None:
        """The same, with how many pages can be read there at once."""
        ...

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame."""
        ...


class RunIndex:
    """Pages that lie in a file run by run, whatever the order of the runs."""

    __slots__ = ("_bases", "_claimed_count", "_counts", "_first", "_page_count", "_ranks", "ambiguous")

    def __init__(self, first_page_offset: int, runs: Iterable[PageRun], stored: int | None = None) -> None:
        """`runs` in the file's order, of which the file holds the first `stored` pages (None: all).

        What two of these runs hold is left out: which of its two places is true cannot be told.
        Raises DumpFormatError when a run is beyond what can be physical memory.
        """
        self._first = first_page_offset
        self._bases: array[int] = array("Q")
        self._counts: array[int] = array("Q")
        self._ranks: array[int] = array("Q")
        self._claimed_count, rank, ascending = 0, 0, True
        for number, run in enumerate(runs):
            if run.end_page > HIGHEST_PAGE:
                raise DumpFormatError(
                    f"run {number} of memory, {run.page_count:#x} pages from {run.base_page:#x} on, is beyond 52 bits"
                )
            self._claimed_count += run.page_count
            count = run.page_count if stored is None else min(run.page_count, stored - rank)
            if count <= 0:
                continue
            ascending = ascending and (not self._bases or run.base_page > self._bases[-1])
            self._bases.append(run.base_page)
            self._counts.append(count)
            self._ranks.append(rank)
            rank += count
        if not ascending:
            self._sort()
        self.ambiguous = self._twice()
        """Pages that two runs hold."""
        if self.ambiguous:
            self._leave_out(self.ambiguous)
        self._page_count = sum(self._counts)

    def _sort(self) -> None:
        order = sorted(range(len(self._bases)), key=self._bases.__getitem__)
        self._bases, self._counts, self._ranks = (
            array("Q", (column[at] for at in order)) for column in (self._bases, self._counts, self._ranks)
        )

    def _twice(self) -> PageRuns:
        found: list[PageRun] = []
        end = 0
        for base, count in zip(self._bases, self._counts, strict=True):
            if base < end:
                found.append(PageRun(base, min(end - base, count)))
            end = max(end, base + count)
        return PageRuns(found)

    def _leave_out(self, pages: PageRuns) -> None:
        columns = list(zip(self.runs(), self._ranks, strict=True))
        self._bases, self._counts, self._ranks = array("Q"), array("Q"), array("Q")
        for run, rank in columns:
            for part in PageRuns([run]) - pages:
                self._bases.append(part.base_page)
                self._counts.append(part.page_count)
                self._ranks.append(rank + part.base_page - run.base_page)

    @property
    def page_count(self) -> int:
        """Pages that the file holds."""
        return self._page_count

    @property
    def claimed_count(self) -> int:
        """Pages that the file should hold."""
        return self._claimed_count

    def offset_of(self, page: int) -> int | None:
        """File offset of a page frame's first byte."""
        extent = self.extent_of(page)
        return None if extent is None else extent.file_offset

    def extent_of(self, page: int) -> Extent | None:
        """From this page to the end of its run."""
        at = bisect.bisect_right(self._bases, page) - 1
        if at < 0 or (skipped := page - self._bases[at]) >= self._counts[at]:
            return None
        return Extent(self._first + (self._ranks[at] + skipped) * PAGE_SIZE, self._counts[at] - skipped)

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame; runs that touch are not joined."""
        for base, count in zip(self._bases, self._counts, strict=True):
            yield PageRun(base, count)


class BitmapIndex:
    """Pages that lie in a file in ascending order, one for each set bit."""

    __slots__ = ("_before", "_bits", "_chunks", "_claimed_count", "_first", "_page_count")

    def __init__(
        self,
        first_page_offset: int,
        bitmap: Iterable[bytes],
        stored: int | None = None,
        again: Callable[[int], bytes] | None = None,
    ) -> None:
        """`bitmap` in pieces of any size, each read once; the file holds `stored` pages (None: all).

        With `again`, which gives the chunk of LARGE_CHUNK_SIZE bytes with this number, the bitmap is not kept.
        """
        self._first = first_page_offset
        self._chunks: list[bytes] | _Again = [] if again is None else _Again(again)
        self._before: array[int] = array("Q")
        self._page_count = self._claimed_count = 0
        size = CHUNK_SIZE if again is None else LARGE_CHUNK_SIZE
        self._bits = 8 * size
        for piece in _in_pieces(bitmap, size):
            if stored is None or self._page_count < stored:
                self._add(piece, size, stored)
            elif piece != _NOTHING:
                self._claimed_count += int.from_bytes(piece, "little").bit_count()

    def _add(self, piece: bytes, size: int, stored: int | None) -> None:
        """A whole number of chunks."""
        if piece == _NOTHING:
            # A bitmap may be 1 GiB of hardly anything: such a piece costs one comparison.
            number = len(piece) // size
            self._before.extend(itertools.repeat(self._page_count, number))
            if isinstance(self._chunks, _Again):
                self._chunks.append(piece[:size], number)
            else:
                self._chunks.extend([_EMPTY] * number)
            return
        for at in range(0, len(piece), size):
            chunk = piece[at : at + size]
            count = int.from_bytes(chunk, "little").bit_count()
            self._claimed_count += count
            if stored is None or count < stored - self._page_count:
                self._append(chunk, count)
            elif room := stored - self._page_count:
                self._append(_lowest_bits(chunk, room), room)

    def _append(self, chunk: bytes, count: int) -> None:
        if isinstance(self._chunks, _Again):
            self._chunks.append(chunk)
        else:
            # Most of a bitmap is nothing or everything: one object stands for all such chunks.
            self._chunks.append(_EMPTY if not count else _FULL if count == CHUNK_BITS else chunk)
        self._before.append(self._page_count)
        self._page_count += count

    @property
    def page_count(self) -> int:
        """Pages that the file holds."""
        return self._page_count

    @property
    def claimed_count(self) -> int:
        """Pages that the file should hold."""
        return self._claimed_count

    def offset_of(self, page: int) -> int | None:
        """File offset of a page frame's first byte."""
        at, bit = divmod(page, self._bits)
        if not 0 <= at < len(self._chunks) or not self._chunks[at][bit >> 3] >> (bit & 7) & 1:
            return None
        below = int.from_bytes(self._chunks[at][: bit + 8 >> 3], "little") & (1 << bit) - 1
        return self._first + (self._before[at] + below.bit_count()) * PAGE_SIZE

    def extent_of(self, page: int) -> Extent | None:
        """From this page to the next clear bit, or to the end of its chunk of the bitmap."""
        offset = self.offset_of(page)
        if offset is None:
            return None
        at, bit = divmod(page, self._bits)
        ahead = int.from_bytes(self._chunks[at], "little") >> bit
        return Extent(offset, ((ahead + 1) & ~ahead).bit_length() - 1)

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame; runs that touch are joined."""
        return _joined(self._apart())

    def _apart(self) -> Iterator[PageRun]:
        """The runs, cut at the borders of chunks. The sums tell where nothing is: nothing is read there."""
        at, end = 0, len(self._before)
        while at < end:
            count = (self._before[at + 1] if at + 1 < end else self._page_count) - self._before[at]
            base = at * self._bits
            if count == self._bits:
                yield PageRun(base, count)
            elif count:
                for run in runs_of_bits([self._chunks[at]]):
                    yield PageRun(base + run.base_page, run.page_count)
            at = at + 1 if count else max(bisect.bisect_right(self._before, self._before[at], at) - 1, at + 1)


class _Again:
    """Chunks of a bitmap that is not kept: each is asked for again. The latest one is kept, and the last one of all."""

    __slots__ = ("_ask", "_count", "_last", "_latest")

    def __init__(self, ask: Callable[[int], bytes]) -> None:
        self._ask = ask
        self._count = 0
        self._last = self._latest = (-1, b"")

    def append(self, chunk: bytes, number: int = 1) -> None:
        """This chunk, so many times."""
        self._count += number
        self._last = (self._count - 1, chunk)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> bytes:
        # The last chunk may have fewer bits than the file says: those of the pages that are there.
        for known, chunk in (self._last, self._latest):
            if known == number:
                return chunk
        self._latest = (number, self._ask(number).ljust(LARGE_CHUNK_SIZE, b"\0"))
        return self._latest[1]


def runs_of_bits(bitmap: Iterable[bytes]) -> Iterator[PageRun]:
    """The runs of set bits in a bitmap that comes in pieces of any size; runs that touch are joined."""
    start: int | None = None
    base = 0
    for chunk in _in_chunks(bitmap):
        if (chunk == _FULL and start is not None) or (chunk == _EMPTY and start is None):
            base += CHUNK_BITS
            continue
        for word in _WORDS.unpack(chunk):
            at = 0
            while at < 64:
                # Where a run is open look for the next clear bit, else for the next set one.
                rest = (word if start is None else word ^ _ALL) >> at
                if not rest:
                    break
                at += (rest & -rest).bit_length() - 1
                if start is None:
                    start = base + at
                else:
                    yield PageRun(start, base + at - start)
                    start = None
            base += 64
    if start is not None:
        yield PageRun(start, base - start)


def _in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for data in _in_pieces(pieces, CHUNK_SIZE):
        for at in range(0, len(data), CHUNK_SIZE):
            yield data[at : at + CHUNK_SIZE]


def _in_pieces(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes, in pieces of whole chunks of this size, the last one filled up with zeros."""
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        whole = len(data) // size * size
        if whole:
            yield data[:whole]
        rest = data[whole:]
    if rest:
        yield rest.ljust(size, b"\0")


def _joined(runs: Iterable[PageRun]) -> Iterator[PageRun]:
    """Ascending runs, those that touch made one."""
    last: PageRun | None = None
    for run in runs:
        if last is not None and last.end_page == run.base_page:
            last = PageRun(last.base_page, last.page_count + run.page_count)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _lowest_bits(chunk: bytes, count: int) -> bytes:
    """The chunk with all but its `count` lowest set bits cleared."""
    value, kept = int.from_bytes(chunk, "little"), 0
    for _ in range(count):
        lowest = value & -value
        kept |= lowest
        value ^= lowest
    return kept.to_bytes(len(chunk), "little")
