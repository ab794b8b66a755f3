"""What every architecture file must say: register layouts, control space, paging geometry."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.structure import StructureLayout

__all__ = ["Architecture", "ControlSpace", "MachineType", "PagingGeometry"]


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

    def page_size(self, level: int) -> int:
        """Bytes that a leaf of this level maps."""
        return 1 << self.shifts[level]

    def index(self, address: int, level: int) -> int:
        """Which entry of the table at this level an address uses."""
        return address >> self.shifts[level] & self.entries - 1

    def canonical(self, address: int) -> int:
        """Sign-extend an address of `virtual_bits` bits to 64."""
        address &= (1 << self.virtual_bits) - 1
        if address >> self.virtual_bits - 1:
            address |= (1 << 64) - (1 << self.virtual_bits)
        return address

    def is_canonical(self, address: int) -> bool:
        """Whether the processor would take this address at all."""
        return 0 <= address < 1 << 64 and self.canonical(address) == address


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that differs between processors, in one value."""

    name: str
    machine_type: MachineType
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
    """Where page tables map themselves on systems whose KDBG does not say."""
    fixed_shared_data: int
    shared_data_offsets: Mapping[str, int]
    display: tuple[tuple[str, ...], ...]
    """Registers in the order and in the lines in which WinDbg shows them."""
    display_special: tuple[tuple[str, ...], ...]
    """The same for special registers."""
    display_names: Mapping[str, str]
    """What a register is called when shown, where that is not its name."""
