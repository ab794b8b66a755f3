"""Both indexes, held against counting one page after the other."""

from __future__ import annotations

import random
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
        assert index.page_at(offset) == index.page_at(offset + PAGE_SIZE - 1) == page
        extent = index.extent_of(page)
        assert extent is not None and extent.file_offset == offset and extent.page_count >= 1
        for ahead in range(extent.page_count):
            assert places[page + ahead] == offset + ahead * PAGE_SIZE
    for page in absent:
        assert index.offset_of(page) is index.extent_of(page) is None
    assert index.page_at(_FIRST - 1) is index.page_at(_FIRST + len(places) * PAGE_SIZE) is None
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
            assert index.page_at(_FIRST + rank * PAGE_SIZE) == kept[rank]
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


def test_runs_that_cannot_be_are_refused() -> None:
    with pytest.raises(DumpFormatError, match="two runs of memory hold page 0x12"):
        RunIndex(_FIRST, [PageRun(0x12, 4), PageRun(0x10, 3)])
    with pytest.raises(DumpFormatError, match="run 1 of memory, 0x2 pages from 0xffffffffff on, is beyond 52 bits"):
        RunIndex(_FIRST, [PageRun(1, 1), PageRun(HIGHEST_PAGE - 1, 2)])


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
    for rank in rng.sample(range(kept.page_count), min(kept.page_count, 1000)):
        assert other.page_at(0x3000 + 4096 * rank) == kept.page_at(0x3000 + 4096 * rank)
    assert asked or kept.page_count < 10, "it was asked for, and not kept"
