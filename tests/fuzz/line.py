"""A target that answers in good packets, and lies in them: whoever takes it over is told, and comes to an end."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from kdbridge.memory.mapped import MappedPhysicalMemory
from kdbridge.opening import OpenTarget, open_target
from kdbridge.plan import kernel_plan
from kdbridge.target_json import target_to_json
from kdbridge.transports.sim import SimTransport
from protocol.address import PageRun, VirtualAddress
from protocol.arch import AMD64
from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from protocol.manipulate import UNIONS, ApiNumber, Manipulate
from protocol.packet import PACKET_MAX_SIZE
from simulator.kernel import KernelOptions, build_kernel
from simulator.machine import Answer, Machine
from simulator.scenarios import SCENARIOS, RunningScenario, machine_of
from simulator.target import KdTarget, Stop
from tests.fuzz.driver import Target
from tests.fuzz.mutate import hostile_number, mutated

__all__ = ["LINE"]

_LONGEST = 24 * 3600.0
"""Seconds of the machine's time, of which the line takes none: beyond, somebody waits for ever."""


class _Liar:
    """A machine between a target and the truth: so many of its answers are not what they should be."""

    def __init__(self, machine: Machine, rng: random.Random) -> None:
        self.machine = machine
        self.rng = rng
        self.share = rng.choice((1, 4, 16, 64))
        self.only = rng.choice((None, None, *_ASKED))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def answer(self, request: Manipulate) -> Answer:
        answer = self.machine.answer(request)
        rng, reply = self.rng, answer.reply
        if reply is None or rng.randrange(self.share) or self.only not in (None, request.api):
            return answer
        return replace(answer, reply=self._lie(reply))

    def _lie(self, reply: Manipulate) -> Manipulate:
        rng = self.rng
        kind = rng.randrange(8)
        layout = UNIONS.get(reply.api)
        if kind <= 1 and layout is not None and layout.fields:
            # A field begins at a multiple of two: whatever stands there is written over.
            at = rng.randrange(0, 20) * 2
            width = min(rng.choice((2, 4, 8)), 40 - at)
            union = reply.union[:at] + hostile_number(rng, width).to_bytes(width, "little") + reply.union[at + width :]
            return reply._replace(union=union)
        if kind == 2:
            return reply._replace(union=mutated(rng, reply.union)[:40].ljust(40, b"\0"))
        if kind == 3:
            return reply._replace(status=rng.choice((0xC0000001, 1, 0x80000001, rng.getrandbits(32))))
        if kind == 4:
            return reply._replace(data=reply.data[: rng.randrange(len(reply.data) + 1)])
        if kind == 5:
            return reply._replace(api=rng.choice((reply.api ^ 1, rng.getrandbits(32))))
        if kind == 6:
            return reply._replace(processor=rng.getrandbits(16), processor_level=rng.getrandbits(16))
        return reply._replace(data=mutated(rng, reply.data)[: PACKET_MAX_SIZE - 56])


_ASKED = (
    ApiNumber.GET_VERSION,
    ApiNumber.READ_VIRTUAL_MEMORY,
    ApiNumber.READ_PHYSICAL_MEMORY,
    ApiNumber.READ_CONTROL_SPACE,
    ApiNumber.GET_CONTEXT,
)


def _frames(run: PageRun) -> range:
    return range(run.base_page, run.end_page)


class _Takeover:
    """The whole engine against such a target: attach, discover, walk, read. An input is the liar's seed."""

    def __init__(self) -> None:
        self.kernel = build_kernel(KernelOptions(memory_size=16 << 20, processors=2, content_size=0))

    def make(self, rng: random.Random) -> bytes:
        return rng.randbytes(8)

    def run(self, data: bytes) -> None:
        machine: Any = _Liar(machine_of(self.kernel), random.Random(data))
        target = KdTarget(machine, KdcomLink(Role.TARGET, LinkTimers(tries=20)), script=deque([Stop(again=True)]))
        way = SimTransport("sim:liar", RunningScenario(SCENARIOS["bugcheck"], self.kernel, target, self.kernel.image))
        trio.run(self._take_over, way, clock=trio.testing.MockClock(autojump_threshold=0))

    async def _take_over(self, way: SimTransport) -> None:
        with trio.fail_after(_LONGEST):
            async with open_target(way.url, transport=way) as target:
                await self._look(target)

    async def _look(self, target: OpenTarget) -> None:
        found = await target.discover()
        target_to_json(found)
        if target.physical is not None:
            async for part in kernel_plan(target, found):
                some = [PageRun(run.base_page, min(run.page_count, 2)) for run in list(part.pages)[:4]]
                pages = [read async for read in target.physical.read_pages(some)]
                assert [read.pfn for read in pages] == [
                    pfn for run in some for pfn in range(run.base_page, run.end_page)
                ]
        elif found.directory_table_base is not None:
            root, base = found.directory_table_base, self.kernel.pte_base
            await MappedPhysicalMemory.build(target.virtual, AMD64.paging, root, base, found.runs)
        for module in found.modules[:2]:
            assert len(await target.virtual.read(VirtualAddress(module.base), 0x1100)) == 0x1100


def _start(_folder: Path) -> _Takeover:
    return _Takeover()


LINE = (Target("lying-target", 1, _start),)
