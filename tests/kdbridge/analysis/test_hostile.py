"""An analysis of memory that was damaged in every way by lot: it ends soon, and raises nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from protocol.address import VirtualAddress
from simulator.crashes import CRASHES
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_CODES = (*sorted(CRASHES), 0x8E, 0x1000007E, 0xC4)
_MOST_READ = 8 << 20


class _Damaged(SimulatedSource):
    """Every eighth read brings something else: noise, pointers into the kernel, a hole, or all ones."""

    def __init__(self, kernel: SimulatedKernel, seed: int) -> None:
        super().__init__(kernel)
        rng = random.Random(seed)
        plain = self._virtual.read
        rate = rng.choice((2, 8, 64))

        async def read(address: VirtualAddress, size: int) -> bytes:
            data = await plain(address, size)
            if rng.randrange(rate):
                return data
            match rng.randrange(5):
                case 0:
                    return rng.randbytes(size)
                case 1:
                    raise MemoryFault("a hole", address=address, size=size, done=0, virtual=True)
                case 2:
                    return b"\xff" * size
                case 3:
                    pool = [*kernel.symbols.values(), address, address + 8, 0, (1 << 64) - 1]
                    return b"".join(rng.choice(pool).to_bytes(8, "little") for _ in range(size // 8 + 1))[:size]
                case _:
                    at = rng.randrange(size)
                    return data[:at] + rng.randbytes(1) + data[at + 1 :]

        self._virtual.read = read  # type: ignore[method-assign]


def _wild(rng: random.Random, kernel: SimulatedKernel) -> int:
    return rng.choice(
        (
            0,
            1,
            rng.randrange(1 << 64),
            (1 << 64) - 1,
            0xFFFFFFFF_FFFFFFF8,
            1 << 47,
            rng.choice([*kernel.symbols.values()]),
        )
    )


async def _analyse(kernel: SimulatedKernel, seed: int) -> None:
    rng = random.Random(seed)
    source: Source = _Damaged(kernel, seed)
    target = await discover(SimulatedSource(kernel))
    if rng.randrange(2):
        one, two, three, four = (_wild(rng, kernel) for _ in range(4))
        target = replace(target, bug_check_code=rng.choice(_CODES), bug_check_parameters=(one, two, three, four))
    if rng.randrange(2):
        wild = {name: _wild(rng, kernel) for name in ("rip", "rsp", "rbp", "rcx")}
        processors = [
            replace(
                processor,
                prcb=_wild(rng, kernel),
                context=replace(processor.context, values={**processor.context.values, **wild}),
            )
            for processor in target.processors
            if processor.context is not None
        ]
        target = replace(target, processors=tuple(processors))
    analyst = Analyst(ReadOnce(source), target)
    first = await analyst.first()
    assert len(first.bucket) <= 96
    found = await analyst.all()
    assert found.bytes_read <= _MOST_READ


@pytest.mark.parametrize("code", [0xD1, 0x7E, 0x9F])
async def test_damaged_memory(code: int) -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20, content_size=0, processors=2, bug_check=BugCheck(code)))
    for seed in range(6):
        await _analyse(kernel, seed)


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(CRASHES), ids=lambda code: f"{code:X}")
@pytest.mark.timeout(60)
async def test_a_lot_of_damaged_memory(code: int) -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20, content_size=0, processors=2, bug_check=BugCheck(code)))
    for seed in range(100, 120):
        await _analyse(kernel, seed)
