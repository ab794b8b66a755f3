"""Nine bug checks with their real parameter conventions: the analysis names the driver that is guilty in truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.model import Analysis, Certainty
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from simulator.crashes import CRASHES
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=32 << 20, content_size=0, processors=2, stopped_processor=1)

_ORIGIN = {
    0x0A: "the trap frame at",
    0xD1: "the trap frame at",
    0x1E: "the trap frame at",
    0x50: "the trap frame at",
    0x3B: "the CONTEXT that parameter 3 points to",
    0x7E: "the CONTEXT that parameter 4 points to",
    0x139: "the trap frame that parameter 2 points to",
    0x9F: "the CONTEXT that KeBugCheckEx kept of its caller",
    0xEF: "the CONTEXT that KeBugCheckEx kept of its caller",
}
"""kd-protocol 7.5: which registers are the best for each."""

_GUILTY = {
    0x0A: ("third party on the stack", "mydrv!TellOwner"),
    0xD1: ("faulting instruction", "mydrv!ReadBuffer"),
    0x1E: ("faulting instruction", "mydrv!AverageDepth"),
    0x50: ("faulting instruction", "mydrv!ReadBuffer"),
    0x3B: ("faulting instruction", "mydrv!ReadBuffer"),
    0x7E: ("faulting instruction", "mydrv!ReadBuffer"),
    0x139: ("faulting instruction", "mydrv!UnlinkEntry"),
    0x9F: ("named object", "mydrv!DispatchPower"),
    0xEF: ("third party on the stack", "mydrv!StopOwner"),
}
"""By which rule, and in which function of it."""


def _machine(code: int, **more: object) -> SimulatedKernel:
    return build_kernel(replace(_SMALL, bug_check=BugCheck(code), **more))  # type: ignore[arg-type]


async def _first(kernel: SimulatedKernel) -> Analysis:
    source = ReadOnce(SimulatedSource(kernel))
    return await Analyst(source, await discover(source)).first()


def test_these_are_all_there_are() -> None:
    assert set(CRASHES) == set(_ORIGIN) == set(_GUILTY)


@pytest.mark.parametrize("code", sorted(_GUILTY), ids=lambda code: f"{code:X}")
async def test_driver_and_instruction(code: int) -> None:
    kernel = _machine(code)
    found = await _first(kernel)
    assert found.crash is not None and found.crash.origin.startswith(_ORIGIN[code])
    assert found.crash.passed_over == () and found.crash.better_than_break
    if kernel.crash_site:
        assert found.crash.context["rip"] == kernel.crash_site
        instruction = found.crash.instructions[0]
        assert instruction.address == kernel.crash_site
        assert instruction.data == kernel.read_virtual(kernel.crash_site, len(instruction.data))
    rule, function = _GUILTY[code]
    assert found.suspect is not None
    assert (found.suspect.module, found.suspect.rule) == (kernel.guilty, rule)
    # Its version resource says whose it is.
    assert found.suspect.certainty is (Certainty.CERTAIN if rule == "faulting instruction" else Certainty.LIKELY)
    inside = found.suspect.place.address - kernel.symbols[function]
    following = min((at for at in kernel.symbols.values() if at > kernel.symbols[function]), default=1 << 64)
    assert 0 <= inside < following - kernel.symbols[function]
    assert found.bucket == (
        f"{code:X}_" + (f"{kernel.bug_check[1]:X}_" if code in (0x139, 0x9F) else "")
        + f"mydrv+{found.suspect.place.offset:x}"
    )  # fmt: skip


@pytest.mark.parametrize("code", [0x0A, 0xD1, 0x50, 0x3B, 0x7E])
async def test_the_memory_that_could_not_be_touched(code: int) -> None:
    kernel = _machine(code)
    found = await _first(kernel)
    fault = kernel.processors[1].special_values["cr2"]
    assert found.crash is not None
    (operand,) = found.crash.instructions[0].operands
    assert (operand.address, operand.access, operand.content) == (fault, "read", None)
    if code in (0x3B, 0x7E):
        assert found.crash.exception is not None
        assert (found.crash.exception.code, found.crash.exception.place.address) == (0xC0000005, kernel.crash_site)


async def test_exceptions_in_words() -> None:
    words = {}
    for code in (0x7E, 0x139, 0x1E):
        crash = (await _first(_machine(code))).crash
        assert crash is not None and crash.exception is not None
        words[code] = crash.exception.words
    assert words[0x7E].startswith("STATUS_ACCESS_VIOLATION: it read ffffa70f`")
    assert words[0x139].startswith("STATUS_STACK_BUFFER_OVERRUN: fast fail 0x3: A doubly linked list is corrupt")
    assert words[0x1E] == "STATUS_INTEGER_DIVIDE_BY_ZERO: integer division by zero"


async def test_the_driver_of_each_object_is_named() -> None:
    found = (await _first(_machine(0x9F))).bug_check
    assert found is not None
    assert found.parameters[1].region == "a device object of \\Driver\\ACPI"
    assert found.parameters[3].region == "an IRP (IRP_MJ_POWER) that is held by a device of \\Driver\\mydrv"


async def test_the_process_that_died_is_named() -> None:
    kernel = _machine(0xEF)
    source = ReadOnce(SimulatedSource(kernel))
    found = (await Analyst(source, await discover(source)).all()).bug_check
    (process,) = [one for one in kernel.processes if one.address == kernel.bug_check[1]]
    assert found is not None and found.parameters[0].region == f"process {process.name}, id {process.process_id}"


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(_GUILTY), ids=lambda code: f"{code:X}")
async def test_on_other_machines(code: int) -> None:
    for seed in (2, 3):
        for build in (7601, 9600, 22621):
            for driver in ("mydrv", "labflt"):
                kernel = _machine(code, seed=seed, build=build, guilty_driver=driver)
                found = await _first(kernel)
                assert found.suspect is not None and found.suspect.module == driver == kernel.guilty, (seed, build)
                if kernel.crash_site:
                    assert found.crash is not None and found.crash.context["rip"] == kernel.crash_site, (seed, build)
