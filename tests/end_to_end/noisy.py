"""A complete dump of a few pages over a bad line, in virtual time, held against the machine's memory."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from kdbridge.double_reading import ReadTwice
from kdbridge.dump import render
from kdbridge.memory.files import DumpFile
from kdbridge.opening import open_target
from kdbridge.plan import PlannedPages
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.target import Target
from kdbridge.transports.sim import SimTransport
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from simulator.faults import parse_line_faults
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.scenarios import SCENARIOS, RunningScenario, machine_of
from simulator.target import KdTarget, Stop

__all__ = ["NoisyDump", "found_over_a_good_line", "noisy_dump"]

_PATIENCE = 3600.0
"""Seconds of virtual time: what does not end by then hangs."""
_FEW_BITS = 4
"""Of a page, of which others, in the head of its reply too, may have made up in the sum."""
_LONGEST_REPLY = 3944
"""Bytes of one reply, within which what one error adds to the sum another takes."""


@dataclass(frozen=True)
class NoisyDump:
    """What came home."""

    pages: int
    wrong: tuple[int, ...]
    """Frames whose bytes are not those of the memory."""
    unseen: tuple[int, ...]
    """Those of them with errors that a reply's sum does not tell (kd-protocol 1.5): few, or such as cancel in it."""
    seconds: float
    received: int
    discarded: int
    """Bytes that were thrown away, for whatever reason."""


@functools.cache
def _kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=16 << 20, processors=1))


def _line(faults: str) -> SimTransport:
    kernel = _kernel()
    target = KdTarget(machine_of(kernel), KdcomLink(Role.TARGET, LinkTimers(tries=20)))
    target.script.append(Stop(again=True))
    running = RunningScenario(SCENARIOS["bugcheck"], kernel, target, kernel.image)
    return SimTransport(f"sim:bugcheck?fault={faults}", running, None, parse_line_faults(faults))


def found_over_a_good_line() -> Target:
    """What discovery finds there."""

    async def find() -> Target:
        async with open_target("sim:bugcheck", transport=_line("seed=1")) as opened:
            return await opened.discover()

    return trio.run(find)


@functools.cache
def _filled() -> list[int]:
    image = _kernel().image
    return [pfn for pfn in image.runs.pages() if any(image.read_page(pfn) or b"")]


def _pages(seed: int, count: int) -> PageRuns:
    """Some runs of pages, each beginning with one that has something in it."""
    draw = random.Random(f"noisy {seed}")
    chosen = PageRuns()
    while chosen.page_count < count:
        first = draw.choice(_filled())
        chosen |= PageRuns([PageRun(first, draw.randint(1, 4))]) & _kernel().image.runs
    return chosen


def _bits(ours: bytes | None, true: bytes | None) -> int:
    """How many bits differ."""
    return (int.from_bytes(ours or b"") ^ int.from_bytes(true or b"")).bit_count()


def _cancelled(wrong: list[int], ours: Callable[[int], bytes | None]) -> Iterator[int]:
    """A reply may hold parts of two pages, and one byte lost and another inserted move all between them."""
    for run in PageRuns.from_pages(wrong):
        mine = b"".join(ours(pfn) or b"" for pfn in range(run.base_page, run.end_page))
        true = b"".join(_kernel().image.read_page(pfn) or b"" for pfn in range(run.base_page, run.end_page))
        begun = off = 0
        for at, (one, other) in enumerate(zip(mine, true, strict=True)):
            begun = begun if off else at
            off += one - other
            if off and at - begun >= _LONGEST_REPLY:
                break
        if not off:
            yield from range(run.base_page, run.end_page)


async def noisy_dump(
    folder: Path,
    faults: str,
    seed: int,
    *,
    found: Target | None,
    pages: int = 16,
    share: float = 0.0,
    automatic: bool = True,
) -> NoisyDump:
    """Take over the machine, bring the pages home, write a complete dump of them, compare it.

    `found` is what discovery has found; None: it is found out over this line. `share` of the pages is read twice; if it
    is `automatic`, all of them once the line turns out to be one on which that is better.
    """
    runs = _pages(seed, pages)
    line = _line(faults)
    began = trio.current_time()

    async def plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
        yield PlannedPages(runs, "some of the memory", runs.page_count)

    with trio.fail_after(_PATIENCE):
        async with open_target(line.url, transport=line, wait=600.0) as opened:
            target = replace(found or await opened.discover(), runs=runs)
            await opened.adopt(target)
            engine = opened.session.engine
            with Snapshot.create(folder / f"{seed}.kdsnap", target) as snapshot:
                await opened.fill(snapshot, plan, twice=ReadTwice(share, automatic=automatic))
                await render(snapshot, target, folder / f"{seed}.dmp")
    image = _kernel().image
    with DumpFile(folder / f"{seed}.dmp") as dump:
        wrong = [pfn for pfn in runs.pages() if dump.page(pfn) != image.read_page(pfn)]
        few = {pfn for pfn in wrong if _bits(dump.page(pfn), image.read_page(pfn)) <= _FEW_BITS}
        unseen = sorted(few.union(_cancelled(wrong, dump.page)))
        size = sum(len(dump.page(pfn) or b"") for pfn in runs.pages())
    assert size == runs.page_count * PAGE_SIZE, "nothing is missing"
    discarded = sum(engine.discards.values())
    seconds = trio.current_time() - began
    return NoisyDump(runs.page_count, tuple(wrong), tuple(unseen), seconds, engine.bytes_received, discarded)
