"""Reading on a noisy line: what the adaptive read size brings home, against the best of fixed sizes (virtual time)."""

from __future__ import annotations

import statistics

import trio
import trio.testing

from kdbridge.opening import open_target
from kdbridge.read_size import ReadSize
from kdbridge.transports.sim import open_sim
from protocol.address import PAGE_SIZE, PageRun, PageRuns

__all__ = ["BAUD", "FIXED", "RATES", "noise", "share"]

BAUD = 115200
RATES = (0.0, 1e-6, 1e-5, 1e-4)
FIXED = (3944, 2048, 1024, 512, 256, 128)
_PAGES = {0.0: 100, 1e-6: 400, 1e-5: 200, 1e-4: 60}
_SEEDS = {0.0: 1, 1e-6: 1, 1e-5: 2, 1e-4: 8}
# Timers that run out for seconds make a few pages a lottery: many lines are looked at where that is frequent.
_HOPELESS = 1.0
"""Sizes of which nearly every reply has more errors than this are left out: they come home once in an hour."""


class _Fixed(ReadSize):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.ceiling = size

    def answered(self, size: int, received: int, damaged: int, seconds: float) -> None:
        """Learns nothing."""

    def unanswered(self, size: int, received: int, damaged: int) -> None:
        """Learns nothing."""


async def _read(rate: float, seed: int, size: int | None, pages: int) -> tuple[float, int]:
    options = {"baud": str(BAUD), "memory": "16M", "processors": "1", "fault": f"flip={rate},seed={seed}"}
    transport = open_sim("sim:bugcheck", "bugcheck", options)
    image = transport.running.kernel.image
    async with open_target("sim:bugcheck", transport=transport, wait=600) as target:
        assert target.physical is not None
        wrong = 0
        await target.discover()
        if size is not None:
            target.session.engine.read_size = _Fixed(size)
        start = trio.current_time()
        async for page in target.physical.read_pages(PageRuns([PageRun(0x400, pages)])):
            wrong += page.data != image.read_page(page.pfn)
        return pages * PAGE_SIZE / ((trio.current_time() - start) * BAUD / 10), wrong


def share(rate: float, seed: int, size: int | None = None, pages: int | None = None) -> tuple[float, int]:
    """Payload against what the line can carry, at this bit error rate, and pages that came wrong. No size: adaptive."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_read, rate, seed, size, pages or _PAGES[rate], clock=clock)


def _mean(rate: float, size: int | None = None) -> float:
    return statistics.mean(share(rate, seed, size)[0] for seed in range(1, _SEEDS[rate] + 1))


def _around_the_best(rate: float) -> dict[int, float]:
    """Fixed sizes, from large to small, to the first that brings less home: beyond it all do (`payload_share`)."""
    found: dict[int, float] = {}
    for size in FIXED:
        if size * 8 * rate < _HOPELESS:
            best = max(found.values(), default=0.0)
            found[size] = _mean(rate, size)
            if found[size] < best:
                break
    return found


def noise() -> None:
    """The table: adaptive against fixed sizes."""
    for rate in RATES:
        adaptive, fixed = _mean(rate), _around_the_best(rate)
        best = max(fixed, key=lambda size: fixed[size])
        shown = ", ".join(f"{size}: {value:.3f}" for size, value in fixed.items())
        what = f"line of {BAUD} baud, {f'1 bit in {1 / rate:,.0f} wrong' if rate else 'clean'}"
        print(f"{what}: {adaptive:.3f} of what it can carry is payload, {adaptive / fixed[best]:.2f} of the best fixed "
              f"size ({best}; goal 0.95; {shown})", flush=True)  # fmt: skip
