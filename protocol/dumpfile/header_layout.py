"""DUMP_HEADER64 and DUMP_HEADER32, field by field (dump-formats 1.1, 1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import construct as cs

from protocol.structure import StructureLayout

__all__ = ["COMMENT_SIZE", "DUMP_HEADER32", "DUMP_HEADER64", "HEADER_LAYOUTS", "MOST_RUNS", "Bits"]

Bits = Literal[32, 64]
"""Which of the two headers: by the width of the machine's addresses."""

COMMENT_SIZE = 128
"""Bytes of the comment, its final NUL included."""

MOST_RUNS: Mapping[Bits, int] = {32: 86, 64: 42}
"""Runs that fit into the 700 bytes of PhysicalMemoryBlock. WinDbg drops the pages of any further ones."""

_HEADER64 = cs.Struct(
    "signature" / cs.Int32ul,
    "valid_dump" / cs.Int32ul,
    "major_version" / cs.Int32ul,
    "minor_version" / cs.Int32ul,
    "directory_table_base" / cs.Int64ul,
    "pfn_database" / cs.Int64ul,
    "ps_loaded_module_list" / cs.Int64ul,
    "ps_active_process_head" / cs.Int64ul,
    "machine_image_type" / cs.Int32ul,
    "number_processors" / cs.Int32ul,
    "bug_check_code" / cs.Int32ul,
    cs.Padding(4),
    *[f"bug_check_parameter{n}" / cs.Int64ul for n in range(1, 5)],
    "version_user" / cs.Bytes(32),
    "kd_debugger_data_block" / cs.Int64ul,
    "number_of_runs" / cs.Int32ul,
    "run_padding" / cs.Int32ul,
    "number_of_pages" / cs.Int64ul,
    "runs" / cs.Bytes(42 * 16),
    cs.Padding(12 + 4),
    "context_record" / cs.Bytes(3000),
    "exception" / cs.Bytes(0x98),
    "dump_type" / cs.Int32ul,
    cs.Padding(4),
    "required_dump_space" / cs.Int64ul,
    "system_time" / cs.Int64ul,
    "comment" / cs.Bytes(COMMENT_SIZE),
    "system_up_time" / cs.Int64ul,
    "mini_dump_fields" / cs.Int32ul,
    "secondary_data_state" / cs.Int32ul,
    "product_type" / cs.Int32ul,
    "suite_mask" / cs.Int32ul,
    "writer_status" / cs.Int32ul,
    cs.Padding(1),
    "kd_secondary_version" / cs.Int8ul,
    cs.Padding(2),
    "attributes" / cs.Int32ul,
    "boot_id" / cs.Int32ul,
    cs.Padding(4008),
)

DUMP_HEADER64 = StructureLayout(
    "DUMP_HEADER64",
    _HEADER64,
    {
        "valid_dump": 4, "major_version": 8, "directory_table_base": 0x10, "pfn_database": 0x18,
        "ps_loaded_module_list": 0x20, "ps_active_process_head": 0x28, "machine_image_type": 0x30,
        "number_processors": 0x34, "bug_check_code": 0x38, "bug_check_parameter1": 0x40, "version_user": 0x60,
        "kd_debugger_data_block": 0x80, "number_of_runs": 0x88, "number_of_pages": 0x90, "runs": 0x98,
        "context_record": 0x348, "exception": 0xF00, "dump_type": 0xF98, "required_dump_space": 0xFA0,
        "system_time": 0xFA8, "comment": 0xFB0, "system_up_time": 0x1030, "mini_dump_fields": 0x1038,
        "secondary_data_state": 0x103C, "product_type": 0x1040, "suite_mask": 0x1044, "writer_status": 0x1048,
        "kd_secondary_version": 0x104D, "attributes": 0x1050, "boot_id": 0x1054,
    },
    0x2000,
)  # fmt: skip

_HEADER32 = cs.Struct(
    "signature" / cs.Int32ul,
    "valid_dump" / cs.Int32ul,
    "major_version" / cs.Int32ul,
    "minor_version" / cs.Int32ul,
    "directory_table_base" / cs.Int32ul,
    "pfn_database" / cs.Int32ul,
    "ps_loaded_module_list" / cs.Int32ul,
    "ps_active_process_head" / cs.Int32ul,
    "machine_image_type" / cs.Int32ul,
    "number_processors" / cs.Int32ul,
    "bug_check_code" / cs.Int32ul,
    *[f"bug_check_parameter{n}" / cs.Int32ul for n in range(1, 5)],
    "version_user" / cs.Bytes(32),
    "pae_enabled" / cs.Int8ul,
    "kd_secondary_version" / cs.Int8ul,
    cs.Padding(2),
    "kd_debugger_data_block" / cs.Int32ul,
    "number_of_runs" / cs.Int32ul,
    "number_of_pages" / cs.Int32ul,
    "runs" / cs.Bytes(86 * 8),
    cs.Padding(4),
    "context_record" / cs.Bytes(1200),
    "exception" / cs.Bytes(0x50),
    "comment" / cs.Bytes(COMMENT_SIZE),
    "attributes" / cs.Int32ul,
    "boot_id" / cs.Int32ul,
    cs.Padding(1760),
    "dump_type" / cs.Int32ul,
    "mini_dump_fields" / cs.Int32ul,
    "secondary_data_state" / cs.Int32ul,
    "product_type" / cs.Int32ul,
    "suite_mask" / cs.Int32ul,
    "writer_status" / cs.Int32ul,
    "required_dump_space" / cs.Int64ul,
    cs.Padding(16),
    "system_up_time" / cs.Int64ul,
    "system_time" / cs.Int64ul,
    cs.Padding(56),
)

DUMP_HEADER32 = StructureLayout(
    "DUMP_HEADER32",
    _HEADER32,
    {
        "valid_dump": 4, "major_version": 8, "directory_table_base": 0x10, "pfn_database": 0x14,
        "ps_loaded_module_list": 0x18, "ps_active_process_head": 0x1C, "machine_image_type": 0x20,
        "number_processors": 0x24, "bug_check_code": 0x28, "bug_check_parameter1": 0x2C, "version_user": 0x3C,
        "pae_enabled": 0x5C, "kd_secondary_version": 0x5D, "kd_debugger_data_block": 0x60, "number_of_runs": 0x64,
        "number_of_pages": 0x68, "runs": 0x6C, "context_record": 0x320, "exception": 0x7D0, "comment": 0x820,
        "attributes": 0x8A0, "boot_id": 0x8A4, "dump_type": 0xF88, "mini_dump_fields": 0xF8C,
        "secondary_data_state": 0xF90, "product_type": 0xF94, "suite_mask": 0xF98, "writer_status": 0xF9C,
        "required_dump_space": 0xFA0, "system_up_time": 0xFB8, "system_time": 0xFC0,
    },
    0x1000,
)  # fmt: skip

HEADER_LAYOUTS: Mapping[Bits, StructureLayout] = {32: DUMP_HEADER32, 64: DUMP_HEADER64}
