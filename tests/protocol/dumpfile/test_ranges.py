"""Range dumps, which nothing here writes: laid out by hand, and read by kdmp-parser beside us (dump-formats 2.5)."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.address import PageRun, PageRuns
from protocol.dumpfile.header import DumpType, encode_header
from protocol.dumpfile.layout import parse_layout
from protocol.dumpfile.ranges import MOST_RANGES, parse_range_header
from protocol.errors import DumpFormatError
from tests.dumps import HEADER, made_up_memory, reader
from tests.oracles import kdmp

_RUNS = (PageRun(0x10, 3), PageRun(0x1AD, 0x20), PageRun(0x100000, 5))


def _table(kind: DumpType, runs: tuple[PageRun, ...] = _RUNS) -> bytes:
    """RDMP and what follows it, up to the first page."""
    ranges = b"".join(struct.pack("<QQ", run.base_page, run.page_count) for run in runs)
    if kind is DumpType.COMPLETE_RANGES:
        head = struct.pack("<IIQ", len(runs), 0, sum(run.page_count for run in runs))
    else:
        head, ranges = bytes(16), ranges + bytes(16)  # ends with an empty entry
    metadata = len(head) + len(ranges)
    return struct.pack("<I4s4sIQQ", 0x40, b"RDMP", b"DUMP", 0, metadata, metadata + 0x2020) + head + ranges


def _dump(kind: DumpType) -> tuple[bytes, dict[int, bytes]]:
    memory = made_up_memory(PageRuns(_RUNS))
    return encode_header(replace(HEADER, dump_type=kind)) + _table(kind) + b"".join(memory.values()), memory


@pytest.mark.parametrize("kind", [kind for kind in DumpType if kind >= 8])
def test_pages_lie_where_kdmp_parser_finds_them(kind: DumpType, tmp_path: Path) -> None:
    data, memory = _dump(kind)
    path = tmp_path / "ranges.dmp"
    path.write_bytes(data)
    layout = parse_layout(reader(data), len(data))
    assert (layout.shortcomings, layout.pages.page_count) == ((), 0x28)
    assert layout.first_page_offset % 0x1000 != 0  # unaligned, as WinDbg leaves it
    with kdmp.open_oracle(path) as oracle:
        assert list(oracle.pages()) == sorted(memory)
        for page, content in memory.items():
            offset = layout.pages.offset_of(page)
            assert offset is not None
            assert data[offset : offset + 0x1000] == oracle.read_page(page) == content


def test_a_file_that_was_cut_off_keeps_what_it_has() -> None:
    data, memory = _dump(DumpType.COMPLETE_RANGES)
    cut = data[:-0x1001]
    layout = parse_layout(reader(cut), len(cut))
    assert layout.pages.page_count == len(memory) - 2
    assert "2 of 40 pages are not" in layout.shortcomings[0]


def test_a_wrong_total_is_named() -> None:
    data = bytearray(_dump(DumpType.COMPLETE_RANGES)[0])
    data[0x2028:0x2030] = struct.pack("<Q", 0x29)
    layout = parse_layout(reader(bytes(data)), len(data))
    assert layout.shortcomings == ("the ranges have 40 pages, their header says 41",)


def test_damage_is_named() -> None:
    table = bytearray(_table(DumpType.KERNEL_RANGES))
    with pytest.raises(DumpFormatError, match="0x202f: the file ends inside the header of its ranges"):
        parse_range_header(bytes(table[:0x2F]), 0x2000, DumpType.KERNEL_RANGES)
    with pytest.raises(DumpFormatError, match="0x2004: the header of ranges begins with RDMP"):
        parse_range_header(bytes(0x30), 0x2000, DumpType.KERNEL_RANGES)
    table[0x18:0x20] = struct.pack("<Q", 0x2030 + 16 * MOST_RANGES + 1)
    with pytest.raises(DumpFormatError, match=r"0x2018: a table of .* is not believable"):
        parse_range_header(bytes(table), 0x2000, DumpType.KERNEL_RANGES)
    table[0x18:0x20] = struct.pack("<Q", 0x202F)
    with pytest.raises(DumpFormatError, match="before its ranges"):
        parse_range_header(bytes(table), 0x2000, DumpType.KERNEL_RANGES)
    data = bytearray(encode_header(replace(HEADER, dump_type=DumpType.KERNEL_RANGES)))
    layout = parse_layout(reader(bytes(data)), len(data))
    assert layout.pages.page_count == 0
    assert layout.shortcomings == (
        "no page of memory can be found in it: at file offset 0x2000: the file ends inside the header of its ranges",
    )


@pytest.mark.parametrize("kind", [kind for kind in DumpType if kind >= 8])
def test_one_damaged_range_costs_no_more_than_itself_and_what_lies_behind(kind: DumpType) -> None:
    data, memory = _dump(kind)
    damaged = bytearray(data)
    damaged[0x2040:0x2048] = struct.pack("<Q", 1 << 60)
    layout = parse_layout(reader(bytes(damaged)), len(data))
    assert layout.shortcomings[0] == (
        "range 1 (0x20 pages from 0x1000000000000000 on) is beyond 52 bits: it is left out, and so is what follows it"
    )
    assert list(layout.pages.runs()) == [_RUNS[0]]
    for page in range(0x10, 0x13):
        offset = layout.pages.offset_of(page)
        assert offset is not None and data[offset : offset + 0x1000] == memory[page]


def test_ranges_that_overlap_keep_what_only_one_of_them_has() -> None:
    data, memory = _dump(DumpType.KERNEL_RANGES)
    damaged = bytearray(data)
    damaged[0x2050:0x2058] = struct.pack("<Q", 0x1CB)  # of the last five, two are the last of the range before
    layout = parse_layout(reader(bytes(damaged)), len(data))
    assert layout.shortcomings == ("pages that two runs of memory hold are left out: 2 of them, 0x1cb the first",)
    assert layout.pages.offset_of(0x1CB) is layout.pages.offset_of(0x1CC) is None
    for page, truth in {0x10: 0x10, 0x1CA: 0x1CA, 0x1CD: 0x100002, 0x1CF: 0x100004}.items():
        offset = layout.pages.offset_of(page)
        assert offset is not None and data[offset : offset + 0x1000] == memory[truth]
