"""Snapshots of simulated machines, made without a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdbridge.acquire import acquire
from kdbridge.discovery import discover
from kdbridge.plan import Plan, complete_plan
from kdbridge.snapshot import Snapshot
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

__all__ = ["SMALL", "capture", "machine"]

SMALL = KernelOptions(memory_size=16 << 20)


def machine(**options: object) -> SimulatedKernel:
    """A machine of 16 MiB unless it is told otherwise."""
    return build_kernel(replace(SMALL, **options))  # type: ignore[arg-type]


async def capture(path: Path, kernel: SimulatedKernel, plan: Plan = complete_plan) -> Snapshot:
    """Everything that the plan says of this machine, in a new Snapshot that the caller closes."""
    source = SimulatedSource(kernel)
    assert source.physical is not None
    snapshot = Snapshot.create(path, await discover(source))
    await acquire(source, source.physical, snapshot, plan)
    return snapshot
