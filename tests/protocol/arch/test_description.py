"""Paging geometry without a machine: AMD64's numbers, and rules that hold for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.arch import AMD64
from protocol.arch.description import ControlSpace, MachineType

_PAGING = AMD64.paging
_U64 = st.integers(0, (1 << 64) - 1)


def test_numbers_of_the_reference() -> None:
    # kd-protocol 3.3 and 3.8.
    assert [int(machine) for machine in MachineType] == [0x014C, 0x01C0, 0x01C4, 0x0200, 0x8664, 0xAA64]
    assert [int(space) for space in ControlSpace] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        (0, True),
        (0x00007FFF_FFFFFFFF, True),
        (0x00008000_00000000, False),
        (0xFFFF7FFF_FFFFFFFF, False),
        (0xFFFF8000_00000000, True),
        (0xFFFFF780_00000000, True),
        (0xFFFFFFFF_FFFFFFFF, True),
        (0x1_00000000_00000000, False),
        (-1, False),
    ],
)
def test_which_addresses_the_processor_takes(address: int, canonical: bool) -> None:
    assert _PAGING.is_canonical(address) is canonical


def test_sign_extension() -> None:
    assert _PAGING.canonical(0x0000F780_00000000) == 0xFFFFF780_00000000
    assert _PAGING.canonical(0xFFFF0000_00001000) == 0x1000


@given(_U64)
def test_what_was_extended_is_canonical_and_the_same_address(address: int) -> None:
    extended = _PAGING.canonical(address)
    assert _PAGING.is_canonical(extended)
    assert extended % (1 << 48) == address % (1 << 48)
    assert _PAGING.is_canonical(address) == (extended == address)


@given(_U64)
def test_indexes_and_an_offset_make_the_address(address: int) -> None:
    made = address % 4096
    for level, shift in enumerate(_PAGING.shifts):
        index = _PAGING.index(address, level)
        assert 0 <= index < _PAGING.entries
        made += index << shift
    assert _PAGING.canonical(made) == _PAGING.canonical(address)


def test_leaves_map_1_gib_2_mib_and_4_kib() -> None:
    assert [_PAGING.page_size(level) for level in (1, 2, 3)] == [1 << 30, 1 << 21, 1 << 12]
    assert _PAGING.large_levels == {1, 2}


def test_the_self_map_of_old_systems_is_entry_1ed() -> None:
    # FFFFF680`00000000 with itself as an entry of every level: the page-table root shows at FFFFF6FB`7DBED000.
    assert AMD64.fixed_pte_base == 0xFFFFF68000000000
    assert [_PAGING.index(0xFFFFF6FB7DBED000, level) for level in range(4)] == [0x1ED] * 4
    assert _PAGING.index(AMD64.fixed_pte_base, 0) == 0x1ED and 0x1ED in _PAGING.kernel_entries


@given(_U64)
def test_kernel_entries_are_the_upper_half(address: int) -> None:
    upper = bool(_PAGING.canonical(address) >> 63)
    assert (_PAGING.index(address, 0) in _PAGING.kernel_entries) is upper


def test_a_table_is_a_page() -> None:
    assert _PAGING.entries * _PAGING.entry_size == 4096
