"""What is laid over a dump's memory: the true CONTEXTs and a decoded KDBG, where readers look, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.dump.overlay import Overlay, laid_over, overlay_for
from protocol.address import PAGE_SIZE
from simulator.kernel import SimulatedKernel
from tests.kdbridge.captured import capture, machine
from tests.kdbridge.simulated import SimulatedSource


async def _overlay(kernel: SimulatedKernel) -> Overlay:
    source = SimulatedSource(kernel)
    return await overlay_for(source, await discover(source))


def _changed(kernel: SimulatedKernel, overlay: Overlay) -> dict[int, bytes]:
    return {pfn: overlay.onto(pfn, kernel.image.read_page(pfn) or b"") for pfn in overlay.frames}


def _read(kernel: SimulatedKernel, pages: dict[int, bytes], address: int, size: int) -> bytes:
    """Virtual memory with these pages instead of the machine's."""
    parts = []
    for at in range(address, address + size):
        physical = kernel.tables.translate(at)
        assert physical is not None
        page = pages.get(physical >> 12) or kernel.image.read_page(physical >> 12)
        assert page is not None
        parts.append(page[physical & 0xFFF])
    return bytes(parts)


@pytest.mark.parametrize("build", [3790, 7601, 19041])
async def test_every_context_is_the_true_one_afterwards(build: int) -> None:
    kernel = machine(build=build)
    overlay = await _overlay(kernel)
    pages = _changed(kernel, overlay)
    stale = 0
    for processor in kernel.processors:
        truth = processor.context()
        stale += kernel.read_virtual(processor.context_address, len(truth)) != truth
        assert _read(kernel, pages, processor.context_address, len(truth)) == truth
    assert stale == len(kernel.processors), "memory held older ones: without an overlay a reader would believe them"
    assert overlay.missing == []
    assert len(overlay.notes) == len(kernel.processors)


async def test_nothing_else_is_changed() -> None:
    kernel = machine()
    pages = _changed(kernel, await _overlay(kernel))
    allowed = set()
    for processor in kernel.processors:
        for at in range(len(processor.context())):
            allowed.add(kernel.tables.translate(processor.context_address + at))
    for pfn, page in pages.items():
        before = kernel.image.read_page(pfn)
        assert before is not None
        different = {pfn * PAGE_SIZE + at for at in range(PAGE_SIZE) if page[at] != before[at]}
        assert different <= allowed
    assert len(pages) == 5, "four CONTEXTs, one of them across a page boundary"


async def test_an_encoded_kdbg_is_plain_afterwards() -> None:
    kernel = machine(build=22621, encoded_kdbg=True)
    overlay = await _overlay(kernel)
    size = len(kernel.kdbg.raw)
    assert kernel.read_virtual(kernel.kdbg_address, size) != kernel.kdbg.raw
    assert _read(kernel, _changed(kernel, overlay), kernel.kdbg_address, size) == kernel.kdbg.raw
    assert overlay.notes[-1] == f"decoded KDBG at {kernel.kdbg_address:#x}"


async def test_a_context_that_lies_across_two_pages_of_which_one_is_gone_is_not_laid_at_all() -> None:
    kernel = machine()
    processor = kernel.processors[1]
    assert processor.context_address % PAGE_SIZE > PAGE_SIZE - 0x4D0
    second = kernel.tables.translate(processor.context_address + 0x4CF)
    first = kernel.tables.translate(processor.context_address)
    assert first is not None and second is not None
    kernel.image.unreadable.add(second >> 12)
    overlay = await _overlay(kernel)
    assert overlay.missing == ["registers of processor 1: its CONTEXT's page was not read"]
    others = {kernel.tables.translate(p.context_address) for p in kernel.processors if p is not processor}
    if first >> 12 not in {place >> 12 for place in others if place is not None}:
        assert first >> 12 not in overlay.frames


async def test_without_page_tables_it_says_what_is_missing() -> None:
    source = SimulatedSource(machine())
    target = replace(await discover(source), directory_table_base=None)
    overlay = await overlay_for(source, target)
    assert overlay.frames == frozenset()
    assert overlay.missing == ["no page tables: the registers could not be put where a debugger looks for them"]


async def test_what_may_have_been_laid_includes_the_kdbg(tmp_path: Path) -> None:
    kernel = machine()
    with await capture(tmp_path / "s", kernel) as snapshot:
        frames = (await laid_over(snapshot, snapshot.target)).frames
    place = kernel.tables.translate(kernel.kdbg_address)
    assert place is not None and place >> 12 in frames
