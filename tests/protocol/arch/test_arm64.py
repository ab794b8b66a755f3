"""ARM64's registers: every row of the reference's table (kd-protocol 5.3, 5.4), and a real dump's page tables."""

from __future__ import annotations

import struct
from pathlib import Path

from protocol.arch import ARM64
from protocol.arch.arm64 import CONTEXT, KSPECIAL_REGISTERS
from tests.protocol.reference import number, tables

_NAMES = {"ContextFlags": "context_flags"}
_ARRAYS = {"Bcr": 8, "Bvr": 8, "Wcr": 2, "Wvr": 2}


def test_every_register_stands_where_the_reference_says(shared: Path) -> None:
    plain, arrays = {}, {}
    for at, size, name in tables(shared, "5.3")[0]:
        if "8n" in at:
            assert [CONTEXT.offset_of(f"x{n}") for n in range(29)] == [8 + 8 * n for n in range(29)]
        elif "16n" in at:
            assert [CONTEXT.offset_of(f"v{n}") for n in range(32)] == [0x110 + 16 * n for n in range(32)]
        elif not size.isalnum() or name in _ARRAYS:
            arrays[name] = number(at)
        else:
            plain[name.split()[0]] = number(at)
    assert {name: CONTEXT.offset_of(_NAMES.get(name, name.lower())) for name in plain} == plain
    assert {name: CONTEXT.offset_of(f"{name.lower()}0") for name in arrays} == arrays
    named = {_NAMES.get(name, name.lower()) for name in plain}
    named |= {f"{name.lower()}{n}" for name, count in _ARRAYS.items() for n in range(count)}
    assert set(CONTEXT.fields) == named | {f"x{n}" for n in range(29)} | {f"v{n}" for n in range(32)}
    assert CONTEXT.size == 0x390


def test_special_registers_stand_where_the_reference_says() -> None:
    expected = {
        "elr_el1": 0, "spsr_el1": 8, "tpidr_el0": 0x10, "tpidrro_el0": 0x18, "tpidr_el1": 0x20, "kernel_bvr0": 0x28,
        "kernel_bcr0": 0x68, "kernel_wvr0": 0x88, "kernel_wcr0": 0x98, "kernel_wcr1": 0x9C,
    }  # fmt: skip
    assert {name: KSPECIAL_REGISTERS.offset_of(name) for name in expected} == expected
    assert KSPECIAL_REGISTERS.size == 0xA0


def test_both_halves_have_one_top_table_on_a_real_machine(shared: Path) -> None:
    data = (shared / "data/dumps/triage_arm64.dmp").read_bytes()
    (root,) = struct.unpack_from("<Q", data, 0x10)
    (prcb,) = struct.unpack_from("<I", data, 0x201C)
    # kd-protocol 5.5: ArchState at A0 of the state at 40; in it TCR at 20, TTBR0 at 28, TTBR1 at 30.
    control, user, kernel = struct.unpack_from("<3Q", data, prcb + 0x40 + 0xA0 + 0x20)
    frame = ARM64.paging.frame_mask | 0x800
    assert user & frame == root and kernel & frame == root + 0x800
    # T0SZ and T1SZ: 64 - 17 bits of address in each half, so 256 entries.
    assert (control & 0x3F, control >> 16 & 0x3F) == (17, 17)
    for address in (0xFFFF8000_00000000, 0xFFFFF803_F2E00000):
        entry = ARM64.paging.index(address, 0)
        assert 8 * entry == 0x800 + 8 * (address >> 39 & 0xFF)
        assert entry in ARM64.paging.kernel_entries


def test_a_block_has_the_bit_clear_that_says_table() -> None:
    # Arm ARM, D8.3: bits 1:0 are 01 for a block, 11 for a table; blocks of 1 GiB and 2 MiB.
    paging = ARM64.paging
    assert paging.is_large(0x60000000000701, 1) and paging.is_large(0x60000000000701, 2)
    assert not paging.is_large(0x703, 1) and not paging.is_large(0x701, 0)
    assert [paging.page_size(level) for level in (1, 2, 3)] == [1 << 30, 2 << 20, 4096]
