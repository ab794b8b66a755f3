"""Pages without which a debugger opens nothing: found through the page tables, bounded by what is believable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.discovery import discover
from kdbridge.plan import vital_pages
from kdbridge.plan.vital import vital_ranges
from kdbridge.target import Target
from protocol.address import PageRuns
from protocol.arch import AMD64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


async def _found(kernel: SimulatedKernel) -> tuple[Target, SimulatedSource]:
    source = SimulatedSource(kernel)
    return await discover(source), source


@pytest.mark.parametrize("build", [3790, 19041])
async def test_every_range_comes_with_the_tables_on_the_way(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    target, source = await _found(kernel)
    pages = await vital_pages(source, target)
    wanted = set()
    for address, size in vital_ranges(target, AMD64):
        for page in range(address & ~0xFFF, address + size, 0x1000):
            physical = kernel.tables.translate(page)
            if physical is not None:
                wanted.add(physical >> 12)
    assert len(wanted) > 40
    assert wanted <= set(pages.pages())
    rest = set(pages.pages()) - wanted
    roots = {processor.special_values["cr3"] >> 12 for processor in kernel.processors}
    assert rest <= kernel.tables.pages | roots, "page tables, and nothing else"


async def test_stacks_descriptor_tables_and_threads_are_among_them() -> None:
    kernel = build_kernel(_SMALL)
    target, source = await _found(kernel)
    pages = await vital_pages(source, target)
    for processor in kernel.processors:
        rsp = processor.context_values["rsp"]
        places = [processor.gdt, processor.idt, processor.pcr, rsp, processor.prcb]
        if processor.number == kernel.stopped_processor:
            places.append(processor.thread)
        for address in places:
            physical = kernel.tables.translate(address)
            assert physical is not None and physical >> 12 in pages, f"{address:#x} of {processor.number}"


async def test_nothing_lies_outside_of_ram() -> None:
    kernel = build_kernel(replace(_SMALL, runs=60))
    target, source = await _found(kernel)
    assert await vital_pages(source, target) - kernel.image.runs == PageRuns()
    assert kernel.image.device_accesses == []


async def test_garbage_registers_cost_little() -> None:
    kernel = build_kernel(_SMALL)
    target, source = await _found(kernel)
    garbage = AMD64.special_registers.encode({"gdtr_base": (1 << 64) - 4096, "gdtr_limit": 0xFFFF, "idtr_base": 8})
    wild = tuple(
        replace(
            processor,
            special_registers=AMD64.special_registers.decode(garbage),
            context=AMD64.context.decode(AMD64.context.encode({"rsp": (1 << 64) - 8, "rip": 1 << 63})),
            context_address=(1 << 64) - 16,
            prcb=0xDEAD_BEEF_0000_0000,
        )
        for processor in target.processors
    )
    before = source.meter.reads
    pages = await vital_pages(source, replace(target, processors=wild))
    assert pages.page_count > 10
    assert source.meter.reads - before < 5000


async def test_without_a_root_there_are_none() -> None:
    kernel = build_kernel(_SMALL)
    target, source = await _found(kernel)
    assert await vital_pages(source, replace(target, directory_table_base=None)) == PageRuns()
