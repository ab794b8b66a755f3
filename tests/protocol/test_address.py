"""Addresses as WinDbg writes them, and sets of page frames against Python's own sets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, format_address, parse_address
from protocol.errors import LayoutError

_U64 = st.integers(0, (1 << 64) - 1)
_PAGES = st.frozensets(st.integers(0, 60))
_RUNS = st.lists(st.builds(PageRun, st.integers(0, 60), st.integers(0, 8)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fffff804`7c62a390", 0xFFFFF8047C62A390),
        ("FFFFF8047C62A390", 0xFFFFF8047C62A390),
        ("0xfffff804`7c62a390", 0xFFFFF8047C62A390),
        ("0X1000", 0x1000),
        ("1000", 0x1000),
        ("0n4096", 0x1000),
        ("0N10", 10),
        ("  7ffe0000\n", 0x7FFE0000),
        ("0", 0),
        ("b", 0xB),
    ],
)
def test_what_windbg_writes_is_read(text: str, value: int) -> None:
    assert parse_address(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "`", "0x", "0x`", "0n", "0nff", "-1", "+1", "1_000", "nt!KiBugCheckData", "12 34", "0x10000000000000000",
     "0n18446744073709551616", "\u0663", "\uff11", "0n" + "9" * 5000, "f" * 5000],
)  # fmt: skip
def test_anything_else_is_a_named_error(text: str) -> None:
    with pytest.raises(LayoutError):
        parse_address(text)


@given(st.text(max_size=40))
def test_no_text_does_worse_than_a_named_error(text: str) -> None:
    try:
        value = parse_address(text)
    except LayoutError:
        return
    assert 0 <= value < 1 << 64


def test_addresses_are_written_as_windbg_does() -> None:
    # From the reference's own texts: the shared data's address, and a low one.
    assert format_address(0xFFFFF78000000000) == "fffff780`00000000"
    assert format_address(0x1AD000) == "00000000`001ad000"


@given(_U64)
def test_what_is_written_can_be_read(value: int) -> None:
    assert parse_address(format_address(value)) == value
    assert parse_address(hex(value)) == parse_address(f"0n{value}") == value


def test_pages_are_4096_bytes() -> None:
    assert (PAGE_SIZE, PAGE_SHIFT) == (4096, 12)


def _pages(runs: list[PageRun]) -> set[int]:
    return {page for run in runs for page in range(run.base_page, run.base_page + run.page_count)}


@given(_RUNS)
def test_runs_are_a_set_in_its_shortest_form(runs: list[PageRun]) -> None:
    made = PageRuns(runs)
    assert list(made.pages()) == sorted(_pages(runs))
    assert made.page_count == len(_pages(runs))
    kept = list(made)
    assert all(run.page_count > 0 for run in kept)
    # Neither touching nor overlapping, ascending: no two runs could be written as one.
    assert all(a.end_page < b.base_page for a, b in itertools.pairwise(kept))
    assert len(made) == len(kept) and [made[at] for at in range(len(made))] == kept
    assert made.end_page == max(_pages(runs), default=-1) + 1


@given(_PAGES)
def test_a_set_of_pages_comes_back_whole(pages: frozenset[int]) -> None:
    made = PageRuns.from_pages([*pages, *pages])
    assert set(made.pages()) == pages
    assert made == PageRuns(reversed(list(made))) and hash(made) == hash(PageRuns(list(made)))


@given(_PAGES, _PAGES)
def test_union_intersection_and_difference_are_those_of_sets(a: frozenset[int], b: frozenset[int]) -> None:
    mine, theirs = PageRuns.from_pages(a), PageRuns.from_pages(b)
    assert mine | theirs == PageRuns.from_pages(a | b)
    assert mine & theirs == PageRuns.from_pages(a & b)
    assert mine - theirs == PageRuns.from_pages(a - b)
    assert (mine == theirs) == (a == b)


@given(_PAGES, st.integers(-1, 61))
def test_every_page_knows_its_run(pages: frozenset[int], page: int) -> None:
    runs = PageRuns.from_pages(pages)
    found = runs.run_of(page)
    assert (page in runs) == (page in pages) == (found is not None)
    if found is not None:
        assert found in list(runs) and found.base_page <= page < found.end_page


def test_a_machine_of_sixty_four_gibibytes_costs_no_memory() -> None:
    runs = PageRuns([PageRun(0, 1 << 24), PageRun(1 << 25, 1 << 24)])
    assert (runs.page_count, runs.end_page, len(runs)) == (1 << 25, 3 << 24, 2)
    assert len(runs - PageRuns([PageRun(5, 1)])) == 3


def test_other_things_are_no_pages_and_no_sets() -> None:
    runs = PageRuns([PageRun(1, 1)])
    assert "1" not in runs
    assert runs != [PageRun(1, 1)]
    assert repr(runs) == "PageRuns([PageRun(base_page=1, page_count=1)])"
