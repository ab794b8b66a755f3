"""Headers of real images through pefile's reader, and bytes that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.pe.headers import (
    DOS_HEADER_SIZE,
    FURTHEST_HEADER,
    Directory,
    DirectoryIndex,
    PeHeaders,
    PeSection,
    parse_pe_headers,
    pe_header_offset,
    pe_headers_size,
)
from tests.real_images import images


def _headers(memory: bytes) -> PeHeaders:
    return parse_pe_headers(memory[pe_header_offset(memory) :])


def test_headers_are_as_pefile_reads_them() -> None:
    machines = set()
    for image in images():
        found, file = _headers(image.memory), image.file
        assert (found.machine, found.time_date_stamp) == (file.FILE_HEADER.Machine, file.FILE_HEADER.TimeDateStamp)
        optional = file.OPTIONAL_HEADER
        assert (found.size_of_image, found.check_sum) == (optional.SizeOfImage, optional.CheckSum)
        assert found.wide is (optional.Magic == 0x20B)
        told = [(one.VirtualAddress, one.Size) for one in optional.DATA_DIRECTORY]
        assert [(one.rva, one.size) for one in found.directories] == told
        assert [(one.name, one.rva, one.size, one.characteristics) for one in found.sections] == [
            (one.Name.rstrip(b"\0").decode(), one.VirtualAddress, one.Misc_VirtualSize, one.Characteristics)
            for one in file.sections
        ]
        machines.add(found.machine)
    assert machines == {0x14C, 0x8664, 0xAA64}


def test_the_size_reaches_to_the_end_of_the_section_headers() -> None:
    for image in images():
        at, last = pe_header_offset(image.memory), image.file.sections[-1]
        assert at + pe_headers_size(image.memory[at : at + 24]) == last.get_file_offset() + last.sizeof()


def test_of_headers_that_break_off_what_is_there_is_told() -> None:
    for image in images():
        at = pe_header_offset(image.memory)
        whole = parse_pe_headers(image.memory[at:])
        optional = at + 24 + image.file.FILE_HEADER.SizeOfOptionalHeader
        cut = parse_pe_headers(image.memory[at : optional + 40 + 39])
        assert cut.directories == whole.directories and cut.sections == whole.sections[:1]
        cut = parse_pe_headers(image.memory[at : optional - 8 * 13])
        assert cut.directories == whole.directories[:3] and cut.sections == ()
        with pytest.raises(LayoutError):
            parse_pe_headers(image.memory[at : at + 24 + 95])


def test_a_directory_outside_of_the_image_is_none() -> None:
    tables = (Directory(0x1000, 0x100), Directory(0, 0), Directory(0x1F80, 0x81), Directory(0x1F80, 0x80))
    headers = PeHeaders(0x8664, 0, 0x2000, 0, True, tables, (PeSection(".text", 0x1000, 0x800, 0),))
    assert headers.directory(DirectoryIndex.EXPORT) == tables[0]
    assert headers.directory(DirectoryIndex.RESOURCE) is None  # it ends a byte behind the image
    assert headers.directory(DirectoryIndex.EXCEPTION) == tables[3]
    assert headers.directory(DirectoryIndex.DEBUG) is None
    assert headers.section_of(0x17FF) == headers.sections[0]
    assert headers.section_of(0x1800) is headers.section_of(0xFFF) is None


@given(st.binary(max_size=0x300))
def test_bytes_that_mean_nothing_are_layout_errors(data: bytes) -> None:
    for before in (b"", b"MZ".ljust(DOS_HEADER_SIZE - 4, b"\0")):
        try:
            assert 4 <= pe_header_offset(before + data) < FURTHEST_HEADER
        except LayoutError:
            continue
    for before in (b"", b"PE\0\0", b"PE\0\0\x64\x86\xff\xff" + bytes(12) + b"\xff\xff\0\0\x0b\x02"):
        try:
            found = parse_pe_headers(before + data)
        except LayoutError:
            continue
        assert len(found.directories) <= 16 and len(found.sections) <= 96


def test_errors_name_the_place() -> None:
    with pytest.raises(LayoutError, match=r"IMAGE_DOS_HEADER at 0x1234"):
        pe_header_offset(bytes(0x40), 0x1234)
    with pytest.raises(LayoutError, match=r"IMAGE_NT_HEADERS at 0x1234"):
        pe_headers_size(bytes(24), 0x1234)
