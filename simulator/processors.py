"""Processors: KPCR with its KPRCB, GDT, IDT and TSS, special registers, and where the CONTEXT is kept."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.address import PAGE_SIZE
from protocol.arch import AMD64

from .processes import SimulatedThread
from .profile import KernelProfile
from .space import KernelSpace
from .stacks import LoadedImages, StackFrame

__all__ = [
    "PCR_PRCB",
    "SEGMENT_DESCRIPTORS",
    "DescriptorTables",
    "SimulatedProcessor",
    "build_descriptor_tables",
    "lay_processor",
    "special_values",
]

PCR_PRCB = 0x180
"""KPCR.Prcb: the KPRCB is embedded (kd-protocol 5.5)."""

_GDT_LIMIT, _IDT_LIMIT, _TSS_SELECTOR, _TSS_LIMIT = 0x7F, 0xFFF, 0x40, 0x67
_MHZ = 2904

SEGMENT_DESCRIPTORS = {
    0x10: 0x00209B0000000000,  # kernel code, 64 bits
    0x18: 0x00CF93000000FFFF,  # kernel data
    0x20: 0x00CFFB000000FFFF,  # user code, 32 bits
    0x28: 0x00CFF3000000FFFF,  # user data
    0x30: 0x0020FB0000000000,  # user code, 64 bits
    0x50: 0x0040F30000003C00,  # 32-bit TEB
}
"""The GDT of every x64 Windows, by selector, but for the task's segment."""

_HANDLERS = {
    0x00: "KiDivideErrorFault",
    0x01: "KiDebugTrapOrFault",
    0x02: "KiNmiInterrupt",
    0x03: "KiBreakpointTrap",
    0x0D: "KiGeneralProtectionFault",
    0x0E: "KiPageFault",
    0xD1: "KiInterruptDispatchNoLockNoEtw",
    0xE1: "KiIpiInterrupt",
}


@dataclass(frozen=True, slots=True)
class DescriptorTables:
    """Where a processor's GDT, IDT and TSS lie."""

    gdt: int
    idt: int
    tss: int


@dataclass(frozen=True, slots=True)
class SimulatedProcessor:
    """A processor as it stands: what GetContext and ReadControlSpace must say, and what is true of its stack."""

    number: int
    pcr: int
    prcb: int
    thread: int
    process: int
    context_address: int
    """Where readers of a dump look for its CONTEXT: behind the KPRCB's pointer, or in its ProcessorState."""
    context_values: dict[str, int]
    special_values: dict[str, int]
    gdt: int
    idt: int
    tss: int
    stack_base: int
    stack_limit: int
    frames: tuple[StackFrame, ...]
    """The call chain, innermost first: what `k` must show."""

    def context(self) -> bytes:
        """The CONTEXT that GetContext returns."""
        return AMD64.context.encode(self.context_values)

    def special_registers(self, size: int = 0xF0) -> bytes:
        """The KSPECIAL_REGISTERS of a kernel whose structure has this size."""
        return AMD64.special_registers.encode(self.special_values, size=size)


def build_descriptor_tables(space: KernelSpace, images: LoadedImages, interrupt_stack: int) -> DescriptorTables:
    """GDT, IDT and TSS in one block: two pages for the IDT and its neighbours, as a real kernel lays them."""
    block = space.nonpaged.allocate(2 * PAGE_SIZE, b"GDT ", PAGE_SIZE)
    gdt, tss, idt = block, block + 0x80, block + PAGE_SIZE
    table = bytearray(_GDT_LIMIT + 1)
    for selector, descriptor in SEGMENT_DESCRIPTORS.items():
        struct.pack_into("<Q", table, selector, descriptor)
    low = _TSS_LIMIT | (tss & 0xFFFFFF) << 16 | 0x8B << 40 | (tss >> 24 & 0xFF) << 56
    struct.pack_into("<QQ", table, _TSS_SELECTOR, low, tss >> 32)
    space.write(gdt, bytes(table))
    state = bytearray(_TSS_LIMIT + 1)
    struct.pack_into("<Q", state, 4, interrupt_stack)
    struct.pack_into("<H", state, 0x66, _TSS_LIMIT + 1)
    space.write(tss, bytes(state))
    gates = bytearray()
    for vector in range(256):
        handler = images.address(f"nt!{_HANDLERS.get(vector, 'KiUnexpectedInterrupt')}")
        kind = 0xEE if vector == 3 else 0x8E
        gates += struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, kind, handler >> 16 & 0xFFFF, handler >> 32, 0)
    space.write(idt, bytes(gates))
    return DescriptorTables(gdt, idt, tss)


def special_values(
    pcr: int, tables: DescriptorTables, directory_table_base: int, images: LoadedImages, level: int, teb: int
) -> dict[str, int]:
    """The special registers of a processor (model: kdnet 9.4)."""
    system_call = images.address("nt!KiSystemCall64")
    return {
        "cr0": 0x80050031,
        "cr2": 0,
        "cr3": directory_table_base,
        "cr4": 0x6F8,
        "kernel_dr6": 0xFFFF0FF0,
        "kernel_dr7": 0x400,
        "gdtr_limit": _GDT_LIMIT,
        "gdtr_base": tables.gdt,
        "idtr_limit": _IDT_LIMIT,
        "idtr_base": tables.idt,
        "tr": _TSS_SELECTOR,
        "mx_csr": 0x1F80,
        "cr8": level,
        "msr_gs_base": pcr,
        "msr_gs_swap": teb,
        "msr_star": 0x0023001000000000,
        "msr_l_star": system_call,
        "msr_c_star": system_call,
        "msr_syscall_mask": 0x4700,
        "xcr0": 7,
    }


def lay_processor(
    space: KernelSpace,
    profile: KernelProfile,
    number: int,
    pcr: int,
    thread: SimulatedThread,
    idle_thread: int,
    tables: DescriptorTables,
    specials: dict[str, int],
    context_address: int,
    stale_context: bytes,
    interrupt_stack: int,
) -> None:
    """Write KPCR and KPRCB, with the CONTEXT that memory holds (which need not be the true one)."""
    layout = profile.prcb
    prcb = pcr + PCR_PRCB
    space.write_qwords(pcr, tables.gdt, tables.tss, 0, pcr, prcb)  # GdtBase, TssBase, UserRsp, Self, CurrentPrcb
    space.write_qwords(pcr + 0x38, tables.idt)
    space.write_qwords(prcb + 0x08, thread.address, 0, idle_thread)
    space.write(prcb + layout.number, number.to_bytes(layout.number_size, "little"))
    space.write(prcb + layout.mhz, struct.pack("<I", _MHZ))
    space.write(prcb + layout.cpu_type, b"\x06\x01\x09\x9e")
    space.write(prcb + layout.vendor_string, b"GenuineIntel\0")
    space.write_qwords(prcb + layout.dpc_stack, interrupt_stack)
    if layout.isr_stack:
        space.write_qwords(prcb + layout.isr_stack, interrupt_stack)
    special = AMD64.special_registers.encode(specials, size=layout.special_registers_size)
    space.write(prcb + layout.special_registers, special)
    if layout.context is not None:
        space.write_qwords(prcb + layout.context, context_address)
    space.write(context_address, stale_context)
    if context_address != prcb + layout.context_frame:
        space.write(prcb + layout.context_frame, stale_context)
