"""Symbol files' names of real images through pefile's reader, and bytes that mean nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.pe.debug import LARGEST_CODE_VIEW, CodeView, DebugEntry, code_view_entry, parse_code_view
from tests.real_images import images

_CODE_VIEW = 2


def test_names_are_as_pefile_reads_them() -> None:
    for image in images():
        place = image.file.OPTIONAL_HEADER.DATA_DIRECTORY[6]
        entry = code_view_entry(image.memory[place.VirtualAddress : place.VirtualAddress + place.Size])
        told = next(one.entry for one in image.file.DIRECTORY_ENTRY_DEBUG if one.struct.Type == _CODE_VIEW)
        assert entry is not None
        found = parse_code_view(image.memory[entry.rva : entry.rva + entry.size])
        assert found.pdb_name.encode() == told.PdbFileName.rstrip(b"\0")
        assert f"{found.guid}{found.age:X}" == told.Signature_String  # the folder's name in a symbol store


def test_the_guid_is_written_as_guids_are() -> None:
    """Its first three parts are numbers, of which the lowest byte comes first (RFC 9562, 4; as Windows stores it)."""
    record = b"RSDS" + bytes(range(16)) + struct.pack("<I", 0x1A) + b"mydrv.pdb\0junk"
    assert parse_code_view(record) == CodeView("mydrv.pdb", "030201000504070608090A0B0C0D0E0F", 0x1A)


def test_records_that_are_not_mapped_or_none_are_passed_over() -> None:
    def entry(kind: int, size: int, rva: int) -> bytes:
        return struct.pack("<IIHHIIII", 0, 0, 0, 0, kind, size, rva, 0x400)

    unusable = entry(12, 40, 0x1000) + entry(2, 40, 0) + entry(2, 24, 0x1000)
    assert code_view_entry(unusable) is code_view_entry(b"") is code_view_entry(bytes(27)) is None
    assert code_view_entry(unusable + entry(2, 0x30, 0x2000)) == DebugEntry(0x2000, 0x30)
    assert code_view_entry(entry(2, 1 << 31, 0x2000)) == DebugEntry(0x2000, LARGEST_CODE_VIEW)
    assert code_view_entry(entry(12, 1, 1) * 1000 + entry(2, 0x30, 0x2000)) is None


def test_older_records_are_not_taken_for_new_ones() -> None:
    with pytest.raises(LayoutError, match=r"4e 42 31 30"):
        parse_code_view(b"NB10".ljust(40, b"\0"))
    with pytest.raises(LayoutError):
        parse_code_view(b"RSDS".ljust(23, b"\0"))


@given(st.binary(max_size=200))
def test_bytes_that_mean_nothing_are_layout_errors(data: bytes) -> None:
    code_view_entry(data)
    try:
        found = parse_code_view(b"RSDS" + data)
    except LayoutError:
        return
    assert len(found.guid) == 32 and len(found.pdb_name) <= LARGEST_CODE_VIEW
