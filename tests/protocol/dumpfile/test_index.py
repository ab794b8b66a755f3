"""Both indexes, held against counting one page after the other."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.index import (
    CHUNK_BITS,
    HIGHEST_PAGE,
    LARGE_CHUNK_SIZE,
    BitmapIndex,
    PageIndex,
    RunIndex,
    runs_of_bits,
)
from protocol.errors import DumpFormatError

_FIRST = 0x3000


def _check(index: PageIndex, pages_in_file_order: list[int], absent: list[int]) -> None:
    """Every answer of the index, against the list of pages as the file has them."""
    assert index.page_count == len(pages_in_file_order)
    places = {page: _FIRST + rank * PAGE_SIZE for rank, page in enumerate(pages_in_file_order)}
    for page, offset in places.items():
        assert index.offset_of(page) == offset
        extent = index.extent_of(page)
        assert extent is not None and extent.file_offset == offset and extent.page_count >= 1
        for ahead in range(extent.page_count):
            assert places[page + ahead] == offset + ahead * PAGE_SIZE
    for page in absent:
        assert index.offset_of(page) is index.extent_of(page) is None
    assert PageRuns(index.runs()) == PageRuns.from_pages(places)


@st.composite
def _shuffled_runs(draw: st.DrawFn) -> list[PageRun]:
    borders = draw(st.lists(st.integers(0, 300), max_size=12, unique=True).map(sorted))
    runs = [PageRun(a, b - a) for a, b in zip(borders[::2], borders[1::2], strict=False)]
    return draw(st.permutations(runs))


@given(_shuffled_runs(), st.none() | st.integers(0, 200))
def test_runs_in_any_order(runs: list[PageRun], stored: int | None) -> None:
    pages = [page for run in runs for page in range(run.base_page, run.end_page)][:stored]
    _check(RunIndex(_FIRST, runs, stored), pages, [page for page in range(-1, 310) if page not in pages])


@given(
    st.sets(st.integers(0, 3 * CHUNK_BITS), max_size=40),
    st.lists(st.tuples(st.integers(0, 3 * CHUNK_BITS), st.integers(1, 2 * CHUNK_BITS)), max_size=1),
    st.none() | st.integers(0, 60),
    st.integers(1, 5000),
)
def test_bits_in_pieces_of_any_size(
    scattered: set[int], blocks: list[tuple[int, int]], stored: int | None, piece: int
) -> None:
    pages = sorted(scattered.union(*(range(start, start + length) for start, length in blocks)))
    bits = sum(1 << page for page in pages).to_bytes(5 * CHUNK_BITS // 8, "little")
    pieces = [bits[at : at + piece] for at in range(0, len(bits), piece)]
    index = BitmapIndex(_FIRST, pieces, stored)
    assert index.claimed_count == len(pages)
    kept = pages[:stored]
    if len(kept) > 200:  # the borders of a long block, and what lies around them
        assert index.page_count == len(kept)
        assert PageRuns(index.runs()) == PageRuns.from_pages(kept)
        for rank in (0, 1, len(kept) // 2, len(kept) - 1):
            assert index.offset_of(kept[rank]) == _FIRST + rank * PAGE_SIZE
    else:
        _check(index, kept, [page for page in pages[len(kept) :] if page not in kept])
    assert PageRuns(runs_of_bits(pieces)) == PageRuns.from_pages(pages)


def test_the_runs_of_bits_are_joined_over_the_borders_of_words_and_chunks() -> None:
    bits = (((1 << 3 * CHUNK_BITS) - 1) << 63).to_bytes(4 * CHUNK_BITS // 8, "little")
    assert list(runs_of_bits([bits])) == [PageRun(63, 3 * CHUNK_BITS)]
    assert list(runs_of_bits([b"\x81", b"\xff"])) == [PageRun(0, 1), PageRun(7, 9)]


@pytest.mark.parametrize("pattern", [b"\x55", b"\x00", b"\xff"])
def test_64_gib_cost_less_than_ten_mebibytes(pattern: bytes) -> None:
    tracemalloc.start()
    try:
        index = BitmapIndex(0x20_3000, (pattern * 0x10000 for _ in range(32)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.claimed_count == pattern[0].bit_count() * (16 << 20) // 8
    assert peak < 10 << 20


def test_a_bitmap_whose_pages_are_cut_off_costs_no_more_than_they_do() -> None:
    tracemalloc.start()
    try:
        index = BitmapIndex(0x20_3000, (b"\x55" * 0x10000 for _ in range(32)), stored=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (index.page_count, index.claimed_count) == (10, 8 << 20)
    assert peak < 1 << 20


@given(st.lists(st.builds(PageRun, st.integers(0, 60), st.integers(0, 9)), max_size=12), st.none() | st.integers(0, 60))
def test_what_two_runs_hold_is_left_out_and_nothing_else(runs: list[PageRun], stored: int | None) -> None:
    in_file = [page for run in runs for page in range(run.base_page, run.end_page)][:stored]
    index = RunIndex(_FIRST, runs, stored)
    held = {page: _FIRST + at * PAGE_SIZE for at, page in enumerate(in_file) if in_file.count(page) == 1}
    assert {page: index.offset_of(page) for page in range(80) if index.offset_of(page) is not None} == held
    assert index.ambiguous == PageRuns.from_pages(page for page in in_file if in_file.count(page) > 1)
    assert (index.page_count, index.claimed_count) == (len(held), sum(run.page_count for run in runs))
    for page, offset in held.items():
        extent = index.extent_of(page)
        assert extent is not None
        assert all(held[page + ahead] == offset + ahead * PAGE_SIZE for ahead in range(extent.page_count))
    assert PageRuns(index.runs()) == PageRuns.from_pages(held)


def test_a_run_beyond_physical_memory_is_refused() -> None:
    with pytest.raises(DumpFormatError, match="run 1 of memory, 0x2 pages from 0xffffffffff on, is beyond 52 bits"):
        RunIndex(_FIRST, [PageRun(1, 1), PageRun(HIGHEST_PAGE - 1, 2)])


def test_the_largest_bitmap_that_is_believed_costs_little_where_it_is_empty() -> None:
    # 2^33 bits, three of them set: 1 GiB, which is given 64 KiB at a time.
    nothing, piece = bytes(1 << 16), 1 << 19
    set_bits = {0: 1, 9_000: 77, 16_383: piece - 1}
    asked: list[int] = []

    def part(number: int) -> bytes:
        bit = set_bits.get(number)
        return nothing if bit is None else (1 << bit).to_bytes(1 << 16, "little")

    def again(number: int) -> bytes:
        asked.append(number)
        at = number % 16 * LARGE_CHUNK_SIZE
        return part(number // 16)[at : at + LARGE_CHUNK_SIZE]

    began = time.process_time()
    index = BitmapIndex(0x40003000, map(part, range(16_384)), None, again)
    runs = list(index.runs())
    assert time.process_time() - began < 1.5, "it was 5 s, a chunk at a time"
    pages = [number * piece + bit for number, bit in set_bits.items()]
    assert runs == [PageRun(page, 1) for page in pages]
    assert [index.offset_of(page) for page in pages] == [0x40003000, 0x40004000, 0x40005000]
    assert index.offset_of(5000 * piece) is None
    assert len(asked) < 10, "where nothing is, the sums say so"


@pytest.mark.parametrize("stored", [None, 0, 5, 20_000])
def test_a_bitmap_that_is_not_kept_says_the_same_as_one_that_is(stored: int | None) -> None:
    rng = random.Random(7)
    bits = b"".join(rng.choice((bytes(512), b"\xff" * 512, rng.randbytes(512))) for _ in range(61)) + rng.randbytes(99)
    asked: list[int] = []

    def again(number: int) -> bytes:
        asked.append(number)
        return bits[number * LARGE_CHUNK_SIZE : (number + 1) * LARGE_CHUNK_SIZE]

    kept, other = BitmapIndex(0x3000, [bits], stored), BitmapIndex(0x3000, [bits], stored, again)
    assert (other.page_count, other.claimed_count) == (kept.page_count, kept.claimed_count)
    assert list(other.runs()) == list(kept.runs())
    for page in [*rng.sample(range(8 * len(bits)), 3000), 8 * len(bits), 1 << 40]:
        assert other.offset_of(page) == kept.offset_of(page), page
        mine, theirs = other.extent_of(page), kept.extent_of(page)
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert mine.file_offset == theirs.file_offset and mine.page_count >= theirs.page_count
    assert asked or kept.page_count < 10, "it was asked for, and not kept"
