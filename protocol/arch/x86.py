"""x86: CONTEXT, KSPECIAL_REGISTERS, paging with and without PAE (kd-protocol 5.1, 5.4; dump-formats 1.5)."""

from __future__ import annotations

from dataclasses import replace

import construct as cs

from protocol.structure import StructureLayout

from .description import SHARED_DATA_OFFSETS, Architecture, MachineType, PagingGeometry

__all__ = ["CONTEXT", "KSPECIAL_REGISTERS", "X86", "X86_WITHOUT_PAE"]

_NUMBERS = (
    "context_flags", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "control_word", "status_word", "tag_word",
    "error_offset", "error_selector", "data_offset", "data_selector",
)  # fmt: skip
_REGISTERS = (
    "cr0_npx_state", "seg_gs", "seg_fs", "seg_es", "seg_ds", "edi", "esi", "ebx", "edx", "ecx", "eax", "ebp", "eip",
    "seg_cs", "e_flags", "esp", "seg_ss",
)  # fmt: skip

CONTEXT = StructureLayout(
    "CONTEXT (x86)",
    cs.Struct(
        *[name / cs.Int32ul for name in _NUMBERS],
        "register_area" / cs.Bytes(80),
        *[name / cs.Int32ul for name in _REGISTERS],
        "extended_registers" / cs.Bytes(0x200),
    ),
    {
        "dr0": 4, "dr6": 0x14, "dr7": 0x18, "control_word": 0x1C, "data_selector": 0x34, "register_area": 0x38,
        "cr0_npx_state": 0x88, "seg_gs": 0x8C, "seg_fs": 0x90, "seg_es": 0x94, "seg_ds": 0x98, "edi": 0x9C,
        "esi": 0xA0, "ebx": 0xA4, "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0, "ebp": 0xB4, "eip": 0xB8, "seg_cs": 0xBC,
        "e_flags": 0xC0, "esp": 0xC4, "seg_ss": 0xC8, "extended_registers": 0xCC,
    },
    0x2CC,
)  # fmt: skip

KSPECIAL_REGISTERS = StructureLayout(
    "KSPECIAL_REGISTERS (x86)",
    cs.Struct(
        *[name / cs.Int32ul for name in ("cr0", "cr2", "cr3", "cr4")],
        *[f"kernel_dr{n}" / cs.Int32ul for n in (0, 1, 2, 3, 6, 7)],
        cs.Padding(2),
        "gdtr_limit" / cs.Int16ul,
        "gdtr_base" / cs.Int32ul,
        cs.Padding(2),
        "idtr_limit" / cs.Int16ul,
        "idtr_base" / cs.Int32ul,
        "tr" / cs.Int16ul,
        "ldtr" / cs.Int16ul,
        "xcr0" / cs.Int64ul,  # Windows 10; reserved before
        "exception_list" / cs.Int32ul,
        cs.Padding(12),
    ),
    {
        "cr2": 4, "cr3": 8, "cr4": 0xC, "kernel_dr0": 0x10, "kernel_dr6": 0x20, "kernel_dr7": 0x24,
        "gdtr_limit": 0x2A, "gdtr_base": 0x2C, "idtr_limit": 0x32, "idtr_base": 0x34, "tr": 0x38, "ldtr": 0x3A,
        "xcr0": 0x3C, "exception_list": 0x44,
    },
    0x54,
)  # fmt: skip

_PAE = PagingGeometry(
    shifts=(30, 21, 12),
    entries=512,  # of which the top table has four
    entry_size=8,
    frame_mask=0x000F_FFFF_FFFF_F000,
    valid_bit=1 << 0,
    large_bit=1 << 7,
    large_levels=frozenset({1}),
    root_mask=0xFFFF_FFE0,
    kernel_entries=range(2, 4),
    transition_bit=1 << 11,
    prototype_bit=1 << 10,
    virtual_bits=32,
    sign_extended=False,
)

_TWO_LEVELS = PagingGeometry(
    shifts=(22, 12),
    entries=1024,
    entry_size=4,
    frame_mask=0xFFFF_F000,
    valid_bit=1 << 0,
    large_bit=1 << 7,
    large_levels=frozenset({0}),
    root_mask=0xFFFF_F000,
    kernel_entries=range(512, 1024),
    transition_bit=1 << 11,
    prototype_bit=1 << 10,
    virtual_bits=32,
    sign_extended=False,
)

X86 = Architecture(
    name="x86",
    machine_type=MachineType.I386,
    live=False,
    pointer_size=4,
    context=CONTEXT,
    special_registers=KSPECIAL_REGISTERS,
    special_registers_least=0x3C,
    paging=_PAE,
    program_counter="eip",
    stack_pointer="esp",
    first_argument="eax",
    flags_register="e_flags",
    directory_table_base="cr3",
    descriptor_tables=(("gdtr_base", "gdtr_limit"), ("idtr_base", "idtr_limit")),
    context_flags="context_flags",
    context_flags_base=0x0001_0000,
    context_flags_all=0x0001_003F,
    break_instruction=b"\xcc",
    trace_flag=1 << 8,
    control_report_dr7=0x04,
    fixed_pte_base=0xC000_0000,
    fixed_shared_data=0xFFDF_0000,
    shared_data_offsets=SHARED_DATA_OFFSETS,
    display=(
        ("eax", "ebx", "ecx", "edx", "esi", "edi"),
        ("eip", "esp", "ebp"),
        ("seg_cs", "seg_ss", "seg_ds", "seg_es", "seg_fs", "seg_gs", "e_flags"),
    ),
    display_special=(("cr0", "cr2", "cr3", "cr4"), ("gdtr_base", "idtr_base")),
    display_names={
        "seg_cs": "cs", "seg_ss": "ss", "seg_ds": "ds", "seg_es": "es", "seg_fs": "fs", "seg_gs": "gs",
        "e_flags": "efl", "gdtr_base": "gdtr", "idtr_base": "idtr",
    },
)  # fmt: skip
"""With PAE: page table entries of 8 bytes, three levels."""

X86_WITHOUT_PAE = replace(X86, paging=_TWO_LEVELS)
"""Page table entries of 4 bytes, two levels: a dump's header, or else its KDBG, says so."""
