"""ARM64: CONTEXT, KSPECIAL_REGISTERS, four-level paging (kd-protocol 5.3, 5.4; dump-formats 1.5)."""

from __future__ import annotations

import construct as cs

from protocol.structure import StructureLayout

from .description import SHARED_DATA_OFFSETS, Architecture, MachineType, PagingGeometry

__all__ = ["ARM64", "CONTEXT", "KSPECIAL_REGISTERS"]

_BREAKPOINTS, _WATCHPOINTS = 8, 2

CONTEXT = StructureLayout(
    "CONTEXT (ARM64)",
    cs.Struct(
        "context_flags" / cs.Int32ul,
        "cpsr" / cs.Int32ul,
        *[f"x{n}" / cs.Int64ul for n in range(29)],
        *[name / cs.Int64ul for name in ("fp", "lr", "sp", "pc")],
        *[f"v{n}" / cs.Bytes(16) for n in range(32)],
        "fpcr" / cs.Int32ul,
        "fpsr" / cs.Int32ul,
        *[f"bcr{n}" / cs.Int32ul for n in range(_BREAKPOINTS)],
        *[f"bvr{n}" / cs.Int64ul for n in range(_BREAKPOINTS)],
        *[f"wcr{n}" / cs.Int32ul for n in range(_WATCHPOINTS)],
        *[f"wvr{n}" / cs.Int64ul for n in range(_WATCHPOINTS)],
    ),
    {
        "context_flags": 0, "cpsr": 4, "x0": 8, "x28": 0xE8, "fp": 0xF0, "lr": 0xF8, "sp": 0x100, "pc": 0x108,
        "v0": 0x110, "fpcr": 0x310, "fpsr": 0x314, "bcr0": 0x318, "bvr0": 0x338, "wcr0": 0x378, "wvr0": 0x380,
    },
    0x390,
)  # fmt: skip

KSPECIAL_REGISTERS = StructureLayout(
    "KSPECIAL_REGISTERS (ARM64)",
    cs.Struct(
        "elr_el1" / cs.Int64ul,
        "spsr_el1" / cs.Int32ul,
        cs.Padding(4),
        *[name / cs.Int64ul for name in ("tpidr_el0", "tpidrro_el0", "tpidr_el1")],
        *[f"kernel_bvr{n}" / cs.Int64ul for n in range(_BREAKPOINTS)],
        *[f"kernel_bcr{n}" / cs.Int32ul for n in range(_BREAKPOINTS)],
        *[f"kernel_wvr{n}" / cs.Int64ul for n in range(_WATCHPOINTS)],
        *[f"kernel_wcr{n}" / cs.Int32ul for n in range(_WATCHPOINTS)],
    ),
    {
        "spsr_el1": 8, "tpidr_el0": 0x10, "tpidrro_el0": 0x18, "tpidr_el1": 0x20, "kernel_bvr0": 0x28,
        "kernel_bcr0": 0x68, "kernel_wvr0": 0x88, "kernel_wcr0": 0x98,
    },
    0xA0,
)  # fmt: skip

ARM64 = Architecture(
    name="ARM64",
    machine_type=MachineType.ARM64,
    live=False,
    pointer_size=8,
    context=CONTEXT,
    special_registers=KSPECIAL_REGISTERS,
    special_registers_least=0xA0,
    # Each half of the address space has 47 bits and a top table of 256 entries; Windows keeps the kernel's right
    # behind the user's: a real dump has TTBR0 946AA000 and TTBR1 946AA800. So both are one table of 512.
    paging=PagingGeometry(
        shifts=(39, 30, 21, 12),
        entries=512,
        entry_size=8,
        frame_mask=0x0000_FFFF_FFFF_F000,
        valid_bit=1 << 0,
        large_bit=1 << 1,
        large_bit_clear=True,
        large_levels=frozenset({1, 2}),
        root_mask=0x0000_FFFF_FFFF_F000,
        kernel_entries=range(256, 512),
        transition_bit=1 << 11,  # as on x64: unconfirmed, and only what is said of a page that is not there
        prototype_bit=1 << 10,
        virtual_bits=48,
    ),
    program_counter="pc",
    stack_pointer="sp",
    first_argument="x0",
    flags_register="cpsr",
    directory_table_base=None,
    descriptor_tables=(),
    context_flags="context_flags",
    context_flags_base=0x0040_0000,
    context_flags_all=0x0040_001F,
    break_instruction=b"\x00\x00\x3e\xd4",
    trace_flag=1 << 21,
    control_report_dr7=None,
    fixed_pte_base=0,
    fixed_shared_data=0xFFFF_F780_0000_0000,
    shared_data_offsets=SHARED_DATA_OFFSETS,
    display=(
        *[tuple(f"x{n}" for n in range(row, row + 4)) for row in range(0, 28, 4)],
        ("x28", "fp", "lr", "sp"),
        ("pc", "cpsr"),
    ),
    display_special=(("elr_el1", "spsr_el1"), ("tpidr_el0", "tpidrro_el0", "tpidr_el1")),
    display_names={"cpsr": "psr"},
)
