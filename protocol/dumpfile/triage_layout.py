"""TRIAGE_DUMP, the table behind the header of a small dump, and its lists, for both widths (dump-formats 4.1, 4.2).

Every offset in it counts from the start of the file; 0 where there is no such section.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import construct as cs

from protocol.structure import StructureLayout

from .header_layout import Bits

__all__ = ["TRIAGE_DUMP32", "TRIAGE_DUMP64", "TRIAGE_FORMS", "TriageForms"]

_SECTIONS = (
    "service_pack_build", "size_of_dump", "valid_offset", "context_offset", "exception_offset", "mm_offset",
    "unloaded_drivers_offset", "prcb_offset", "process_offset", "thread_offset", "call_stack_offset",
    "size_of_call_stack", "driver_list_offset", "driver_count", "string_pool_offset", "string_pool_size",
    "broken_driver_offset", "triage_options",
)  # fmt: skip

TRIAGE_DUMP64 = StructureLayout(
    "TRIAGE_DUMP64",
    cs.Struct(
        *[name / cs.Int32ul for name in _SECTIONS],
        "top_of_stack" / cs.Int64ul,
        "bstore_offset" / cs.Int32ul,
        "size_of_bstore" / cs.Int32ul,
        "limit_of_bstore" / cs.Int64ul,
        "data_page_address" / cs.Int64ul,
        "data_page_offset" / cs.Int32ul,
        "data_page_size" / cs.Int32ul,
        "debugger_data_offset" / cs.Int32ul,
        "debugger_data_size" / cs.Int32ul,
        "data_blocks_offset" / cs.Int32ul,
        "data_blocks_count" / cs.Int32ul,
    ),
    {"size_of_dump": 4, "context_offset": 0xC, "prcb_offset": 0x1C, "call_stack_offset": 0x28, "driver_count": 0x34,
     "triage_options": 0x44, "top_of_stack": 0x48, "data_page_address": 0x60, "debugger_data_offset": 0x70,
     "data_blocks_count": 0x7C},
    0x80,
)  # fmt: skip

TRIAGE_DUMP32 = StructureLayout(
    "TRIAGE_DUMP32",
    cs.Struct(
        *[name / cs.Int32ul for name in _SECTIONS],
        "top_of_stack" / cs.Int32ul,
        "data_page_address" / cs.Int32ul,
        "data_page_offset" / cs.Int32ul,
        "data_page_size" / cs.Int32ul,
        "debugger_data_offset" / cs.Int32ul,
        "debugger_data_size" / cs.Int32ul,
        "data_blocks_offset" / cs.Int32ul,
        "data_blocks_count" / cs.Int32ul,
    ),
    {"triage_options": 0x44, "top_of_stack": 0x48, "data_page_address": 0x4C, "debugger_data_offset": 0x58,
     "data_blocks_offset": 0x60},
    0x68,
)  # fmt: skip

_DRIVER64 = StructureLayout(
    "DUMP_DRIVER_ENTRY64",
    cs.Struct(
        "name_offset" / cs.Int32ul,
        cs.Padding(4 + 0x30),
        "dll_base" / cs.Int64ul,
        "entry_point" / cs.Int64ul,
        "size_of_image" / cs.Int32ul,
        cs.Padding(0x24),
        "flags" / cs.Int32ul,
        cs.Padding(0xC),
        "check_sum" / cs.Int32ul,
        cs.Padding(4),
        "time_date_stamp" / cs.Int32ul,
        cs.Padding(4),
    ),
    {"dll_base": 0x38, "entry_point": 0x40, "size_of_image": 0x48, "flags": 0x70, "check_sum": 0x80,
     "time_date_stamp": 0x88},
    0x90,
)  # fmt: skip

_DRIVER32 = StructureLayout(
    "DUMP_DRIVER_ENTRY32",
    cs.Struct(
        "name_offset" / cs.Int32ul,
        cs.Padding(0x18),
        "dll_base" / cs.Int32ul,
        "entry_point" / cs.Int32ul,
        "size_of_image" / cs.Int32ul,
        cs.Padding(0x10),
        "flags" / cs.Int32ul,
        cs.Padding(8),
        "check_sum" / cs.Int32ul,
        "time_date_stamp" / cs.Int32ul,
    ),
    {"dll_base": 0x1C, "entry_point": 0x20, "size_of_image": 0x24, "flags": 0x38, "check_sum": 0x44,
     "time_date_stamp": 0x48},
    0x4C,
)  # fmt: skip
"""As WinDbg's engine writes it for a 32-bit machine."""


@dataclass(frozen=True, slots=True)
class TriageForms:
    """How the tables of a small dump are laid out for one width of addresses. Data blocks are alike in both."""

    dump: StructureLayout
    driver: StructureLayout
    unloaded_count: int
    """Bytes of the count before the unloaded drivers."""
    unloaded: struct.Struct
    """UNICODE_STRING, twelve characters of the name, start and end."""
    address_mask: int


TRIAGE_FORMS: Mapping[Bits, TriageForms] = {
    64: TriageForms(TRIAGE_DUMP64, _DRIVER64, 8, struct.Struct("<HHIQ24sQQ"), (1 << 64) - 1),
    32: TriageForms(TRIAGE_DUMP32, _DRIVER32, 4, struct.Struct("<HHI0s24sII"), (1 << 32) - 1),
}
assert [forms.unloaded.size for forms in TRIAGE_FORMS.values()] == [0x38, 0x28]
