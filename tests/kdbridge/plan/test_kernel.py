"""The kernel plan: exactly what the kernel half maps, by the simulator's own tables; devices are never touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio.testing

from kdbridge.discovery import discover
from kdbridge.errors import TargetRefusedError
from kdbridge.plan import PlannedPages, Stage, kernel_plan
from protocol.address import PageRun, PageRuns
from protocol.arch import AMD64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.paging import KERNEL_SLOTS
from tests.kdbridge.simulated import SimulatedSource
from tests.kdbridge.taken import made_to_order, take_over

_SMALL = KernelOptions(memory_size=16 << 20)
_LAPIC = 0xFEE00


def _mapped(kernel: SimulatedKernel) -> PageRuns:
    """Leaves of the kernel half, by the simulator's own walk."""
    leaves = kernel.tables.mapped(None, KERNEL_SLOTS)
    return PageRuns(PageRun(leaf.physical >> 12, leaf.size >> 12) for leaf in leaves)


def _truth(kernel: SimulatedKernel) -> PageRuns:
    """What the plan must come to: what the kernel half maps or has in transition, and the tables of all processes."""
    tables = [pfn for process in kernel.processes for pfn in process.tables.pages]
    # The builder lays eight entries in transition, over the first frame of so many runs of content.
    transition = [run.base_page for run in kernel.content][:8]
    return (_mapped(kernel) | PageRuns.from_pages([*kernel.tables.pages, *tables, *transition])) & kernel.image.runs


async def _plan(kernel: SimulatedKernel) -> tuple[list[PlannedPages], SimulatedSource]:
    source = SimulatedSource(kernel)
    target = await discover(source)
    source.meter.frames.clear()
    return [part async for part in kernel_plan(source, target)], source


def _all(parts: list[PlannedPages]) -> PageRuns:
    return PageRuns(run for part in parts for run in part.pages)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"build": 3790},
        {"build": 7601, "processors": 1},
        {"runs": 60},
        {"memory_size": 6 << 30, "gigabyte_page": True},
        {"processors": 64, "memory_size": 64 << 20},
        {"seed": 9},
    ],
    ids=str,
)
async def test_it_is_what_the_kernel_half_maps(options: dict) -> None:
    kernel = build_kernel(replace(_SMALL, **options))
    parts, source = await _plan(kernel)
    assert _all(parts) == _truth(kernel)
    assert _all(parts) - kernel.image.runs == PageRuns()
    stages = [part.stage for part in parts]
    assert stages == sorted(stages) and set(stages) == {Stage.SMALL, Stage.CORE, Stage.KERNEL}
    assert [part.stage for part in parts if part.ends] == [Stage.SMALL, Stage.CORE, Stage.KERNEL]
    assert source.meter.frames <= set(_truth(kernel).pages()), "what was read to find out belongs to it"


async def test_devices_are_mapped_and_never_read() -> None:
    kernel = build_kernel(_SMALL)
    devices = _mapped(kernel) & kernel.image.device
    assert devices.page_count > 0x800, "the machine has a frame buffer and more"
    parts, source = await _plan(kernel)
    assert _all(parts) & kernel.image.device == PageRuns()
    assert kernel.image.device_accesses == []
    assert all(pfn in kernel.image.runs for pfn in source.meter.frames)


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_an_entry_that_takes_a_device_for_a_page_table_is_not_followed(level: int) -> None:
    kernel = build_kernel(_SMALL)
    free = next(slot for slot in KERNEL_SLOTS if kernel.tables.translate(0xFFFF << 48 | slot << 39) is None
                and kernel.image.read(kernel.tables.root + 8 * slot, 8) == bytes(8))  # fmt: skip
    kernel.tables.set_entry(0xFFFF << 48 | free << 39, _LAPIC << 12 | 3, level)
    assert _LAPIC in kernel.image.device
    await _plan(kernel)
    assert kernel.image.device_accesses == []


async def test_the_most_valuable_pages_come_first() -> None:
    kernel = build_kernel(_SMALL)
    parts, _ = await _plan(kernel)
    first = _all([part for part in parts if part.stage is Stage.SMALL])
    for address in (
        kernel.kernel_base,
        kernel.kdbg_address,
        kernel.symbols["KiProcessorBlock"],
        kernel.symbols["KiBugCheckData"],
        *(processor.prcb for processor in kernel.processors),
        *(processor.context_address for processor in kernel.processors),
        kernel.processors[kernel.stopped_processor].context_values["rsp"],
    ):
        physical = kernel.tables.translate(address)
        assert physical is not None and physical >> 12 in first, f"{address:#x}"
    assert first.page_count < 0.25 * _truth(kernel).page_count


async def test_a_capture_reads_nothing_outside_of_the_runs_and_nothing_twice(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = made_to_order(replace(_SMALL, runs=60))
    asked: list[range] = []
    answer = type(way.machine).answer

    def noting(self, request):  # type: ignore[no-untyped-def]
        if request.name == "ReadPhysicalMemory":
            fields = request.fields()
            asked.append(range(fields["address"], fields["address"] + fields["transfer_count"]))
        return answer(self, request)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(type(way.machine), "answer", noting)
    try:
        async with take_over(way) as taken:
            await taken.target.discover()
            asked.clear()
            with await taken.target.snapshot(tmp_path / "s", kernel_plan) as snapshot:
                assert snapshot.held == _truth(way.kernel)
    finally:
        monkeypatch.undo()
    runs = way.kernel.image.runs
    for span in asked:
        assert span.start >> 12 in runs and span.stop - 1 >> 12 in runs
    assert way.machine.memory.device_accesses == []
    total = sum(len(span) for span in asked)
    assert total == _truth(way.kernel).page_count * 4096


async def test_without_runs_nothing_is_read() -> None:
    kernel = build_kernel(_SMALL)
    source = SimulatedSource(kernel)
    target = replace(await discover(source), runs=None)
    source.meter.frames.clear()
    with pytest.raises(TargetRefusedError, match="reading a device changes it"):
        [part async for part in kernel_plan(source, target)]
    assert source.meter.frames == set()


@pytest.mark.parametrize("worse", ["root", "physical"])
async def test_without_page_tables_it_says_so(worse: str) -> None:
    kernel = build_kernel(_SMALL)
    target = await discover(SimulatedSource(kernel))
    if worse == "root":
        target = replace(target, directory_table_base=None)
    source = SimulatedSource(kernel, physical=worse != "physical")
    with pytest.raises(TargetRefusedError, match="a kernel dump needs page tables"):
        [part async for part in kernel_plan(source, target)]


def test_the_kernel_half_is_the_upper_half() -> None:
    assert AMD64.paging.kernel_entries == KERNEL_SLOTS
