"""Whole files: Windows' own, the engine's, and ours after every kind of damage."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.header import DumpHeader, DumpType, encode_header
from protocol.dumpfile.layout import DumpLayout, parse_layout
from protocol.dumpfile.plan import plan_bitmap, plan_complete
from protocol.dumpfile.secondary import encode_secondary
from protocol.errors import DumpFormatError
from tests.dumps import HEADER, made_up_memory, reader, rendered
from tests.oracles import volatility

_RUNS = PageRuns([PageRun(1, 0x9E), PageRun(0x100, 0x20)])
_MEMORY = made_up_memory(_RUNS)
_GUID = "54c84888-01d1-4e1e-bed7-28c8cbcbd8a0"


def _layout(data: bytes) -> DumpLayout:
    return parse_layout(reader(data), len(data))


def _complete() -> bytearray:
    return bytearray(rendered(plan_complete(HEADER, _RUNS), _MEMORY))


def _bitmap(kind: DumpType = DumpType.BITMAP_KERNEL) -> bytearray:
    return bytearray(rendered(plan_bitmap(HEADER, _RUNS, _RUNS, kind), _MEMORY))


@pytest.mark.parametrize(
    ("name", "pages"),
    [("full_type1_3runs", 0x40), ("full_type1_42runs_comment", 0x6A), ("full_type1_deadfeed", 0x4C)],
)
def test_complete_dumps_of_the_engine(shared: Path, name: str, pages: int) -> None:
    path = shared / f"data/dumps/dbgeng-written/{name}.dmp"
    layout = _layout(path.read_bytes())
    assert (layout.kind, layout.pages.page_count, layout.claimed_page_count) == (DumpType.FULL, pages, pages)
    assert (layout.expected_size, layout.shortcomings, layout.secondary) == (path.stat().st_size, (), ())


@pytest.mark.parametrize(
    ("name", "end", "blobs"),
    [
        ("triage_x64", 0x13A28C, True),
        ("triage_arm64", None, True),
        ("dbgeng-written/triage_type4", None, False),
        ("dbgeng-written/triage_type4_comment", None, False),
    ],
)
def test_small_dumps_have_a_header_and_no_pages(shared: Path, name: str, end: int | None, blobs: bool) -> None:
    layout = _layout((shared / f"data/dumps/{name}.dmp").read_bytes())
    assert layout.is_triage
    assert (layout.pages.page_count, layout.shortcomings) == (0, ())
    assert layout.expected_size == (end or layout.expected_size) <= layout.size
    assert bool(layout.secondary) is blobs


def test_small_dumps_that_are_damaged(shared: Path) -> None:
    data = (shared / "data/dumps/dbgeng-written/triage_type4.dmp").read_bytes()
    assert "cut off" in _layout(data[:-1]).shortcomings[0]
    wrong = bytearray(data)
    wrong[0x2004] -= 4
    assert "TRGD does not stand at the end" in _layout(bytes(wrong)).shortcomings[0]
    with pytest.raises(DumpFormatError, match="0x2000: the file ends before TRIAGE_DUMP"):
        _layout(data[:0x2006])


@pytest.mark.parametrize("kind", [DumpType.BITMAP_FULL, DumpType.BITMAP_KERNEL])
def test_bitmaps(kind: DumpType) -> None:
    data = bytes(_bitmap(kind))
    layout = _layout(data)
    assert (layout.kind, layout.first_page_offset, layout.shortcomings) == (kind, 0x3000, ())
    assert list(layout.pages.runs()) == list(_RUNS)
    for page, content in _MEMORY.items():
        offset = layout.pages.offset_of(page)
        assert offset is not None and data[offset : offset + PAGE_SIZE] == content


@pytest.mark.parametrize(("bits", "size", "bits_at"), [(64, 0x2000, 0x28), (32, 0x1000, 0x20)])
def test_a_summary_dump_of_old_windows(bits: int, size: int, bits_at: int) -> None:
    # Type 2 after dump-formats 2.4; no program here reads it but Microsoft's engine.
    runs = (PageRun(0, 0x100),)
    header = encode_header(
        DumpHeader(bits=64 if bits == 64 else 32, dump_type=DumpType.SUMMARY, physical_memory=runs, number_processors=1)
    )
    summary = struct.pack("<4s4s6I", b"SDMP", b"DUMP", 1, size + 0x1000, 0x100, 3, 0x100, 0).ljust(bits_at, b"\0")
    bitmap = bytes([0b0000_0010, 0, 0b1000_0001]).ljust(0x1000 - bits_at, b"\0")
    pages = [bytes([n]) * PAGE_SIZE for n in (1, 2, 3)]
    data = b"".join([header, summary, bitmap, *pages])
    layout = _layout(data)
    assert layout.shortcomings == ()
    assert list(layout.pages.runs()) == [PageRun(1, 1), PageRun(16, 1), PageRun(23, 1)]
    offset = layout.pages.offset_of(23)
    assert offset is not None and data[offset] == 3


@pytest.mark.parametrize("kind", [DumpType.FULL, DumpType.BITMAP_FULL])
def test_32_bit_dumps_as_volatility_reads_them(kind: DumpType, tmp_path: Path) -> None:
    header = DumpHeader(bits=32, minor_version=7601, machine_image_type=0x14C, number_processors=1, pae_enabled=True)
    plan = plan_complete(header, _RUNS) if kind is DumpType.FULL else plan_bitmap(header, _RUNS, _RUNS, kind)
    data = rendered(plan, _MEMORY)
    path = tmp_path / "x86.dmp"
    path.write_bytes(data)
    layout = _layout(data)
    with volatility.open_oracle(path) as oracle:
        assert list(oracle.pages()) == list(_RUNS.pages())
        for page in range(0x140):
            offset = layout.pages.offset_of(page)
            assert oracle.read_page(page) == _MEMORY.get(page)
            assert (None if offset is None else data[offset : offset + PAGE_SIZE]) == _MEMORY.get(page)


def test_what_was_cut_off_is_counted_and_the_rest_is_used() -> None:
    for data in (_complete(), _bitmap()):
        whole, cut = len(data), len(data) - 0x3001
        layout = _layout(bytes(data[:cut]))
        assert layout.pages.page_count == _RUNS.page_count - 4
        assert layout.expected_size == len(data)
        assert layout.shortcomings == (
            f"the file was cut off: {cut:#x} bytes of {whole:#x} are there, and 4 of 190 pages are not",
        )
        assert layout.pages.offset_of(0x11C) is None
        assert layout.pages.offset_of(0x11B) == len(data) - 5 * PAGE_SIZE


def test_a_file_that_ends_in_its_tables_is_refused() -> None:
    data = bytes(_bitmap())
    with pytest.raises(DumpFormatError, match="0x2037: the file ends inside the header of its bitmap"):
        _layout(data[:0x2037])
    with pytest.raises(DumpFormatError, match="0x2039: the file ends inside its bitmap, which reaches to 0x2060"):
        _layout(data[:0x2039])
    with pytest.raises(DumpFormatError, match="file offset 0x2050: the file ends inside its bitmap, sooner than"):
        parse_layout(reader(data[:0x2050]), len(data))


def test_counts_that_disagree_are_named() -> None:
    data = _bitmap()
    data[0x2028] ^= 1
    assert _layout(bytes(data)).shortcomings == (
        "190 bits of the bitmap are set, its header says 191: bits are believed",
    )
    data = _bitmap()
    data[0x2030:0x2038] = b"\xff" * 8
    assert _layout(bytes(data)).shortcomings == (
        "the bitmap says 0xffffffffffffffff bits, but only 0x7e40 lie before the first page",
    )
    data = _complete()
    data[0x88] = 42
    data[0xB8:0x344] = struct.pack("<QQ", 0x1000, 0).ljust(0x344 - 0xB8, b"\0")
    assert _layout(bytes(data)).pages.page_count == _RUNS.page_count
    data[0x88] = 43
    assert "counts 1 more runs of memory than it can hold" in _layout(bytes(data)).shortcomings[0]


def test_bits_behind_the_last_one_do_not_count() -> None:
    data = _bitmap()
    data[0x2030:0x2038] = (0x11C).to_bytes(8, "little")  # the last four pages are none
    layout = _layout(bytes(data))
    assert (layout.claimed_page_count, layout.pages.offset_of(0x11C)) == (_RUNS.page_count - 4, None)


def test_required_dump_space_that_hides_pages_from_windbg_is_named() -> None:
    data = _bitmap()
    data[0xFA0:0xFA8] = (0x3000).to_bytes(8, "little")
    assert "RequiredDumpSpace says 0x3000, less than the 0xc1000 bytes" in _layout(bytes(data)).shortcomings[0]
    data[0xFA0:0xFA8] = b"PAGE" * 2
    assert _layout(bytes(data)).shortcomings == ()


def test_secondary_data_follows_the_last_page() -> None:
    secondary = encode_secondary([(_GUID, b"from a driver")], 0xF0004A61)
    for plan in (
        plan_complete(HEADER, _RUNS, secondary),
        plan_bitmap(HEADER, _RUNS, _RUNS, DumpType.BITMAP_KERNEL, secondary),
    ):
        data = rendered(plan, _MEMORY)
        layout = _layout(data)
        assert [blob.guid for blob in layout.secondary] == [_GUID]
        at = layout.secondary[0].file_offset
        assert data[at : at + layout.secondary[0].size] == b"from a driver"
        assert layout.header.required_dump_space == len(data)
        assert layout.shortcomings == ()


def test_a_complete_dump_without_runs_or_with_impossible_ones_is_refused() -> None:
    with pytest.raises(DumpFormatError, match="says no runs of memory"):
        _layout(encode_header(HEADER) + bytes(PAGE_SIZE))
    twice = encode_header(replace(HEADER, physical_memory=(PageRun(1, 2), PageRun(2, 2)))) + bytes(4 * PAGE_SIZE)
    with pytest.raises(DumpFormatError, match="two runs of memory hold page 0x2"):
        _layout(twice)
