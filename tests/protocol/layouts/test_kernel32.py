"""Structures of 32-bit kernels: the reference's x86 column (kd-protocol 7.5), and values laid out by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from protocol.address import PageRun, PageRuns
from protocol.errors import LayoutError
from protocol.layouts.kdbg import parse_kdbg
from protocol.layouts.kernel import KERNEL_LAYOUTS, parse_physical_memory_descriptor
from protocol.layouts.kernel32 import KLDR_DATA_TABLE_ENTRY32, LIST_ENTRY32, UNLOADED_DRIVER32
from tests.protocol.reference import number, tables

_MODULE = {
    "links": "flink", "DllBase": "dll_base", "EntryPoint": "entry_point", "SizeOfImage u32": "size_of_image",
    "FullDllName (UNICODE_STRING)": "full_dll_name_length", "BaseDllName": "base_dll_name_length",
    "Flags u32": "flags", "LoadCount u16": "load_count", "SectionPointer": "section_pointer",
    "CheckSum u32": "check_sum", "LoadedImports": "loaded_imports",
    "SizeOfImageNotRounded u32": "size_of_image_not_rounded", "TimeDateStamp u32": "time_date_stamp",
}  # fmt: skip


def test_a_module_entry_is_what_the_reference_says(shared: Path) -> None:
    (rows,) = [table for table in tables(shared, "7.5") if table and table[0][0] == "links"]
    for width, column in ((8, 1), (4, 2)):
        layout = KERNEL_LAYOUTS[width].module
        published = {_MODULE[row[0]]: number(row[column]) for row in rows if row[0] in _MODULE}
        assert len(published) == len(_MODULE)
        assert {name: layout.offset_of(name) for name in published} == published
        (exceptions,) = [row[column] for row in rows if row[0].startswith("ExceptionTable")]
        places = [layout.offset_of(name) for name in ("exception_table", "exception_table_size")]
        assert [number(cell) for cell in exceptions.split("/")] == places
    assert (KLDR_DATA_TABLE_ENTRY32.size, KERNEL_LAYOUTS[8].module.size) == (0x5C, 0xA0)


def test_both_widths_have_the_same_fields() -> None:
    for name in ("list_entry", "module", "unloaded_driver", "descriptor", "run"):
        wide, narrow = (getattr(KERNEL_LAYOUTS[width], name) for width in (8, 4))
        assert wide.fields == narrow.fields, name


def test_lists_and_unloaded_drivers_of_32_bits() -> None:
    assert LIST_ENTRY32.decode(struct.pack("<II", 1, 2)).values == {"flink": 1, "blink": 2}
    raw = struct.pack("<HHIIIQ", 8, 10, 0x80001000, 0x80600000, 0x80608000, 0x01CC0000_12345678)
    entry = UNLOADED_DRIVER32.decode(raw)
    assert (len(raw), entry["name"], entry["end_address"]) == (0x18, 0x80001000, 0x80608000)
    assert entry["current_time"] == 0x01CC0000_12345678


def test_runs_of_32_bits() -> None:
    raw = struct.pack("<II4I", 2, 0x30, 0x10, 0x20, 0x100, 0x10)
    runs = PageRuns([PageRun(0x10, 0x20), PageRun(0x100, 0x10)])
    assert parse_physical_memory_descriptor(raw, pointer_size=4) == runs
    with pytest.raises(LayoutError, match="do not add up"):
        parse_physical_memory_descriptor(struct.pack("<II4I", 2, 0x31, 0x10, 0x20, 0x100, 0x10), pointer_size=4)


def test_addresses_in_a_32_bit_kdbg_are_cut_to_32_bits() -> None:
    raw = bytearray(0x340)
    struct.pack_into("<II", raw, 0x10, 0x4742444B, 0x340)
    struct.pack_into("<Q", raw, 0x18, 0xFFFFFFFF_80500000)
    struct.pack_into("<Q", raw, 0x48, 0x80504700)
    block = parse_kdbg(bytes(raw), pointer_size=4)
    assert (block["kern_base"], block["ps_loaded_module_list"]) == (0x80500000, 0x80504700)
    assert block.raw == bytes(raw)
    assert parse_kdbg(bytes(raw))["kern_base"] == 0xFFFFFFFF_80500000
