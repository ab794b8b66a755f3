"""TRIAGE_DUMP, the table behind the header of a small dump, for both widths (dump-formats 4.1).

Every offset in it counts from the start of the file; 0 where there is no such section.
"""

from __future__ import annotations

import construct as cs

from protocol.structure import StructureLayout

__all__ = ["TRIAGE_DUMP32", "TRIAGE_DUMP64"]

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
