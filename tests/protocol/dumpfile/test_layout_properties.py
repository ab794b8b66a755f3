"""Whatever lies in a file: a layout that keeps its promises, or a named error; soon, and in little memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.header import DumpType, encode_header
from protocol.dumpfile.layout import parse_layout
from protocol.dumpfile.plan import plan_bitmap, plan_complete
from protocol.errors import DumpFormatError
from tests.dumps import HEADER, made_up_memory, reader, rendered

_RUNS = PageRuns([PageRun(1, 3), PageRun(8, 4)])
_MEMORY = made_up_memory(_RUNS)
_SEEDS = [
    rendered(plan_complete(HEADER, _RUNS), _MEMORY),
    rendered(plan_bitmap(HEADER, _RUNS, _RUNS, DumpType.BITMAP_FULL), _MEMORY),
]
# Where a changed byte changes the meaning: what leads the file, runs, type, size, and the tables behind the header.
_TELLING = st.one_of(
    st.integers(0, 0xB8), st.integers(0xF88, 0xFA8), st.integers(0x1000, 0x1060), st.integers(0x2000, 0x2060)
)
_TYPES = st.sampled_from([1, 2, 4, 5, 6, 8, 9, 0xA])
_NUMBERS = st.one_of(st.integers(0, 0x40), st.sampled_from([0x1000, 0x2038, 0x3000, 1 << 31, (1 << 64) - 1, 1 << 40]))


def _survives(data: bytes, size: int | None = None) -> None:
    size = len(data) if size is None else size
    try:
        layout = parse_layout(reader(data), size)
    except DumpFormatError:
        return
    pages = layout.pages.page_count
    assert pages <= layout.claimed_page_count
    assert pages * PAGE_SIZE <= size
    counted = 0
    for run in layout.pages.runs():
        counted += run.page_count
        for page in (run.base_page, run.end_page - 1):
            offset = layout.pages.offset_of(page)
            assert offset is not None and layout.first_page_offset <= offset <= size - PAGE_SIZE
    assert counted == pages
    assert all(blob.file_offset + blob.size <= size for blob in layout.secondary)


@given(st.sampled_from(_SEEDS), _TYPES, st.dictionaries(_TELLING, st.integers(0, 255), max_size=8), st.data())
def test_damaged_dumps(seed: bytes, kind: int, changes: dict[int, int], more: st.DataObject) -> None:
    data = bytearray(seed)
    data[0xF98] = kind
    for at, value in changes.items():
        data[at] = value
    _survives(bytes(data[: more.draw(st.integers(0, len(data)), label="cut at") if more.draw(st.booleans()) else None]))


@given(st.sampled_from(["DU64", "DUMP"]), _TYPES, st.lists(_NUMBERS, max_size=12), st.lists(_NUMBERS, max_size=90))
def test_tables_of_extreme_numbers(valid: str, kind: int, table: list[int], runs: list[int]) -> None:
    data = bytearray(encode_header(HEADER))
    data[4:8] = valid.encode()
    wide = valid == "DU64"
    width, size, at = (8, 0x2000, 0x88) if wide else (4, 0x1000, 0x64)
    data[0xF98 if wide else 0xF88] = kind
    data[0xF99 if wide else 0xF89 : 0xF9C if wide else 0xF8C] = bytes(3)
    for number, value in enumerate([len(runs) // 2, sum(runs[1::2]), *runs][: 0x2A0 // width]):
        data[at + width * number : at + width * (number + 1)] = (value % (1 << 8 * width)).to_bytes(width, "little")
    magic = b"\x40\0\0\0RDMPDUMP" if kind >= 8 else b"SDMPDUMP"
    body = magic + b"".join(value.to_bytes(8, "little") for value in table)
    _survives(bytes(data[:size]) + body.ljust(3 * PAGE_SIZE, b"\x5a"))


@given(st.binary(max_size=0x3000))
def test_noise(noise: bytes) -> None:
    _survives(noise)
    _survives(b"PAGEDU64" + noise)
    _survives(b"PAGEDUMP" + noise, 1 << 40)


@pytest.mark.parametrize("kind", [DumpType.FULL, DumpType.BITMAP_FULL, DumpType.KERNEL_RANGES])
def test_a_huge_sparse_file_costs_little(kind: DumpType) -> None:
    """A file of 16 TiB that is nothing but a header and ones."""
    head = bytearray(encode_header(HEADER))
    head[0xF98] = kind
    if kind is DumpType.FULL:
        head[0x88:0x98] = (42).to_bytes(8, "little") * 2
    table = b"FDMPDUMP" if kind is DumpType.BITMAP_FULL else b"\x40\0\0\0RDMPDUMP\0\0\0\0"
    table = table.ljust(0x18, b"\0") + (0x2000000).to_bytes(8, "little") * 3 + (1 << 60).to_bytes(8, "little")
    data = bytes(head) + table

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size].ljust(size, b"\xff")

    tracemalloc.start()
    try:
        problems = parse_layout(read, 16 << 40).shortcomings
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 << 20
    if kind is not DumpType.BITMAP_FULL:
        assert "was never set (PAGE stands there)" in problems[0] or "is beyond 52 bits" in problems[0]
