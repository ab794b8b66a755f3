"""What durability costs: the share of the throughput of a fast link that checkpoints take."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from unittest import mock

import trio

from kdbridge.acquire import acquire
from kdbridge.opening import OpenTarget, open_target
from kdbridge.plan import PlannedPages
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PageRun, PageRuns

from .machine import machine

__all__ = ["checkpoints"]

_PAIRS = 10
_PAGES = 4096
"""Of one reading: seconds of it, so that checkpoints come."""
_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class _Reading:
    wall: float
    processor: float
    held_up: tuple[float, ...]
    """Seconds for which each checkpoint held up the reading."""


@dataclass(frozen=True, slots=True)
class _Pair:
    without: _Reading
    with_them: _Reading

    def cost(self, of: Callable[[_Reading], float]) -> float:
        """How much more it takes with them."""
        return of(self.with_them) / of(self.without) - 1


async def _some(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    yield PlannedPages(PageRuns([PageRun(0x400, _PAGES)]), "some of the memory", _PAGES)


async def _read(opened: OpenTarget, found: Target, folder: Path, every: float) -> _Reading:
    assert opened.physical is not None
    soon, whole, held_up = Snapshot.checkpoint_soon, Snapshot.checkpoint, list[float]()

    def timed(snapshot: Snapshot) -> None:
        start = time.perf_counter()
        snapshot.settle()
        soon(snapshot)
        held_up.append(time.perf_counter() - start)

    def timed_last(snapshot: Snapshot) -> None:
        start = time.perf_counter()
        whole(snapshot)
        held_up.append(time.perf_counter() - start)

    with (
        Snapshot.create(folder, found) as snapshot,
        mock.patch("kdbridge.acquire._CHECKPOINT", every),
        mock.patch.object(Snapshot, "checkpoint_soon", timed),
        mock.patch.object(Snapshot, "checkpoint", timed_last),
    ):
        start, spent = time.perf_counter(), time.process_time()
        await acquire(opened, opened.physical, snapshot, _some)
        return _Reading(time.perf_counter() - start, time.process_time() - spent, tuple(held_up))


async def _pairs(url: str, folder: Path) -> list[_Pair]:
    pairs: list[_Pair] = []
    async with open_target(url, wait=30) as opened:
        found = await opened.discover()
        for number in range(_PAIRS):
            # Who begins takes turns, as what else the machine does changes from second to second.
            order = (inf, _EVERY) if number % 2 else (_EVERY, inf)
            made = {every: await _read(opened, found, folder / f"{number}-{every}", every) for every in order}
            pairs.append(_Pair(made[inf], made[_EVERY]))
    return pairs


def checkpoints() -> None:
    """A dump with a checkpoint every second against one with none but the last, in turns over one connection."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with machine(f"unix:{folder}/line", "--memory", "64M", "--content", "32M", "--processors", "1") as url:
            pairs = trio.run(_pairs, url, folder)
    single = [*itertools.chain.from_iterable(pair.with_them.held_up for pair in pairs)]
    share = sum(single) / sum(pair.with_them.wall for pair in pairs)
    walls = sorted(pair.cost(lambda reading: reading.wall) for pair in pairs)
    processor = sorted(pair.cost(lambda reading: reading.processor) for pair in pairs)
    print(
        f"checkpoints twice a second hold up reading over a Unix socket for {share:.1%} of its time (goal: under 2 %), "
        f"{statistics.median(single) * 1e3:.0f} ms each ({len(single)}, at most {max(single) * 1e3:.0f} ms); "
        f"{len(pairs)} pairs with them and with none but the last: {_shown(walls)} of the time, "
        f"{_shown(processor)} of the processor's",
        flush=True,
    )


def _shown(costs: list[float]) -> str:
    return f"{statistics.median(costs):+.1%} ({costs[0]:+.1%} to {costs[-1]:+.1%})"
