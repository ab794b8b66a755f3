"""What durability costs: the share of the throughput of a fast link that checkpoints take."""

from __future__ import annotations

import statistics
import tempfile
import time
from math import inf
from pathlib import Path
from unittest import mock

import trio

from kdbridge.acquire import acquire
from kdbridge.opening import open_target
from kdbridge.plan import complete_plan
from kdbridge.snapshot import Snapshot

from .machine import machine

__all__ = ["checkpoints"]

_ROUNDS = 7


async def _seconds(url: str, folder: Path, every: float) -> float:
    async with open_target(url, wait=30) as target:
        found = await target.discover()
        assert target.physical is not None
        with mock.patch("kdbridge.acquire._CHECKPOINT", every), Snapshot.create(folder, found) as snapshot:
            start = time.perf_counter()
            await acquire(target, target.physical, snapshot, complete_plan)
            return time.perf_counter() - start


def checkpoints() -> None:
    """A dump with a checkpoint every second against one with none but the last."""
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder, machine(f"unix:{folder}/line", "--memory", "64M") as url:
        for number in range(_ROUNDS):
            without = trio.run(_seconds, url, Path(folder, f"{number}-without"), inf)
            with_them = trio.run(_seconds, url, Path(folder, f"{number}-with"), 1.0)
            shares.append(with_them / without - 1)
    print(
        f"checkpoints every second cost {statistics.median(shares):.1%} of the throughput over a Unix socket "
        f"(goal: under 2 %; {_ROUNDS} rounds, {min(shares):.1%} to {max(shares):.1%})",
        flush=True,
    )
