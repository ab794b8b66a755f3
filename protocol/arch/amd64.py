"""AMD64 (x64): CONTEXT, KSPECIAL_REGISTERS, four-level paging (kd-protocol 5.2, 5.4; dump-formats 1.5)."""

from __future__ import annotations

from typing import Any

import construct as cs

from protocol.structure import StructureLayout

from .description import SHARED_DATA_OFFSETS, Architecture, MachineType, PagingGeometry

__all__ = ["AMD64", "CONTEXT", "KSPECIAL_REGISTERS"]


def _words(kind: Any, *names: str) -> list[Any]:
    return [name / kind for name in names]


# P1Home..LastExceptionFromRip. MxCsr stands twice: at 34 and, inside FltSave, at 118 (MxCsr2).
_CONTEXT = cs.Struct(
    *_words(cs.Int64ul, "p1_home", "p2_home", "p3_home", "p4_home", "p5_home", "p6_home"),
    *_words(cs.Int32ul, "context_flags", "mx_csr"),
    *_words(cs.Int16ul, "seg_cs", "seg_ds", "seg_es", "seg_fs", "seg_gs", "seg_ss"),
    "e_flags" / cs.Int32ul,
    *_words(cs.Int64ul, "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    *_words(cs.Int64ul, "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *_words(cs.Int64ul, "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"),
    *_words(cs.Int16ul, "control_word", "status_word"),
    *_words(cs.Int8ul, "tag_word", "reserved1"),
    "error_opcode" / cs.Int16ul,
    "error_offset" / cs.Int32ul,
    *_words(cs.Int16ul, "error_selector", "reserved2"),
    "data_offset" / cs.Int32ul,
    *_words(cs.Int16ul, "data_selector", "reserved3"),
    *_words(cs.Int32ul, "mx_csr2", "mx_csr_mask"),
    *[f"st{n}" / cs.Bytes(16) for n in range(8)],
    *[f"xmm{n}" / cs.Bytes(16) for n in range(16)],
    "flt_save_reserved" / cs.Bytes(96),
    "vector_register" / cs.Bytes(26 * 16),
    *_words(cs.Int64ul, "vector_control", "debug_control", "last_branch_to_rip", "last_branch_from_rip"),
    *_words(cs.Int64ul, "last_exception_to_rip", "last_exception_from_rip"),
)

CONTEXT = StructureLayout(
    "CONTEXT (AMD64)",
    _CONTEXT,
    {
        "context_flags": 0x30, "mx_csr": 0x34, "seg_cs": 0x38, "seg_ss": 0x42, "e_flags": 0x44, "dr0": 0x48,
        "dr6": 0x68, "dr7": 0x70, "rax": 0x78, "rcx": 0x80, "rdx": 0x88, "rbx": 0x90, "rsp": 0x98, "rbp": 0xA0,
        "rsi": 0xA8, "rdi": 0xB0, "r8": 0xB8, "r15": 0xF0, "rip": 0xF8, "control_word": 0x100, "mx_csr2": 0x118,
        "st0": 0x120, "xmm0": 0x1A0, "xmm15": 0x290, "vector_register": 0x300, "vector_control": 0x4A0,
        "debug_control": 0x4A8, "last_branch_to_rip": 0x4B0, "last_exception_from_rip": 0x4C8,
    },
    0x4D0,
)  # fmt: skip

_SPECIAL = cs.Struct(
    *_words(cs.Int64ul, "cr0", "cr2", "cr3", "cr4"),
    *_words(cs.Int64ul, "kernel_dr0", "kernel_dr1", "kernel_dr2", "kernel_dr3", "kernel_dr6", "kernel_dr7"),
    cs.Padding(6),
    "gdtr_limit" / cs.Int16ul,
    "gdtr_base" / cs.Int64ul,
    cs.Padding(6),
    "idtr_limit" / cs.Int16ul,
    "idtr_base" / cs.Int64ul,
    *_words(cs.Int16ul, "tr", "ldtr"),
    "mx_csr" / cs.Int32ul,
    *_words(cs.Int64ul, "debug_control", "last_branch_to_rip", "last_branch_from_rip"),
    *_words(cs.Int64ul, "last_exception_to_rip", "last_exception_from_rip", "cr8"),
    *_words(cs.Int64ul, "msr_gs_base", "msr_gs_swap", "msr_star", "msr_l_star", "msr_c_star", "msr_syscall_mask"),
    *_words(cs.Int64ul, "xcr0", "msr_fs_base", "reserved"),
)

KSPECIAL_REGISTERS = StructureLayout(
    "KSPECIAL_REGISTERS (AMD64)",
    _SPECIAL,
    {
        "cr0": 0, "cr3": 0x10, "kernel_dr7": 0x48, "gdtr_limit": 0x56, "gdtr_base": 0x58, "idtr_limit": 0x66,
        "idtr_base": 0x68, "tr": 0x70, "mx_csr": 0x74, "cr8": 0xA0, "msr_gs_base": 0xA8, "msr_syscall_mask": 0xD0,
        "xcr0": 0xD8, "msr_fs_base": 0xE0,
    },
    0xF0,
)  # fmt: skip
"""0xF0 bytes since 15063; 0xE0 and 0xD8 before, the same from the start on (kd-protocol 5.4)."""

AMD64 = Architecture(
    name="x64",
    machine_type=MachineType.AMD64,
    live=True,
    pointer_size=8,
    context=CONTEXT,
    special_registers=KSPECIAL_REGISTERS,
    special_registers_least=0xA8,
    paging=PagingGeometry(
        shifts=(39, 30, 21, 12),
        entries=512,
        entry_size=8,
        frame_mask=0x000F_FFFF_FFFF_F000,
        valid_bit=1 << 0,
        large_bit=1 << 7,
        large_levels=frozenset({1, 2}),
        root_mask=0x000F_FFFF_FFFF_F000,
        kernel_entries=range(256, 512),
        transition_bit=1 << 11,
        prototype_bit=1 << 10,
        virtual_bits=48,
    ),
    program_counter="rip",
    stack_pointer="rsp",
    first_argument="rcx",
    flags_register="e_flags",
    directory_table_base="cr3",
    descriptor_tables=(("gdtr_base", "gdtr_limit"), ("idtr_base", "idtr_limit")),
    context_flags="context_flags",
    context_flags_base=0x0010_0000,
    context_flags_all=0x0010_001F,
    break_instruction=b"\xcc",
    trace_flag=1 << 8,
    control_report_dr7=0x08,
    fixed_pte_base=0xFFFF_F680_0000_0000,
    fixed_shared_data=0xFFFF_F780_0000_0000,
    shared_data_offsets=SHARED_DATA_OFFSETS,
    display=(
        ("rax", "rbx", "rcx"),
        ("rdx", "rsi", "rdi"),
        ("rip", "rsp", "rbp"),
        ("r8", "r9", "r10"),
        ("r11", "r12", "r13"),
        ("r14", "r15"),
        ("seg_cs", "seg_ss", "seg_ds", "seg_es", "seg_fs", "seg_gs", "e_flags"),
    ),
    display_special=(("cr0", "cr2", "cr3"), ("cr4", "cr8"), ("gdtr_base", "idtr_base")),
    display_names={
        "seg_cs": "cs", "seg_ss": "ss", "seg_ds": "ds", "seg_es": "es", "seg_fs": "fs", "seg_gs": "gs",
        "e_flags": "efl", "gdtr_base": "gdtr", "idtr_base": "idtr",
    },
)  # fmt: skip
