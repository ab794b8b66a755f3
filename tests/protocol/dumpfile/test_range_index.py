"""An index of very many ranges: it says what a list of the pages says, and keeps hardly anything."""

from __future__ import annotations

import itertools
import random
import struct
import sys

import pytest

from protocol.address import PageRun
from protocol.dumpfile.layout import parse_layout
from protocol.dumpfile.range_index import GROUP, RangeIndex
from protocol.errors import DumpFormatError
from tests.dumps import reader
from tests.hand_dumps import header64

_FIRST = 0x12345


def _index(runs: list[PageRun], stored: int | None = None) -> RangeIndex:
    return RangeIndex(_FIRST, iter(runs), lambda number: runs[number * GROUP : (number + 1) * GROUP], stored)


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
            assert index.page_at(offset) == index.page_at(offset + 4095) == page
            extent = index.extent_of(page)
            assert extent is not None
            assert all(place[page + more] == offset + 4096 * more for more in range(extent.page_count))
        assert index.page_at(_FIRST - 1) is index.page_at(_FIRST + 4096 * len(held)) is None
        found = [page for run in index.runs() for page in range(run.base_page, run.end_page)]
        assert found == held


def test_ranges_must_ascend_and_be_memory() -> None:
    with pytest.raises(DumpFormatError, match="range 1 does not lie behind the one before"):
        _index([PageRun(8, 2), PageRun(9, 1)])
    with pytest.raises(DumpFormatError, match="beyond 52 bits"):
        _index([PageRun(1 << 40, 1)])


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
