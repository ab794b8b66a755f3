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


def test_of_a_file_that_ends_in_its_tables_the_header_is_left() -> None:
    data = bytes(_bitmap())
    for size, claimed, why in (
        (0x2000, 0x2000, "0x2000: the file ends inside the header of its bitmap"),
        (0x2037, 0x2037, "0x2037: the file ends inside the header of its bitmap"),
        (0x2039, 0x2039, "0x2039: the file ends inside its bitmap, which reaches to 0x2060"),
        (0x2050, len(data), "0x2050: the file ends inside its bitmap, sooner than its size says"),
    ):
        layout = parse_layout(reader(data[:size]), claimed)
        assert layout.shortcomings == (f"no page of memory can be found in it: at file offset {why}",)
        assert (layout.pages.page_count, layout.pages.offset_of(1), list(layout.pages.runs())) == (0, None, [])
        assert (layout.claimed_page_count, layout.expected_size, layout.size) == (0, claimed, claimed)
        assert layout.header == _layout(data).header
    with pytest.raises(DumpFormatError, match="0x1fff: the file ends inside its header"):
        _layout(data[:0x1FFF])


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0x2000, b"QAGE", "at file offset 0x2000: a bitmap's header begins with FDMP or SDMP, not with b'QAGE'"),
        (0x2020, bytes(8), "at file offset 0x2038: the first page is said to lie at 0x0, which is before the bitmap's"),
    ],
)
def test_a_bitmap_that_cannot_be_one_takes_the_pages_along_and_not_the_header(at: int, value: bytes, why: str) -> None:
    data = _bitmap()
    data[at : at + len(value)] = value
    layout = _layout(bytes(data))
    assert layout.shortcomings[0].startswith(f"no page of memory can be found in it: {why}")
    assert (layout.pages.page_count, layout.header.bug_check_code) == (0, HEADER.bug_check_code)


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


def test_a_wrong_number_of_pages_is_named_and_the_runs_are_believed() -> None:
    # NumberOfPages lies at 90 of a 64-bit header and at 68 of a 32-bit one (dump-formats 1.3).
    narrow = plan_complete(DumpHeader(bits=32, machine_image_type=0x14C, number_processors=1), _RUNS)
    for data, at, size in ((_complete(), 0x90, 8), (bytearray(rendered(narrow, _MEMORY)), 0x68, 4)):
        assert _layout(bytes(data)).shortcomings == ()
        for number in (0, 77, 191):
            data[at : at + size] = number.to_bytes(size, "little")
            layout = _layout(bytes(data))
            assert layout.shortcomings == (
                f"the header says {number} pages (NumberOfPages), its runs have 190: runs are believed",
            )
            assert list(layout.pages.runs()) == list(_RUNS)
        data[at : at + size] = (b"PAGE" * 2)[:size]
        assert _layout(bytes(data)).shortcomings == (
            "the header does not say how many pages there are (NumberOfPages): WinDbg warns of that",
        )
    # The runs of a bitmap dump are for information only.
    data = _bitmap()
    data[0x90:0x98] = bytes(8)
    assert _layout(bytes(data)).shortcomings == ()


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


@pytest.mark.parametrize("count", [0, 0x45474150])
def test_a_complete_dump_without_runs_has_a_header_and_no_pages(count: int) -> None:
    data = _complete()
    data[0x88:0x8C] = count.to_bytes(4, "little")
    layout = _layout(bytes(data))
    assert layout.pages.page_count == 0
    assert layout.shortcomings == (
        "no page of memory can be found in it: the header says no runs of memory; from 1 to 42 can be there",
    )
    assert layout.header.bug_check_code == HEADER.bug_check_code


_NEVER_SET = "the header's run 2 was never set (PAGE stands there): it is left out, and so is what follows it"
_BEYOND = (
    "the header's run 2 (0x4000000000000000 pages from 0x8000000000000000 on) is beyond 52 bits: it is left out, and so"
    " is what follows it"
)


@pytest.mark.parametrize(
    ("count", "third", "why"),
    [(3, None, _NEVER_SET), (0xFFFFFFFF, None, _NEVER_SET), (3, (1 << 63, 1 << 62), _BEYOND)],
)
def test_the_runs_before_one_that_cannot_be_keep_their_pages(
    count: int, third: tuple[int, int] | None, why: str
) -> None:
    data = _complete()
    data[0x88:0x8C] = count.to_bytes(4, "little")
    if third is not None:
        data[0xB8:0xC8] = struct.pack("<QQ", *third)
    layout = _layout(bytes(data))
    assert layout.shortcomings == (why,)
    assert list(layout.pages.runs()) == list(_RUNS)
    for page, content in _MEMORY.items():
        offset = layout.pages.offset_of(page)
        assert offset is not None and data[offset : offset + PAGE_SIZE] == content


def test_the_same_of_a_32_bit_dump() -> None:
    header = DumpHeader(bits=32, minor_version=7601, machine_image_type=0x14C, number_processors=1, pae_enabled=True)
    data = bytearray(rendered(plan_complete(header, _RUNS), _MEMORY))
    data[0x64] = 3
    layout = _layout(bytes(data))
    assert (layout.shortcomings, list(layout.pages.runs())) == ((_NEVER_SET,), list(_RUNS))


def test_pages_that_two_runs_hold_are_left_out_and_the_others_stay() -> None:
    runs = (PageRun(1, 3), PageRun(3, 3))
    pages = [bytes([number]) * PAGE_SIZE for number in range(6)]
    data = encode_header(replace(HEADER, physical_memory=runs)) + b"".join(pages)
    layout = _layout(data)
    assert layout.shortcomings == ("pages that two runs of memory hold are left out: 1 of them, 0x3 the first",)
    places = {page: layout.pages.offset_of(page) for page in range(8)}
    assert {page: data[at] for page, at in places.items() if at is not None} == {1: 0, 2: 1, 4: 4, 5: 5}
    cut = _layout(data[: -2 * PAGE_SIZE])
    assert "and 2 of 6 pages are not" in cut.shortcomings[-1]
