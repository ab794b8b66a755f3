"""Runs of memory that a PC would have, and an allocator that hands out each frame once."""

from __future__ import annotations

import itertools
import random

import pytest

from protocol.address import PageRun, PageRuns
from simulator.errors import SimulationError
from simulator.frames import FrameAllocator, believable_runs


@pytest.mark.parametrize("size", [16 << 20, 1 << 30, 3 << 30, 4 << 30, 64 << 30])
def test_memory_has_the_holes_of_a_pc(size: int) -> None:
    runs = believable_runs(size)
    for pfn in (0, 0x9F, 0xA0, 0xFF, 0xC0000, 0xFEC00, 0xFEE00, 0xFFFFF):
        assert pfn not in runs, f"{pfn:#x}: real mode vectors, VGA, ROM, or devices below 4 GiB"
    assert size - runs.page_count * 4096 < 1 << 20, "what lies under the hole is above 4 GiB instead"


@pytest.mark.parametrize("count", [2, 3, 10, 42, 43, 60, 500])
def test_so_many_runs_as_are_wanted(count: int) -> None:
    for seed in range(3):
        runs = believable_runs(256 << 20, count, seed)
        assert len(runs) == count, seed
        assert runs == believable_runs(256 << 20, count, seed)
    assert believable_runs(256 << 20, 60, 1) != believable_runs(256 << 20, 60, 2)


def test_a_frame_is_handed_out_once_and_is_memory() -> None:
    runs = PageRuns([PageRun(1, 0x9E), PageRun(0x100, 0x1000), PageRun(0x2000, 0x400)])
    allocator = FrameAllocator(runs, random.Random(3))
    taken = allocator.take(0x1AA)
    assert taken and not allocator.take(0x1AA) and not allocator.take(0)
    block = allocator.allocate_block(512, 512)
    assert block is not None and block % 512 == 0
    seen = {0x1AA, *range(block, block + 512)}
    assert all(pfn in runs for pfn in seen)
    while len(seen) < runs.page_count:
        pfn = allocator.allocate()
        assert pfn in runs and pfn not in seen
        seen.add(pfn)
    with pytest.raises(SimulationError, match="too little for this machine"):
        allocator.allocate()
    assert allocator.allocate_block(512, 512) is None


def test_single_frames_come_scattered() -> None:
    allocator = FrameAllocator(believable_runs(256 << 20), random.Random(5))
    frames = [allocator.allocate() for _ in range(200)]
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(frames))
    assert neighbours < 10 and max(frames) - min(frames) > 0x4000
