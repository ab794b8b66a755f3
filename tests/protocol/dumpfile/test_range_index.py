"""An index of very many ranges: it says what a list of the pages says, and keeps hardly anything."""

from __future__ import annotations

import itertools
import random
import struct
import sys
import time
from array import array
from collections.abc import Callable

import pytest

from protocol.address import PageRun
from protocol.dumpfile.layout import parse_layout
from protocol.dumpfile.range_index import GROUP, RangeIndex
from tests.dumps import reader
from tests.hand_dumps import header64

_FIRST = 0x12345


def _index(runs: list[PageRun], stored: int | None = None) -> RangeIndex:
    parts = [runs[at : at + 2 * GROUP] for at in range(0, len(runs), 2 * GROUP)]
    columns = ((tuple(run.base_page for run in part), tuple(run.page_count for run in part)) for part in parts)
    return RangeIndex(_FIRST, columns, lambda number: runs[number * GROUP : (number + 1) * GROUP], stored)


def _runs(seed: int, count: int = 300) -> list[PageRun]:
    rng = random.Random(seed)
    made, at = [], rng.randrange(5)
    for _ in range(count):
        made.append(PageRun(at, rng.choice((0, 1, 1, 2, 7))))
        at = made[-1].end_page + rng.choice((0, 1, 30))
    return made


@pytest.mark.parametrize("stored", [None, 0, 1, 333, 10**6])
def test_every_page_is_where_a_list_of_them_says(stored: int | None) -> None:
    for seed in range(2):
        runs = _runs(seed)
        pages = [page for run in runs for page in range(run.base_page, run.end_page)]
        index = _index(runs, stored)
        held = pages[: len(pages) if stored is None else stored]
        assert (index.claimed_count, index.page_count) == (len(pages), len(held)), seed
        place = {page: _FIRST + 4096 * at for at, page in enumerate(held)}
        for page in range(runs[-1].end_page + 5):
            assert index.offset_of(page) == place.get(page), (seed, page)
        for page, offset in place.items():
            extent = index.extent_of(page)
            assert extent is not None
            assert all(place[page + more] == offset + 4096 * more for more in range(extent.page_count))
        found = [page for run in index.runs() for page in range(run.base_page, run.end_page)]
        assert found == held


@pytest.mark.parametrize("bad", [1, 63, 64, 127, 128, 200, 299])
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda run: PageRun(run.base_page - 20, 30), "does not lie behind the one before, and there are too many"),
        (lambda run: PageRun(run.base_page, 1 << 40), "is beyond 52 bits"),
        (lambda run: PageRun(run.base_page | 1 << 63, 1), "is beyond 52 bits"),
    ],
    ids=["backwards", "endless", "nowhere"],
)
def test_ranges_are_believed_up_to_the_first_that_cannot_be(
    bad: int, broken: Callable[[PageRun], PageRun], why: str
) -> None:
    runs = [PageRun(100 + 10 * at, 1 + at % 7) for at in range(300)]
    damaged = [*runs[:bad], broken(runs[bad]), *runs[bad + 1 :]]
    index, before = _index(damaged), _index(runs[:bad])
    assert index.problem.startswith(f"range {bad} ") and why in index.problem
    assert index.problem.endswith(": it is left out, and so is what follows it")
    assert list(index.runs()) == list(before.runs()) == runs[:bad]
    assert index.page_count == index.claimed_count == before.page_count
    for run in runs:
        assert index.offset_of(run.base_page) == before.offset_of(run.base_page)


def test_two_million_ranges_cost_no_two_seconds() -> None:
    count = (1 << 21) - 1
    table = array("Q", range(1, 4 * count + 1, 2))
    table[1::2] = array("Q", [1]) * count
    if sys.byteorder == "big":
        table.byteswap()
    size = 16 + 16 * count
    head = struct.pack("<I4s4sIQQIIQ", 0x40, b"RDMP", b"DUMP", 0, size, size + 0x2020, count, 0, count)
    data = bytes(header64(10, [(1, 1)])) + head + table.tobytes()
    began = time.process_time()
    layout = parse_layout(reader(data), len(data) + 4096 * count)
    assert time.process_time() - began < 2.0, "it was 3 s, one range after the other"
    assert (layout.shortcomings, layout.pages.page_count) == ((), count)
    assert layout.pages.offset_of(1 + 4 * 1_234_567) == size + 0x2020 + 4096 * 1_234_567


def test_a_file_of_very_many_ranges_is_read_range_by_range() -> None:
    count = 70_000
    table = b"".join(struct.pack("<QQ", 4 * at + 1, 1 + at % 2) for at in range(count)) + bytes(16)
    size = 16 + len(table)
    head = struct.pack("<I4s4sIQQ", 0x40, b"RDMP", b"DUMP", 0, size, size + 0x2020)
    data = bytes(header64(8, [(1, 1)])) + head + bytes(16) + table
    layout = parse_layout(reader(data), len(data) + 4096 * count * 2)
    assert isinstance(layout.pages, RangeIndex)
    assert layout.pages.claimed_count == count + count // 2
    at = 4 * 65_001 + 2
    assert layout.pages.offset_of(at) == size + 0x2020 + 4096 * (65_001 + 65_001 // 2 + 1)
    assert layout.pages.offset_of(at + 1) is None
    # Three numbers a range would be 1.6 MiB.
    kept = sum(sys.getsizeof(getattr(layout.pages, name)) for name in ("_bases", "_ranks"))
    assert kept < 32 << 10
    assert len(list(itertools.islice(layout.pages.runs(), count + 1))) == count
