"""The pages of kernel and active dumps: the set that an independent, slow computation over all of memory gives."""

from __future__ import annotations

import pytest

from kdbridge.discovery import discover
from kdbridge.plan import PlannedPages, Stage, active_plan
from protocol.address import PageRuns
from simulator.kernel import SimulatedKernel, build_kernel
from tests import slow_pages
from tests.amount import drawn
from tests.kdbridge.simulated import SimulatedSource
from tests.random_machines import random_machine

_SEEDS, _QUICK = drawn(50, gate=24), 8
_IN_USE = {3, 4, 6, 7}
"""Modified, modified no write, active, transition (dump-formats 3.2 B)."""


async def _plan(kernel: SimulatedKernel) -> tuple[list[PlannedPages], SimulatedSource]:
    source = SimulatedSource(kernel)
    target = await discover(source)
    source.meter.frames.clear()
    return [part async for part in active_plan(source, target)], source


def _up_to(parts: list[PlannedPages], last: Stage) -> set[int]:
    return set(PageRuns(run for part in parts if part.stage <= last for run in part.pages).pages())


def _roots(kernel: SimulatedKernel) -> list[int]:
    """Of every process of the list, and what the processors stand on."""
    return [
        *(process.directory_table_base for process in kernel.processes),
        *(processor.special_values["cr3"] for processor in kernel.processors),
    ]


@pytest.mark.parametrize(
    "seed",
    [seed if seed < _QUICK else pytest.param(seed, marks=pytest.mark.slow) for seed in _SEEDS],
)
async def test_kernel_and_active_pages_of_any_machine(seed: int) -> None:
    options = random_machine(seed)
    kernel = build_kernel(options)
    parts, source = await _plan(kernel)
    read, runs = kernel.image.read_page, [(run.base_page, run.page_count) for run in kernel.image.runs]
    system = kernel.directory_table_base
    wanted = slow_pages.kernel_pages(read, runs, system, _roots(kernel))
    assert _up_to(parts, Stage.KERNEL) == wanted, options
    active = slow_pages.active_pages(read, runs, system, _roots(kernel))
    proven = [part.reason for part in parts if "PFN database" in part.reason]
    # Without pages in transition there is nothing that a layout could be disproven by.
    assert not proven or options.pfn_database == "true", options
    assert proven or options.pfn_database != "true" or not options.transition_pages, options
    if proven:
        pointer = kernel.read_virtual(kernel.symbols["MmPfnDatabase"], 8)
        assert pointer is not None
        layout, address = options.pfn_layout, int.from_bytes(pointer, "little")
        locations = slow_pages.database_locations(read, runs, system, address, layout.record_size, layout.location)
        active |= {pfn for pfn, location in locations.items() if location in _IN_USE}
    assert _up_to(parts, Stage.ACTIVE) == active, options
    assert kernel.image.device_accesses == []
    assert source.meter.frames <= active, "what was read to find out belongs to it"
