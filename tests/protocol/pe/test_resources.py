"""Resource directories of real images through pefile's reader, and bytes that mean nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.pe.resources import (
    DATA_ENTRY_SIZE,
    DIRECTORY_SIZE,
    MOST_ENTRIES,
    RT_VERSION,
    ResourceEntry,
    parse_data_entry,
    parse_resource_directory,
    resource_directory_size,
)
from tests.real_images import images


def test_the_way_to_the_version_is_as_pefile_walks_it() -> None:
    for image in images():
        tree = image.memory[image.file.OPTIONAL_HEADER.DATA_DIRECTORY[2].VirtualAddress :]
        root = parse_resource_directory(tree)
        told = image.file.DIRECTORY_ENTRY_RESOURCE.entries
        assert [one.id for one in root] == [one.id for one in told]
        assert len(root) == (resource_directory_size(tree) - DIRECTORY_SIZE) // 8
        kind = next(one for one in told if one.id == RT_VERSION)
        at = next(one for one in root if one.id == RT_VERSION)
        for _ in range(2):
            assert at.is_directory
            at = parse_resource_directory(tree[at.offset :])[0]
        data = kind.directory.entries[0].directory.entries[0].data.struct
        assert not at.is_directory
        assert parse_data_entry(tree[at.offset :]) == (data.OffsetToData, data.Size)


def test_entries_with_a_name_have_no_number_and_many_are_cut() -> None:
    entries = struct.pack("<IIII", 1 << 31 | 0x80, 1 << 31 | 0x18, 16, 0x40)
    data = bytes(12) + struct.pack("<HH", 1, 1) + entries
    assert parse_resource_directory(data) == (ResourceEntry(None, 0x18, True), ResourceEntry(16, 0x40, False))
    assert parse_resource_directory(data[:-1]) == (ResourceEntry(None, 0x18, True),)
    many = bytes(12) + struct.pack("<HH", 0xFFFF, 0xFFFF) + bytes(8 * 1000)
    assert len(parse_resource_directory(many)) == MOST_ENTRIES
    with pytest.raises(LayoutError, match=r"IMAGE_RESOURCE_DIRECTORY at 0x10"):
        resource_directory_size(bytes(15), 0x10)


@given(st.binary(max_size=80))
def test_bytes_that_mean_nothing_are_layout_errors(data: bytes) -> None:
    if len(data) < DIRECTORY_SIZE:
        with pytest.raises(LayoutError):
            parse_resource_directory(data)
    else:
        assert len(parse_resource_directory(data)) <= (len(data) - DIRECTORY_SIZE) // 8
    if len(data) < DATA_ENTRY_SIZE:
        with pytest.raises(LayoutError):
            parse_data_entry(data)
