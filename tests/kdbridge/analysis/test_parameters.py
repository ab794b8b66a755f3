"""What a bug check's parameters point to, by the simulated machine's own truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.analysis.model import ParameterFact
from kdbridge.analysis.names import Names
from kdbridge.analysis.parameters import bug_check_fact, kinds_of
from kdbridge.discovery import discover
from kdbridge.target import Target
from protocol.bugcheck import ParameterKind
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=32 << 20, content_size=0, processors=3, stopped_processor=1))


async def _fact(kernel: SimulatedKernel, code: int, *values: int) -> tuple[ParameterFact, ...]:
    source = SimulatedSource(kernel)
    target = await discover(source)
    one, two, three, four = (*values, *[0] * (4 - len(values)))
    target = replace(target, bug_check_code=code, bug_check_parameters=(one, two, three, four))
    found = await bug_check_fact(source, target, Names(target.modules, (), kernel.kernel_base))
    assert found is not None
    return found.parameters


async def test_code_of_a_driver(kernel: SimulatedKernel) -> None:
    place = kernel.symbols["mydrv!ReadBuffer"]
    found = await _fact(kernel, 0xD1, 0x10, 2, 8, place)
    (driver,) = [one for one in kernel.modules if one.name == "mydrv"]
    assert found[3].place is not None and str(found[3].place) == f"mydrv+{place - driver.base:#x}"
    assert [one.region for one in found] == ["near null: a null pointer and an offset", "", "", ""]
    assert [one.kind for one in found] == ["address", "IRQL", ParameterKind.ACCESS.value, "code address"]
    assert found[1].words == "2 (DISPATCH_LEVEL)  at the time"
    assert "execute" in found[2].words


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_processor_s_own(kernel: SimulatedKernel, number: int) -> None:
    processor = kernel.processors[number]
    found = await _fact(kernel, 0xDEADBEEF, processor.prcb + 0x20, processor.stack_base - 0x10, processor.thread)
    assert [one.region for one in found] == [
        f"the KPRCB of processor {number}",
        f"the stack of processor {number}'s thread",
        f"the thread that processor {number} runs",
        "",
    ]


@pytest.mark.parametrize(
    ("value", "region"),
    [
        (0, "null"),
        (0x7FF6_12340000, "user memory"),
        (0x4141414141414141, "not canonical: no address at all"),
        (0xFFFF8000_00000000, "kernel memory that cannot be read: not mapped, or not brought home"),
        (0xFFFFF780_00000000, "kernel memory"),
    ],
)
async def test_other_addresses(kernel: SimulatedKernel, value: int, region: str) -> None:
    assert (await _fact(kernel, 0x0A, value))[0].region == region
    # Of a number that need not be an address, nothing of this is said.
    assert (await _fact(kernel, 0xDEADBEEF, value))[0].region == ""


async def test_subcases_have_kinds_of_their_own(kernel: SimulatedKernel) -> None:
    target = replace(await discover(SimulatedSource(kernel)), bug_check_code=0x9F, bug_check_parameters=(3, 1, 2, 4))
    kinds = [kind for kind, _ in kinds_of(target)]
    assert kinds[0] is ParameterKind.SUBCODE and kinds[3] is ParameterKind.IRP


async def test_no_bug_check(kernel: SimulatedKernel) -> None:
    source = SimulatedSource(kernel)
    target: Target = await discover(source)
    for code in (None, 0):
        none = replace(target, bug_check_code=code)
        assert kinds_of(none) == ()
        assert await bug_check_fact(source, none, Names((), ())) is None
