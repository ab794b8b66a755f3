"""What plans cost on the wire, by the simulated target's own count of the memory that it gave away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pytest
import trio
import trio.testing

from kdbridge.plan import Plan, Stage, plan_up_to
from protocol.address import PAGE_SIZE, PageRuns
from protocol.manipulate import Manipulate
from simulator.kernel import KernelOptions, SimulatedKernel
from simulator.machine import Answer, Machine
from simulator.options import as_layout
from tests import slow_pages
from tests.kdbridge.taken import made_to_order, take_over

pytestmark = pytest.mark.slow

GIB = 1 << 30
_MACHINE = KernelOptions(gigabyte_page=False)


@dataclass
class Given:
    """Memory that the target gave."""

    bytes: int = 0
    """By any address, from the first contact on."""
    most: int = 0
    """How often the same bytes were given by physical address, at most."""
    seen: Counter[int] = field(default_factory=Counter)


@contextmanager
def _watched() -> Iterator[Given]:
    given = Given()
    answer = Machine.answer

    def watching(machine: Machine, request: Manipulate) -> Answer:
        reply = answer(machine, request)
        if request.name in ("ReadPhysicalMemory", "ReadVirtualMemory") and reply.reply is not None:
            size = len(reply.reply.data)
            given.bytes += size
            if request.name == "ReadPhysicalMemory":
                address = request.fields()["address"]
                # By 8 bytes: whole pages begin and end at such a border, and so does every part of one.
                places = range(address >> 3, address + size >> 3)
                given.seen.update(places)
                given.most = max([given.most, *(given.seen[place] for place in places)])
        return reply

    with mock.patch.object(Machine, "answer", watching):
        yield given


async def _bring(
    folder: Path, options: KernelOptions, plan: Plan, baud: int | None
) -> tuple[Given, float, PageRuns, SimulatedKernel]:
    way = made_to_order(options, baud=baud)
    started = trio.current_time()
    with _watched() as given:
        async with take_over(way) as taken:
            # Discovery finds out whether physical memory can be read at all: by 8 bytes, before any plan.
            await taken.target.discover()
            given.seen.clear()
            given.most = 0
            with await taken.target.snapshot(folder, plan) as snapshot:
                held = snapshot.held
    return given, trio.current_time() - started, held, way.kernel


@pytest.mark.parametrize("processors", [1, 4, 64])
async def test_a_small_dump_is_small_whatever_the_machine(
    processors: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    costs = set()
    for size in (4 * GIB, 64 * GIB) if processors == 64 else (4 * GIB, 16 * GIB, 64 * GIB):
        options = replace(_MACHINE, memory_size=size, processors=processors)
        given, seconds, held, _ = await _bring(tmp_path / str(size), options, plan_up_to(Stage.SMALL), 115200)
        assert given.bytes <= (640 + 60 * processors) << 10, f"{size:#x}"
        assert given.most == 1 and held.page_count * PAGE_SIZE <= given.bytes
        assert processors != 4 or seconds < 100
        costs.add(given.bytes)
    # Where things lie differs from machine to machine: a page table more or less.
    assert max(costs) - min(costs) <= 16 * PAGE_SIZE


@pytest.mark.parametrize("size", [4 * GIB, 16 * GIB, 64 * GIB])
async def test_a_kernel_dump_costs_what_it_holds(
    size: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    options = as_layout(replace(_MACHINE, memory_size=size, content_size=64 << 20), "server")
    options = replace(options, pfn_database="none")
    given, _, held, kernel = await _bring(tmp_path / "snapshot", options, plan_up_to(Stage.KERNEL), None)
    assert given.bytes <= 1.02 * held.page_count * PAGE_SIZE
    assert given.most == 1
    runs = [(run.base_page, run.page_count) for run in kernel.image.runs]
    roots = [process.directory_table_base for process in kernel.processes]
    exist = slow_pages.table_pages(kernel.image.read_page, runs, roots)
    roots_of_processors = {processor.special_values["cr3"] >> 12 for processor in kernel.processors}
    walked = exist & set(held.pages())
    assert walked == exist and len(walked | roots_of_processors) <= 1.05 * len(exist)


@pytest.mark.parametrize("stage", [Stage.SMALL, Stage.KERNEL, Stage.ACTIVE, Stage.COMPLETE], ids=lambda one: one.name)
async def test_no_plan_reads_anything_twice(
    stage: Stage, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    options = as_layout(replace(_MACHINE, memory_size=64 << 20, runs=20), "server")
    given, _, held, _ = await _bring(tmp_path / "snapshot", options, plan_up_to(stage), None)
    assert given.most == 1 and held
