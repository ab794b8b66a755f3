"""Processors: by KiProcessorBlock, whatever a state change says of them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kdbridge.discovery.notes import Notes
from kdbridge.discovery.processors import find_processors
from kdbridge.target import Finding, Kdbg, Processor, SharedData
from protocol.arch import AMD64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.poking import poke, poke_pointer, unmap
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


def _shared(count: int) -> SharedData:
    return SharedData(0, 0, 10, 0, 19041, 1, 0, "C:\\Windows", count)


async def _find(
    kernel: SimulatedKernel,
    shared: SharedData | None,
    *,
    kdbg: bool = True,
    garbage_stop: bool = False,
    contexts: bool = True,
) -> tuple[tuple[Processor, ...], list[Finding], SimulatedSource]:
    source = SimulatedSource(kernel, garbage_stop=garbage_stop, contexts=contexts)
    notes = Notes(None)
    block = Kdbg(kernel.kdbg_address, kernel.kdbg, encoded=False) if kdbg else None
    found = await find_processors(source, AMD64, block, shared, notes)
    return found, notes.findings, source


def _assert_all(found: tuple[Processor, ...], kernel: SimulatedKernel) -> None:
    assert [(p.number, p.prcb, p.context_address) for p in found] == [
        (p.number, p.prcb, p.context_address) for p in kernel.processors
    ]
    for mine, truth in zip(found, kernel.processors, strict=True):
        assert mine.context is not None and mine.context.raw == truth.context()
        assert mine.special_registers is not None
        assert mine.special_registers.raw == truth.special_registers(kernel.profile.prcb.special_registers_size)


@pytest.mark.parametrize("count", [1, 4, 64])
@pytest.mark.parametrize("build", [3790, 19041])
async def test_every_processor_with_its_registers(build: int, count: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build, processors=count, memory_size=32 << 20))
    found, findings, _ = await _find(kernel, _shared(count))
    _assert_all(found, kernel)
    assert [f.found for f in findings] == [True]


@pytest.mark.parametrize("claimed", [0, 3000, 0xFFFF_FFFF])
async def test_a_state_change_full_of_garbage_does_not_matter(claimed: int) -> None:
    kernel = build_kernel(_SMALL)
    found, _, source = await _find(kernel, _shared(claimed), garbage_stop=True)
    _assert_all(found, kernel)
    assert source.meter.reads < 100


async def test_without_shared_data_the_state_change_says_how_many() -> None:
    kernel = build_kernel(_SMALL)
    found, _, _ = await _find(kernel, None)
    _assert_all(found, kernel)


async def test_a_claim_that_is_too_large_ends_at_the_null_of_the_block() -> None:
    kernel = build_kernel(_SMALL)
    found, _, _ = await _find(kernel, _shared(200))
    _assert_all(found, kernel)


async def test_without_a_kdbg_the_processors_are_asked_all_the_same() -> None:
    kernel = build_kernel(_SMALL)
    found, findings, _ = await _find(kernel, _shared(4), kdbg=False)
    assert [p.prcb for p in found] == [None] * 4
    assert [p.context is not None and p.context["rip"] for p in found] == [
        p.context_values["rip"] for p in kernel.processors
    ]
    assert (findings[0].step, findings[0].found) == ("processors", False)


async def test_registers_that_nobody_gives_are_told_by_number() -> None:
    kernel = build_kernel(_SMALL)
    found, findings, _ = await _find(kernel, _shared(4), contexts=False)
    assert [(p.context, p.special_registers) for p in found] == [(None, None)] * 4
    assert [f.text for f in findings if not f.found] == ["the target gives none of processor 0, 1, 2, 3"]


async def test_a_prcb_that_names_no_context_is_told() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.processors[2].prcb + kernel.kdbg["offset_prcb_context"], 0)
    found, findings, _ = await _find(kernel, _shared(4))
    assert found[2].context_address is None
    assert any("a debugger that opens the dump will not find registers" in f.text for f in findings if not f.found)


async def test_a_block_that_cannot_be_read_is_told() -> None:
    kernel = build_kernel(_SMALL)
    unmap(kernel, kernel.symbols["KiProcessorBlock"])
    _, findings, source = await _find(kernel, _shared(4))
    assert "KiProcessorBlock cannot be read" in findings[0].text
    assert source.meter.reads < 50


async def test_garbage_pointers_in_the_block_end_bounded() -> None:
    kernel = build_kernel(_SMALL)
    poke(kernel, kernel.symbols["KiProcessorBlock"], struct.pack("<4Q", *(0xDEAD_BEEF_0000_0000 + n for n in range(4))))
    found, findings, source = await _find(kernel, _shared(4))
    assert len(found) == 4 and all(p.context_address is None for p in found)
    assert any(not f.found for f in findings)
    assert source.meter.reads < 100
