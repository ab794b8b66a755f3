"""Where each page lies in a dump file, and which page lies at a place: found by bisection, never one entry a page.

RunIndex is for dumps that say runs: three numbers a run. BitmapIndex is for dumps that say bits: the bitmap itself and
one sum for 4,096 bits, so that 64 GiB of memory cost less than 3 MiB however torn the set of pages is. Of a bitmap that
is too large to be kept the sums alone stay, one for 32,768 bits: at most 2 MiB.
"""

from __future__ import annotations

import bisect
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from protocol.address import PAGE_SIZE, PageRun
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
_FULL = b"\xff" * CHUNK_SIZE
_WORDS = struct.Struct(f"<{CHUNK_SIZE // 8}Q")
_WORD = struct.Struct("<Q")
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

    def page_at(self, offset: int) -> int | None:
        """The page frame to which the byte at this file offset belongs; None where no page lies."""
        ...

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame."""
        ...


class RunIndex:
    """Pages that lie in a file run by run, whatever the order of the runs."""

    __slots__ = ("_bases", "_by_rank", "_claimed_count", "_counts", "_first", "_page_count", "_ranks")

    def __init__(self, first_page_offset: int, runs: Iterable[PageRun], stored: int | None = None) -> None:
        """`runs` in the file's order, of which the file holds the first `stored` pages (None: all).

        Raises DumpFormatError when two runs overlap, or one is beyond what can be physical memory.
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
        self._page_count = rank
        self._by_rank: array[int] = array("Q", range(len(self._bases)))
        if not ascending:
            self._sort()
        for at in range(1, len(self._bases)):
            if self._bases[at - 1] + self._counts[at - 1] > self._bases[at]:
                raise DumpFormatError(
                    f"two runs of memory hold page {self._bases[at]:#x}: which of them is true cannot be told"
                )

    def _sort(self) -> None:
        order = sorted(range(len(self._bases)), key=self._bases.__getitem__)
        self._bases, self._counts, self._ranks = (
            array("Q", (column[at] for at in order)) for column in (self._bases, self._counts, self._ranks)
        )
        for place, original in enumerate(order):
            self._by_rank[original] = place

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

    def page_at(self, offset: int) -> int | None:
        """The page frame to which the byte at this file offset belongs."""
        rank = (offset - self._first) // PAGE_SIZE
        if not 0 <= rank < self._page_count:
            return None
        place = self._by_rank[bisect.bisect_right(self._by_rank, rank, key=self._ranks.__getitem__) - 1]
        return self._bases[place] + rank - self._ranks[place]

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
        for chunk in _in_chunks(bitmap, size):
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

    def page_at(self, offset: int) -> int | None:
        """The page frame to which the byte at this file offset belongs."""
        rank = (offset - self._first) // PAGE_SIZE
        if not 0 <= rank < self._page_count:
            return None
        at = bisect.bisect_right(self._before, rank) - 1
        left = rank - self._before[at]
        for number, (word,) in enumerate(_WORD.iter_unpack(self._chunks[at])):
            count = word.bit_count()
            if left < count:
                rest: int = word
                for _ in range(left):
                    rest &= rest - 1
                return at * self._bits + 64 * number + (rest & -rest).bit_length() - 1
            left -= count
        raise AssertionError("the sums of a bitmap do not fit its bits")

    def runs(self) -> Iterator[PageRun]:
        """What the file holds, ascending by page frame."""
        return runs_of_bits(self._chunks)


class _Again:
    """Chunks of a bitmap that is not kept: each is asked for again. The latest one is kept, and the last one of all."""

    __slots__ = ("_ask", "_count", "_last", "_latest")

    def __init__(self, ask: Callable[[int], bytes]) -> None:
        self._ask = ask
        self._count = 0
        self._last = self._latest = (-1, b"")

    def append(self, chunk: bytes) -> None:
        self._last = (self._count, chunk)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> bytes:
        # The last chunk may have fewer bits than the file says: those of the pages that are there.
        for known, chunk in (self._last, self._latest):
            if known == number:
                return chunk
        self._latest = (number, self._ask(number).ljust(LARGE_CHUNK_SIZE, b"\0"))
        return self._latest[1]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(self._count))


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


def _in_chunks(pieces: Iterable[bytes], size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """The same bytes in pieces of this size, the last one filled up with zeros."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // size * size
        for at in range(0, whole, size):
            yield data[at : at + size]
        rest = data[whole:]
    if rest:
        yield rest.ljust(size, b"\0")


def _lowest_bits(chunk: bytes, count: int) -> bytes:
    """The chunk with all but its `count` lowest set bits cleared."""
    value, kept = int.from_bytes(chunk, "little"), 0
    for _ in range(count):
        lowest = value & -value
        kept |= lowest
        value ^= lowest
    return kept.to_bytes(len(chunk), "little")
