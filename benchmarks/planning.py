"""What making a dump of what was brought home costs: rendering against `cp`, planning against the line's own time."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import trio

from kdbridge.acquire import acquire
from kdbridge.discovery import discover
from kdbridge.dump import DumpLayoutChoice, render
from kdbridge.plan import kernel_plan
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE
from simulator.kernel import KernelOptions, build_kernel
from simulator.options import as_layout
from tests.kdbridge.simulated import SimulatedSource

__all__ = ["planning", "rendering"]

_ROUNDS = 5
_SIZE = 512 << 20
_LINK = 10_000_000
"""Bytes a second of the link that planning is held against."""


def rendering() -> None:
    """A complete dump of 512 MiB, none of it zeros, against a copy of a file of that size by `cp`, in turns."""
    kernel = build_kernel(KernelOptions(memory_size=_SIZE, gigabyte_page=False))
    page = bytes(range(1, 256)) * 16 + bytes(range(1, 17))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)

        async def prepare() -> Snapshot:
            snapshot = Snapshot.create(base / "snapshot", await discover(SimulatedSource(kernel)))
            for run in kernel.image.runs:
                for pfn in range(run.base_page, run.end_page):
                    snapshot.put(pfn, kernel.image.read_page(pfn) if pfn < 0x1000 else page)
            snapshot.checkpoint()
            return snapshot

        async def once(snapshot: Snapshot) -> float:
            start = time.perf_counter()
            await render(snapshot, snapshot.target, base / "out.dmp", layout=DumpLayoutChoice.RUNS, force=True)
            return time.perf_counter() - start

        snapshot = trio.run(prepare)
        ratios: list[float] = []
        with snapshot:
            trio.run(once, snapshot)
            for _ in range(_ROUNDS):
                took = trio.run(once, snapshot)
                start = time.perf_counter()
                subprocess.run(["cp", base / "out.dmp", base / "copy.dmp"], check=True)
                subprocess.run(["sync", base / "copy.dmp"], check=True)
                ratios.append(took / (time.perf_counter() - start))
    print(
        f"rendering a complete dump takes {statistics.median(ratios):.2f} of the time of cp and sync (goal: at most 2; "
        f"{_ROUNDS} rounds of {_SIZE >> 20} MiB, {min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def planning() -> None:
    """Processor time that the kernel plan takes of its own, per page, against what a page takes on a link."""
    options = as_layout(KernelOptions(memory_size=4 << 30, gigabyte_page=False, content_size=256 << 20), "server")
    kernel = build_kernel(options)

    async def plan_alone() -> tuple[float, int]:
        with tempfile.TemporaryDirectory() as folder:
            source = SimulatedSource(kernel)
            assert source.physical is not None
            with Snapshot.create(Path(folder) / "s", await discover(source)) as snapshot:
                await acquire(source, source.physical, snapshot, kernel_plan)
                start = time.process_time()
                async for _ in kernel_plan(snapshot, snapshot.target):
                    pass
                return time.process_time() - start, snapshot.held.page_count

    seconds, pages = trio.run(plan_alone)
    share = seconds / (pages * PAGE_SIZE / _LINK)
    print(
        f"planning a kernel dump takes {1e6 * seconds / pages:.1f} µs of the processor a page, {share:.1%} of the time "
        f"that a page takes at {_LINK / 1e6:.0f} MB/s (goal: under 5 %; {pages} pages)",
        flush=True,
    )
