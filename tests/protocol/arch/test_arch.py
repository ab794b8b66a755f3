"""The architectures that are known: each complete, under its own number."""

from __future__ import annotations

import pytest

from protocol.arch import AMD64, ARCHITECTURES, Architecture, MachineType, architecture_of


def test_an_architecture_is_found_by_the_number_that_targets_send() -> None:
    # 8664 is what every real target's version packet in the recordings says.
    assert architecture_of(0x8664) is AMD64
    assert {machine: known.machine_type for machine, known in ARCHITECTURES.items()} == {m: m for m in ARCHITECTURES}


@pytest.mark.parametrize("machine", [0, MachineType.IA64, 0xFFFF, -1])
def test_what_is_not_known_is_none(machine: int) -> None:
    assert architecture_of(machine) is None


@pytest.mark.parametrize("known", ARCHITECTURES.values(), ids=lambda known: known.name)
def test_every_register_that_is_named_exists(known: Architecture) -> None:
    shown = {name for line in known.display for name in line}
    assert {
        *shown, known.program_counter, known.stack_pointer, known.first_argument, known.flags_register,
        known.context_flags,
    } <= set(known.context.fields)  # fmt: skip
    special = {name for line in known.display_special for name in line}
    special |= {name for pair in known.descriptor_tables for name in pair}
    special |= {known.directory_table_base} - {None}  # type: ignore[arg-type]
    assert special <= set(known.special_registers.fields)
    assert set(known.display_names) <= shown | special
    names = [known.display_names.get(name, name) for name in shown | special]
    assert len(names) == len(set(names)), "no two registers are shown under one name"


@pytest.mark.parametrize("known", ARCHITECTURES.values(), ids=lambda known: known.name)
def test_what_identifies_an_architecture_agrees_with_itself(known: Architecture) -> None:
    assert known.context_flags_all & known.context_flags_base == known.context_flags_base
    assert known.special_registers_least <= known.special_registers.size
    assert known.paging.is_canonical(known.fixed_shared_data)
    assert known.paging.is_canonical(known.fixed_pte_base)
    assert known.pointer_size in (4, 8)
