"""Export directories of real images through pefile's reader, and bytes that mean nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.pe.exports import EXPORT_DIRECTORY_SIZE, MOST_EXPORTS, ExportDirectory, parse_export_directory
from tests.real_images import images


def test_directories_are_as_pefile_reads_them() -> None:
    read = 0
    for image in images():
        place = image.file.OPTIONAL_HEADER.DATA_DIRECTORY[0]
        if not place.Size:
            continue
        told = image.file.DIRECTORY_ENTRY_EXPORT.struct
        assert parse_export_directory(image.memory[place.VirtualAddress :][:EXPORT_DIRECTORY_SIZE]) == ExportDirectory(
            base=told.Base, functions=told.AddressOfFunctions, function_count=told.NumberOfFunctions,
            names=told.AddressOfNames, name_ordinals=told.AddressOfNameOrdinals, name_count=told.NumberOfNames,
        )  # fmt: skip
        read += 1
    assert read


def test_more_entries_than_ordinals_can_be_are_refused() -> None:
    def directory(functions: int, names: int) -> bytes:
        return bytes(16) + struct.pack("<6I", 1, functions, names, 0x1000, 0x2000, 0x3000)

    assert parse_export_directory(directory(MOST_EXPORTS, MOST_EXPORTS)).function_count == 65536
    for functions, names in ((MOST_EXPORTS + 1, 0), (0, MOST_EXPORTS + 1)):
        with pytest.raises(LayoutError, match="cannot be"):
            parse_export_directory(directory(functions, names))
    with pytest.raises(LayoutError, match=r"IMAGE_EXPORT_DIRECTORY at 0x77"):
        parse_export_directory(bytes(39), 0x77)


@given(st.binary(max_size=60))
def test_bytes_that_mean_nothing_are_layout_errors(data: bytes) -> None:
    try:
        found = parse_export_directory(data)
    except LayoutError:
        return
    assert len(data) >= EXPORT_DIRECTORY_SIZE and max(found.function_count, found.name_count) <= MOST_EXPORTS
