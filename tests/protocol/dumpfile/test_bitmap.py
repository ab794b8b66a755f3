"""Bitmaps: the reference's numbers, and a bitmap counted bit by bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import PageRun, PageRuns
from protocol.dumpfile.bitmap import (
    BITMAP_HEADER,
    MOST_BITS,
    BitmapHeader,
    bitmap_bit_count,
    bitmap_chunks,
    encode_bitmap_header,
    first_page_offset,
    parse_bitmap_header,
)
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.index import runs_of_bits
from protocol.errors import DumpFormatError


def test_a_header_is_laid_out_as_published() -> None:
    # dump-formats 2.3: FDMP, DUMP, options, 0x14 reserved, then three qwords.
    raw = encode_bitmap_header(BitmapHeader(0x2038, 0x40000, 0xB000, 0x544B), DumpType.BITMAP_FULL)
    assert raw == bytes.fromhex(
        f"46444d50 44554d50 00000000 {'00' * 0x14} 00b0000000000000 4b54000000000000 0000040000000000"
    )
    assert encode_bitmap_header(BitmapHeader(0x2038, 64, 0x3000, 1), DumpType.BITMAP_KERNEL)[:4] == b"SDMP"
    with pytest.raises(DumpFormatError, match="type 1 has no such bitmap"):
        encode_bitmap_header(BitmapHeader(0x2038, 64, 0x3000, 1), DumpType.FULL)


def test_the_header_of_a_dump_that_an_old_debugger_wrote() -> None:
    # Published values of a real file: first page A038h, 40000h bits, 544Bh pages. No gap, no alignment.
    raw = BITMAP_HEADER.encode(
        {"signature": 0x504D4446, "header_size": 0xA038, "pages": 0x544B, "bitmap_size": 0x40000}
    )
    header = parse_bitmap_header(raw, 0x2000)
    assert header.checked() == (BitmapHeader(0x2038, 0x40000, 0xA038, 0x544B), ())
    assert header.bits_offset + header.bitmap_size == header.first_page_offset


@pytest.mark.parametrize(("end_page", "bits", "first"), [(1, 64, 0x3000), (64, 64, 0x3000), (65, 128, 0x3000)])
def test_sizes_of_small_bitmaps(end_page: int, bits: int, first: int) -> None:
    assert bitmap_bit_count(end_page) == bits
    assert first_page_offset(0x2038, bits) == first


def test_sizes_at_the_border_of_a_page() -> None:
    # 2038h + bits/8 rounded up to a page (8.2): 0xFC8 bytes of bits fill the page, one more word begins another.
    assert first_page_offset(0x2038, 0xFC8 * 8) == 0x3000
    assert first_page_offset(0x2038, 0xFC8 * 8 + 64) == 0x4000
    assert first_page_offset(0x2038, bitmap_bit_count(16 << 20)) == 0x203000  # 64 GiB


@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(1, 700_000)), max_size=6), st.integers(0, 3))
def test_bits_are_those_of_the_pages(pairs: list[tuple[int, int]], spare: int) -> None:
    pages = PageRuns(PageRun(*pair) for pair in pairs)
    bits = bitmap_bit_count(pages.end_page) + 64 * spare
    chunks = list(bitmap_chunks(pages, bits))
    assert all(len(chunk) <= 0x10000 for chunk in chunks)
    value = int.from_bytes(b"".join(chunks), "little")
    assert sum(map(len, chunks)) == bits // 8
    assert value == sum(((1 << run.page_count) - 1) << run.base_page for run in pages)
    assert PageRuns(runs_of_bits(chunks)) == pages


def test_a_page_beyond_the_bitmap_is_refused() -> None:
    with pytest.raises(DumpFormatError, match="page 0x40 has no bit in a bitmap of 0x40 bits"):
        list(bitmap_chunks(PageRuns([PageRun(0x40, 1)]), 0x40))


def test_damaged_headers_are_named() -> None:
    with pytest.raises(DumpFormatError, match=r"0x2000: a bitmap's header begins with FDMP or SDMP, not with b'XDMP'"):
        parse_bitmap_header(b"XDMP" + bytes(0x34), 0x2000)
    with pytest.raises(DumpFormatError, match="0x2037: the file ends inside the header of its bitmap"):
        parse_bitmap_header(bytes(0x37), 0x2000)
    with pytest.raises(DumpFormatError, match="0x2038: the first page is said to lie at 0x2038"):
        BitmapHeader(0x2038, 64, 0x2038, 1).checked()
    with pytest.raises(DumpFormatError, match="is not believable"):
        BitmapHeader(0x2038, MOST_BITS + 1, MOST_BITS, 1).checked()
    header, shortcomings = BitmapHeader(0x2038, 1 << 60, 0x3000, 1).checked()
    assert header.bit_count == 8 * (0x3000 - 0x2038)
    assert shortcomings == ("the bitmap says 0x1000000000000000 bits, but only 0x7e40 lie before the first page",)
