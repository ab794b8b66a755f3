"""Complete dumps, held against those that Microsoft's engine wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.dumpfile.complete import UNREADABLE_PAGE, complete_index, complete_page_count, complete_size
from protocol.dumpfile.header import DumpHeader, parse_header
from protocol.errors import DumpFormatError
from tests.oracles import volatility

_WRITTEN = {"full_type1_3runs": 0x40, "full_type1_42runs_comment": 0x6A, "full_type1_deadfeed": 0x4C}


@pytest.mark.parametrize("name", _WRITTEN)
def test_sizes_are_the_engines(shared: Path, name: str) -> None:
    path = shared / f"data/dumps/dbgeng-written/{name}.dmp"
    header = parse_header(path.read_bytes())
    assert complete_page_count(header) == _WRITTEN[name]
    assert complete_size(header) == path.stat().st_size == header.required_dump_space


@pytest.mark.parametrize("name", _WRITTEN)
def test_pages_lie_where_volatility_finds_them(shared: Path, name: str) -> None:
    path = shared / f"data/dumps/dbgeng-written/{name}.dmp"
    data = path.read_bytes()
    index, problem = complete_index(parse_header(data))
    assert problem == ""
    found = 0
    with volatility.open_oracle(path) as oracle:
        for page in range(0x2000):
            offset = index.offset_of(page)
            assert oracle.read_page(page) == (None if offset is None else data[offset : offset + 0x1000])
            found += offset is not None
    assert found == _WRITTEN[name]


def test_what_could_not_be_read_is_filled_as_the_engine_fills_it(shared: Path) -> None:
    data = (shared / "data/dumps/dbgeng-written/full_type1_deadfeed.dmp").read_bytes()
    pages = [data[at : at + 0x1000] for at in range(0x2000, len(data), 0x1000)]
    assert pages.count(UNREADABLE_PAGE) > 0
    assert all(page == UNREADABLE_PAGE for page in pages if page[:4] == b"\xed\xfe\xad\xde")


def test_no_runs_no_pages() -> None:
    with pytest.raises(DumpFormatError, match="says no runs of memory"):
        complete_index(DumpHeader())
