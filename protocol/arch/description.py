"""What every architecture file must say: register layouts, control space, paging geometry."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.structure import StructureLayout

__all__ = ["SHARED_DATA_OFFSETS", "Architecture", "ControlSpace", "MachineType", "PagingGeometry"]

SHARED_DATA_OFFSETS: Mapping[str, int] = {
    "interrupt_time": 0x008, "system_time": 0x014, "nt_system_root": 0x030, "nt_build_number": 0x260,
    "nt_product_type": 0x264, "nt_major_version": 0x26C, "nt_minor_version": 0x270, "suite_mask": 0x2D0,
    "kd_debugger_enabled": 0x2D4, "number_of_physical_pages": 0x2E8, "tick_count": 0x320,
    "active_processor_count": 0x3C0,
}  # fmt: skip
"""KUSER_SHARED_DATA, which is the same on every architecture (kd-protocol 7.5)."""


class MachineType(enum.IntEnum):
    """IMAGE_FILE_MACHINE_…, as the version packet, dump headers and PE headers carry it (kd-protocol 3.3)."""

    I386 = 0x014C
    ARM = 0x01C0
    ARMNT = 0x01C4
    IA64 = 0x0200
    AMD64 = 0x8664
    ARM64 = 0xAA64


class ControlSpace(enum.IntEnum):
    """What ReadControlSpace's address selects on AMD64 and ARM64 (kd-protocol 3.8)."""

    KPCR = 0
    KPRCB = 1
    SPECIAL_REGISTERS = 2
    KTHREAD = 3


@dataclass(frozen=True, slots=True)
class PagingGeometry:
    """How virtual addresses become physical ones: enough for a walker that knows no architecture.

    `shifts` are the address bits that index each table, top level first; every table holds `entries` entries
    of `entry_size` bytes. A level in `large_levels` (0 = top) may hold a leaf instead of a table.
    The top table begins where `root_mask` leaves the directory table base: it may be smaller than a page.
    """

    shifts: tuple[int, ...]
    entries: int
    entry_size: int
    frame_mask: int
    valid_bit: int
    large_bit: int
    large_levels: frozenset[int]
    root_mask: int
    kernel_entries: range
    transition_bit: int
    prototype_bit: int
    virtual_bits: int
    large_bit_clear: bool = False
    """A leaf above the lowest level has `large_bit` clear, not set (ARM64: the bit says that it is a table)."""
    sign_extended: bool = True
    """Addresses are written with 64 bits; those of x86 with 32, as dumps' headers have them."""

    def is_large(self, entry: int, level: int) -> bool:
        """Whether a valid entry above the lowest level maps memory itself."""
        return level in self.large_levels and bool(entry & self.large_bit) is not self.large_bit_clear

    def page_size(self, level: int) -> int:
        """Bytes that a leaf of this level maps."""
        return 1 << self.shifts[level]

    def index(self, address: int, level: int) -> int:
        """Which entry of the table at this level an address uses."""
        return address >> self.shifts[level] & self.entries - 1

    def canonical(self, address: int) -> int:
        """The address as it is written here: of `virtual_bits` bits sign-extended to 64, of x86 cut to 32."""
        address &= (1 << self.virtual_bits) - 1
        if self.sign_extended and address >> self.virtual_bits - 1:
            address |= (1 << 64) - (1 << self.virtual_bits)
        return address

    def is_canonical(self, address: int) -> bool:
        """Whether the processor would take this address at all. Of x86, one that was sign-extended to 64 bits, too."""
        if not 0 <= address < 1 << 64:
            return False
        if self.sign_extended:
            return self.canonical(address) == address
        high, sign = address >> self.virtual_bits, address >> self.virtual_bits - 1 & 1
        return not high or bool(sign and high == (1 << 64 - self.virtual_bits) - 1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that differs between processors, in one value."""

    name: str
    machine_type: MachineType
    live: bool
    """Whether targets of it can be talked to. Dump files are read of every one."""
    pointer_size: int
    context: StructureLayout
    special_registers: StructureLayout
    special_registers_least: int
    paging: PagingGeometry
    program_counter: str
    stack_pointer: str
    first_argument: str
    flags_register: str
    directory_table_base: str | None
    """The special register that holds it; None where none does (ARM64)."""
    descriptor_tables: tuple[tuple[str, str], ...]
    """Special registers that hold (base, limit) of tables in memory without which a dump does not open."""
    context_flags: str
    context_flags_base: int
    context_flags_all: int
    break_instruction: bytes
    trace_flag: int
    control_report_dr7: int | None
    """Offset of DR7 in the control report of a state change (kd-protocol 2.5); None where there is none."""
    fixed_pte_base: int
    """Where page tables map themselves on systems whose KDBG does not say; 0: every system's says it."""
    fixed_shared_data: int
    shared_data_offsets: Mapping[str, int]
    display: tuple[tuple[str, ...], ...]
    """Registers in the order and in the lines in which WinDbg shows them."""
    display_special: tuple[tuple[str, ...], ...]
    """The same for special registers."""
    display_names: Mapping[str, str]
    """What a register is called when shown, where that is not its name."""

    def is_kernel_address(self, address: int) -> bool:
        """Whether an address lies in the upper half, where kernels are."""
        return bool(address >> (47 if self.pointer_size == 8 else 31))
