"""KTRAP_FRAME of x64 and x86: what the processor and the handler of a trap save (kd-protocol 7.5; public PDBs)."""

from __future__ import annotations

import construct as cs

from protocol.structure import StructureLayout

__all__ = ["KTRAP_FRAME32", "KTRAP_FRAME64", "TRAP_FRAME_REGISTERS", "TRAP_FRAME_REGISTERS32"]

_TRAP_FRAME = cs.Struct(
    *[f"p{number}_home" / cs.Int64ul for number in range(1, 6)],
    "previous_mode" / cs.Int8ul,
    "previous_irql" / cs.Int8ul,
    "fault_indicator" / cs.Int8ul,
    "exception_active" / cs.Int8ul,
    "mx_csr" / cs.Int32ul,
    *[name / cs.Int64ul for name in ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "gs_base")],
    *[f"xmm{number}" / cs.Bytes(16) for number in range(6)],
    "fault_address" / cs.Int64ul,
    "debug_registers" / cs.Bytes(0x58),
    *[name / cs.Int16ul for name in ("seg_ds", "seg_es", "seg_fs", "seg_gs")],
    *[name / cs.Int64ul for name in ("trap_frame", "rbx", "rdi", "rsi", "rbp", "error_code", "rip")],
    "seg_cs" / cs.Int16ul,
    cs.Padding(6),
    "e_flags" / cs.Int32ul,
    cs.Padding(4),
    "rsp" / cs.Int64ul,
    "seg_ss" / cs.Int16ul,
    cs.Padding(6),
)

KTRAP_FRAME64 = StructureLayout(
    "KTRAP_FRAME",
    _TRAP_FRAME,
    {
        "previous_mode": 0x28, "mx_csr": 0x2C, "rax": 0x30, "rcx": 0x38, "rdx": 0x40, "r8": 0x48, "r9": 0x50,
        "r10": 0x58, "r11": 0x60, "fault_address": 0xD0, "seg_ds": 0x130, "rbx": 0x140, "rbp": 0x158,
        "error_code": 0x160, "rip": 0x168, "seg_cs": 0x170, "e_flags": 0x178, "rsp": 0x180, "seg_ss": 0x188,
    },
    0x190,
)  # fmt: skip

TRAP_FRAME_REGISTERS = (
    "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "rbp", "rip", "rsp", "e_flags", "seg_cs", "seg_ss",
)  # fmt: skip
"""What every trap saves. The other non-volatile registers have room in it; only system calls save some of them."""

_TRAP_FRAME32 = cs.Struct(
    "debug_marks" / cs.Bytes(0x18),
    *[name / cs.Int32ul for name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "seg_gs", "seg_es", "seg_ds")],
    *[name / cs.Int32ul for name in ("edx", "ecx", "eax", "previous_previous_mode", "exception_list", "seg_fs")],
    *[name / cs.Int32ul for name in ("edi", "esi", "ebx", "ebp", "error_code", "eip", "seg_cs", "e_flags")],
    *[name / cs.Int32ul for name in ("esp", "seg_ss", "v86_es", "v86_ds", "v86_fs", "v86_gs")],
)

KTRAP_FRAME32 = StructureLayout(
    "KTRAP_FRAME (x86)",
    _TRAP_FRAME32,
    {
        "dr0": 0x18, "seg_gs": 0x30, "edx": 0x3C, "ecx": 0x40, "eax": 0x44, "exception_list": 0x4C, "seg_fs": 0x50,
        "edi": 0x54, "esi": 0x58, "ebx": 0x5C, "ebp": 0x60, "error_code": 0x64, "eip": 0x68, "seg_cs": 0x6C,
        "e_flags": 0x70, "esp": 0x74, "seg_ss": 0x78, "v86_es": 0x7C,
    },
    0x8C,
)  # fmt: skip
"""Of a trap out of the kernel, esp and ss (and what comes then) are not pushed: esp was where they would lie."""

TRAP_FRAME_REGISTERS32 = (
    "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "eip", "esp", "e_flags", "seg_cs", "seg_ss",
)  # fmt: skip
