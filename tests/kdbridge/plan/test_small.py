"""The plan for a small dump: what it must bring home, by the machine's own truth; how much it costs; in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.discovery import discover
from kdbridge.plan import Batch, PlannedPages, Stage, small_batches, small_plan
from protocol.address import PageRuns
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


async def _plan(kernel: SimulatedKernel) -> list[PlannedPages]:
    source = SimulatedSource(kernel)
    return [part async for part in small_plan(source, await discover(source))]


def _all(parts: list[PlannedPages]) -> PageRuns:
    return PageRuns(run for part in parts for run in part.pages)


def _where(parts: list[PlannedPages], kernel: SimulatedKernel, address: int) -> int:
    """The number of the first part that has this address's page."""
    physical = kernel.tables.translate(address)
    assert physical is not None, f"{address:#x}"
    return next(number for number, part in enumerate(parts) if physical >> 12 in part.pages)


@pytest.mark.parametrize("build", [3790, 7601, 19041, 22621])
async def test_what_a_debugger_shows_of_every_processor_is_in_it(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    pages = _all(await _plan(kernel))
    for processor in kernel.processors:
        size = kernel.kdbg["size_prcb"]
        rsp = processor.context_values["rsp"]
        wanted = [
            *range(processor.prcb, processor.prcb + size, 0x1000), processor.prcb + size - 1, processor.context_address,
            processor.gdt, processor.thread, processor.process, processor.context_values["rip"],
            *range(rsp, min(processor.stack_base, rsp + 0x4000), 0x1000),
        ]  # fmt: skip
        for address in wanted:
            physical = kernel.tables.translate(address)
            assert physical is not None and physical >> 12 in pages, f"{address:#x} of {processor.number}"


async def test_the_code_of_every_frame_of_the_stopped_thread_can_be_unwound() -> None:
    kernel = build_kernel(_SMALL)
    pages = _all(await _plan(kernel))
    frames = kernel.processors[kernel.stopped_processor].frames
    assert len(frames) > 4
    for frame in frames:
        physical = kernel.tables.translate(frame.instruction)
        assert physical is not None and physical >> 12 in pages, frame


async def test_the_best_comes_first() -> None:
    kernel = build_kernel(_SMALL)
    parts = await _plan(kernel)
    stopped = kernel.processors[kernel.stopped_processor]
    other = next(one for one in kernel.processors if one is not stopped)
    places = [
        _where(parts, kernel, address)
        for address in (
            kernel.kdbg_address,
            stopped.context_address,
            stopped.context_values["rsp"],
            other.context_address,
            other.context_values["rsp"],
            other.prcb + 0x4000,
        )
    ]
    assert places == sorted(places)
    assert parts[-1].ends and {part.stage for part in parts} == {Stage.SMALL}


@pytest.mark.parametrize("processors", [1, 4, 64])
@pytest.mark.parametrize("memory", [4 << 30, 16 << 30, 64 << 30])
async def test_it_is_small_and_does_not_grow_with_memory(processors: int, memory: int) -> None:
    kernel = build_kernel(KernelOptions(memory_size=memory, processors=processors))
    source = SimulatedSource(kernel)
    target = await discover(source)
    source.meter.frames.clear()
    pages = _all([part async for part in small_plan(source, target)])
    assert pages.page_count * 4 <= 640 + 60 * processors
    assert source.meter.frames <= set(pages.pages()), "what was read to find out belongs to it"
    assert kernel.image.device_accesses == []


async def test_what_a_bug_check_points_to_is_in_it() -> None:
    kernel = build_kernel(_SMALL)
    irp = kernel.processes[-1].address
    context = kernel.processors[-1].context_address
    for code, parameters, wanted in (
        (0x44, (irp, 0, 0, 0), [irp]),
        (0x3B, (0xC0000005, kernel.kernel_base + 0x1000, context, 0), [context, kernel.kernel_base + 0x1000]),
    ):
        broken = build_kernel(replace(_SMALL, bug_check=BugCheck(code, parameters)))
        pages = _all(await _plan(broken))
        for address in wanted:
            physical = broken.tables.translate(address)
            assert physical is not None and physical >> 12 in pages


@pytest.mark.parametrize("value", [0, 1, 0xFFFF8000_00000000, 0xFFFFFFFF_FFFFFFF8, 0x7FFF_FFFF_FFFF])
async def test_wild_parameters_and_registers_do_no_harm(value: int) -> None:
    kernel = build_kernel(replace(_SMALL, bug_check=BugCheck(0x7E, (value, value, value, value))))
    source = SimulatedSource(kernel)
    target = await discover(source)
    names = ("rsp", "rip", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
    wild = tuple(
        replace(
            one,
            prcb=value if one.number else one.prcb,
            context=None
            if one.context is None
            else replace(one.context, values={**one.context.values, **dict.fromkeys(names, value)}),
        )
        for one in target.processors
    )  # fmt: skip
    batches = [batch async for batch in small_batches(source, replace(target, processors=wild))]
    assert any(batch.ranges for batch in batches)
    assert kernel.image.device_accesses == []


async def test_without_page_tables_it_names_ranges() -> None:
    kernel = build_kernel(_SMALL)
    source = SimulatedSource(kernel, physical=False)
    target = await discover(source)
    parts = [part async for part in small_plan(source, target)]
    batches: list[Batch] = [batch async for batch in small_batches(source, target)]
    assert [part.ranges for part in parts if not part.ends] == [batch.ranges for batch in batches]
    assert _all(parts) == PageRuns()
