"""x86's registers: every row of the reference's table (kd-protocol 5.1, 5.4), and its two paging geometries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.arch import X86, X86_WITHOUT_PAE
from protocol.arch.x86 import CONTEXT, KSPECIAL_REGISTERS
from tests.protocol.reference import number, tables

# The paragraph below the table of section 5.1, and the one in 5.4.
_FLOAT_SAVE = {
    "control_word": 0x1C, "status_word": 0x20, "tag_word": 0x24, "error_offset": 0x28, "error_selector": 0x2C,
    "data_offset": 0x30, "data_selector": 0x34, "register_area": 0x38, "cr0_npx_state": 0x88,
}  # fmt: skip
_SPECIAL = {
    "cr0": (0, 4), "cr2": (4, 4), "cr3": (8, 4), "cr4": (0xC, 4), "kernel_dr0": (0x10, 4), "kernel_dr1": (0x14, 4),
    "kernel_dr2": (0x18, 4), "kernel_dr3": (0x1C, 4), "kernel_dr6": (0x20, 4), "kernel_dr7": (0x24, 4),
    "gdtr_limit": (0x2A, 2), "gdtr_base": (0x2C, 4), "idtr_limit": (0x32, 2), "idtr_base": (0x34, 4), "tr": (0x38, 2),
    "ldtr": (0x3A, 2), "xcr0": (0x3C, 8), "exception_list": (0x44, 4),
}  # fmt: skip


def test_every_register_stands_where_the_reference_says(shared: Path) -> None:
    rows = tables(shared, "5.1")[0]
    halves = [row[at : at + 3] for row in rows for at in (0, 3) if len(row) >= at + 3 and row[at].strip()]
    published = {re.split(r"\W", name)[0].lower(): number(at) for at, _, name in halves}
    declared = {name.replace("_", ""): CONTEXT.offset_of(name) for name in CONTEXT.fields}
    assert len(published) == 25
    assert {name: declared[name] for name in published if name != "floatsave"} == {
        name: at for name, at in published.items() if name != "floatsave"
    }
    assert published["floatsave"] == CONTEXT.offset_of("control_word")
    assert {name: CONTEXT.offset_of(name) for name in _FLOAT_SAVE} == _FLOAT_SAVE
    assert set(declared) == (set(published) | {name.replace("_", "") for name in _FLOAT_SAVE}) - {"floatsave"}
    assert CONTEXT.size == 0x2CC


def test_special_registers_stand_where_the_reference_says() -> None:
    layout = KSPECIAL_REGISTERS
    assert {name: (layout.offset_of(name), layout.size_of(name)) for name in layout.fields} == _SPECIAL
    assert layout.size == 0x54


@pytest.mark.parametrize("known", [X86, X86_WITHOUT_PAE], ids=["PAE", "no PAE"])
def test_addresses_have_32_bits_and_may_come_sign_extended(known: object) -> None:
    paging = X86.paging if known is X86 else X86_WITHOUT_PAE.paging
    for address in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF_80000000):
        assert paging.is_canonical(address), hex(address)
    for address in (0xFFFFFFFF_00000000, 0x1_80000000, 1 << 64, -1):
        assert not paging.is_canonical(address), hex(address)
    assert paging.canonical(0xFFFFFFFF_80501000) == 0x80501000
    address = 0x80501ABC
    made = sum(paging.index(address, level) << shift for level, shift in enumerate(paging.shifts))
    assert made + (address & 0xFFF) == address
    assert X86.is_kernel_address(0x80000000) and not X86.is_kernel_address(0x7FFE0000)


def test_the_two_geometries_are_those_of_the_processor() -> None:
    # Intel's manual, volume 3A, 4.3 and 4.4: two levels of 1,024 entries; 4, 512 and 512.
    assert (X86_WITHOUT_PAE.paging.shifts, X86_WITHOUT_PAE.paging.entry_size) == ((22, 12), 4)
    assert (X86.paging.shifts, X86.paging.entry_size) == ((30, 21, 12), 8)
    assert X86_WITHOUT_PAE.paging.page_size(0) == 4 << 20 and X86.paging.page_size(1) == 2 << 20
    assert not X86.paging.is_large(0x81, 0), "a directory pointer maps no page"
    assert X86.paging.is_large(0x81, 1) and not X86.paging.is_large(1, 1)
    # With PAE the top table has 32 bytes, wherever they lie.
    assert (X86.paging.root_mask, X86_WITHOUT_PAE.paging.root_mask) == (0xFFFFFFE0, 0xFFFFF000)
