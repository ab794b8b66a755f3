"""Which machines: dump files of three architectures are read, and targets of one are talked to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio.testing

from kdbridge.errors import TargetRefusedError
from kdbridge.source import require_architecture
from tests.kdbridge.in_memory import client_of
from tests.small_machine import small_machine, stopped_target


@pytest.mark.parametrize(("machine", "name"), [(0x8664, "x64"), (0x14C, "x86"), (0xAA64, "ARM64")])
def test_dump_files_of_three_architectures_are_read(machine: int, name: str) -> None:
    assert require_architecture(machine, "a file").name == name


def test_of_another_those_that_are_known_are_named() -> None:
    with pytest.raises(
        TargetRefusedError,
        match=r"^a file is a machine of type 0x1c4; this version knows x64 \(8664\), x86 \(14c\), ARM64 \(aa64\) only$",
    ):
        require_architecture(0x1C4, "a file")


@pytest.mark.parametrize("machine", [0x14C, 0xAA64, 0x1C4])
async def test_a_live_target_of_another_architecture_is_refused_by_name(
    autojump_clock: trio.testing.MockClock, machine: int
) -> None:
    made = small_machine()
    made.version = replace(made.version, machine_type=machine)
    client = client_of(stopped_target(made))
    await client.session.attach(wait=30)
    with pytest.raises(
        TargetRefusedError,
        match=rf"^the target is a machine of type {machine:#x}; this version knows x64 \(8664\) only$",
    ):
        await client.session.architecture()
