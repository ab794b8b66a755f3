"""Which memory is held: of Snapshots and dumps whose pages the test laid down itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.analysis.held import held_of
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.dumps import written
from tests.kdbridge.simulated import SimulatedSource
from tests.simulator.dumped import dump_plan


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=16 << 20, content_size=64 << 10, processors=1, unreadable_pages=5))


async def test_a_live_target_holds_nothing(kernel: SimulatedKernel) -> None:
    source = ReadOnce(SimulatedSource(kernel))
    assert held_of(source, await discover(source)) is None


async def test_a_snapshot_says_of_each_page_how_it_was_had(kernel: SimulatedKernel, tmp_path: Path) -> None:
    target = await discover(SimulatedSource(kernel))
    assert target.runs is not None
    first = target.runs[0].base_page
    with Snapshot.create(tmp_path / "s", target) as snapshot:
        snapshot.put(first, bytes(range(256)) * 16)
        snapshot.put(first + 1, None)
        snapshot.infer(first + 2, bytes(PAGE_SIZE))
        for source in (snapshot, ReadOnce(snapshot)):
            found = held_of(source, target)
            assert found is not None
            assert found.memory == kernel.image.runs
            assert found.held == PageRuns([PageRun(first, 1), PageRun(first + 2, 1)])
            assert found.unreadable == PageRuns([PageRun(first + 1, 1)])
            assert found.inferred == PageRuns([PageRun(first + 2, 1)])


@pytest.mark.parametrize("kind", [1, 5, 6])
async def test_a_dump_with_pages(kernel: SimulatedKernel, tmp_path: Path, kind: int) -> None:
    plan, memory = dump_plan(kernel, kind)
    with DumpFile(written(tmp_path / "x.dmp", plan, memory)) as dump:
        source = ReadOnce(dump)
        target = await discover(source)
        looked: list[int] = []
        plain = dump._file.read

        def read(offset: int, size: int) -> bytes:
            looked.append(size)
            return plain(offset, size)

        dump._file.read = read  # type: ignore[method-assign]
        found = held_of(source, target)
        assert found is not None
        assert (found.memory, found.held) == (kernel.image.runs, plan.pages)
        assert found.unreadable == found.inferred == PageRuns()  # of a complete dump: not looked for
        assert sum(looked) == 0
        if kind == 1:
            assert dump.unreadable.page_count == 5
