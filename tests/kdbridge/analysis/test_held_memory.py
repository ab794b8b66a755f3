"""Which memory a source holds; and a file that holds a part of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.analysis.held import held_of
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.errors import MemoryFault
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE, PageRun, PageRuns, VirtualAddress
from simulator.kernel import KernelOptions, build_kernel
from tests.dumps import written
from tests.kdbridge.analysis.made_up import MadeUp
from tests.kdbridge.simulated import SimulatedSource
from tests.simulator.dumped import dump_plan

_BASE = 0xFFFFF800_30000000


@pytest.mark.parametrize("kind", [1, 6])
async def test_of_a_dump_with_pages(tmp_path: Path, kind: int) -> None:
    kernel = build_kernel(KernelOptions(memory_size=16 << 20, processors=1))
    plan, memory = dump_plan(kernel, kind)
    path = written(tmp_path / "a.dmp", plan, memory)
    with DumpFile(path) as dump:
        source = ReadOnce(dump)
        found = held_of(source, await discover(source))
    assert found is not None
    assert found.held == plan.pages
    assert found.memory == kernel.image.runs | plan.pages
    assert not found.inferred


async def test_of_a_snapshot_that_lacks_most(tmp_path: Path) -> None:
    kernel = build_kernel(KernelOptions(memory_size=16 << 20, processors=1))
    target = await discover(SimulatedSource(kernel))
    first = kernel.image.runs[0].base_page
    with Snapshot.create(tmp_path / "a", target) as snapshot:
        snapshot.put(first, bytes([7]) * PAGE_SIZE)
        snapshot.put(first + 1, None)
        found = held_of(ReadOnce(snapshot), target)
        assert found is not None
        assert found.held == PageRuns([PageRun(first, 1)])
        assert found.unreadable == PageRuns([PageRun(first + 1, 1)])
        assert found.memory == kernel.image.runs
    assert held_of(SimulatedSource(kernel), target) is None


class _File(MadeUp):
    """Memory of a file: it knows what it holds."""

    held = PageRuns()


@pytest.mark.parametrize("file", [True, False])
async def test_a_part_of_a_page_is_read_from_a_file_only(file: bool) -> None:
    """A small dump's piece may begin anywhere in a page. Of a live target a page is there or is not, and asked once."""
    source = ReadOnce((_File if file else MadeUp)({_BASE + 0x800: b"piece"}))
    with pytest.raises(MemoryFault):
        await source.virtual.read(VirtualAddress(_BASE + 0x100), 8)
    if file:
        assert await source.virtual.read(VirtualAddress(_BASE + 0x800), 5) == b"piece"
    else:
        with pytest.raises(MemoryFault):
            await source.virtual.read(VirtualAddress(_BASE + 0x800), 5)
    assert [page for page, _ in source.refused] == [_BASE]
