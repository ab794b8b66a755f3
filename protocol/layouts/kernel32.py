"""The same kernel structures of 32-bit machines (kd-protocol 7.5)."""

from __future__ import annotations

import construct as cs

from protocol.structure import StructureLayout

__all__ = [
    "KLDR_DATA_TABLE_ENTRY32",
    "LIST_ENTRY32",
    "PHYSICAL_MEMORY_DESCRIPTOR32",
    "PHYSICAL_MEMORY_RUN32",
    "UNLOADED_DRIVER32",
]

LIST_ENTRY32 = StructureLayout(
    "LIST_ENTRY32", cs.Struct("flink" / cs.Int32ul, "blink" / cs.Int32ul), {"flink": 0, "blink": 4}, 8
)

KLDR_DATA_TABLE_ENTRY32 = StructureLayout(
    "KLDR_DATA_TABLE_ENTRY32",
    cs.Struct(
        "flink" / cs.Int32ul,
        "blink" / cs.Int32ul,
        "exception_table" / cs.Int32ul,
        "exception_table_size" / cs.Int32ul,
        cs.Padding(8),
        "dll_base" / cs.Int32ul,
        "entry_point" / cs.Int32ul,
        "size_of_image" / cs.Int32ul,
        "full_dll_name_length" / cs.Int16ul,
        "full_dll_name_maximum" / cs.Int16ul,
        "full_dll_name" / cs.Int32ul,
        "base_dll_name_length" / cs.Int16ul,
        "base_dll_name_maximum" / cs.Int16ul,
        "base_dll_name" / cs.Int32ul,
        "flags" / cs.Int32ul,
        "load_count" / cs.Int16ul,
        cs.Padding(2),
        "section_pointer" / cs.Int32ul,
        "check_sum" / cs.Int32ul,
        cs.Padding(8),
        "loaded_imports" / cs.Int32ul,
        cs.Padding(4),
        "size_of_image_not_rounded" / cs.Int32ul,
        "time_date_stamp" / cs.Int32ul,
    ),
    {
        "exception_table": 0x08, "exception_table_size": 0x0C, "dll_base": 0x18, "entry_point": 0x1C,
        "size_of_image": 0x20, "full_dll_name_length": 0x24, "base_dll_name_length": 0x2C, "flags": 0x34,
        "load_count": 0x38, "section_pointer": 0x3C, "check_sum": 0x40, "loaded_imports": 0x4C,
        "size_of_image_not_rounded": 0x54, "time_date_stamp": 0x58,
    },
    0x5C,
)  # fmt: skip
"""Windows 10's shape, as of 64 bits: older ones agree up to CheckSum."""

UNLOADED_DRIVER32 = StructureLayout(
    "MM_UNLOADED_DRIVER32",
    cs.Struct(
        "name_length" / cs.Int16ul,
        "name_maximum" / cs.Int16ul,
        "name" / cs.Int32ul,
        "start_address" / cs.Int32ul,
        "end_address" / cs.Int32ul,
        "current_time" / cs.Int64ul,
    ),
    {"name": 4, "start_address": 8, "end_address": 0xC, "current_time": 0x10},
    0x18,
)

PHYSICAL_MEMORY_DESCRIPTOR32 = StructureLayout(
    "PHYSICAL_MEMORY_DESCRIPTOR32",
    cs.Struct("number_of_runs" / cs.Int32ul, "number_of_pages" / cs.Int32ul),
    {"number_of_runs": 0, "number_of_pages": 4},
    8,
)
PHYSICAL_MEMORY_RUN32 = StructureLayout(
    "PHYSICAL_MEMORY_RUN32",
    cs.Struct("base_page" / cs.Int32ul, "page_count" / cs.Int32ul),
    {"base_page": 0, "page_count": 4},
    8,
)
