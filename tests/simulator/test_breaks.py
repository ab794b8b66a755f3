"""Where a processor stands when it is stopped by request: on the int3, with the status in rcx, and the way back."""

from __future__ import annotations

import pytest

from simulator.breaks import broken_in, crashed_on_request, last_break
from simulator.kernel import KernelOptions, SimulatedKernel, StopKind, build_kernel
from simulator.machine import Machine
from simulator.scenarios import machine_of
from tests.simulator.unwinder import Unwinder


def _kernel(stop: StopKind) -> SimulatedKernel:
    return build_kernel(KernelOptions(stop=stop, processors=2, memory_size=32 << 20))


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return _kernel("breakpoint")


def _registers(machine: Machine) -> dict[str, int]:
    """By offset (kd-protocol 5.2)."""
    context = machine.stopped_processor.context
    places = {"rcx": 0x80, "rbx": 0x90, "rsp": 0x98, "rbp": 0xA0, "rsi": 0xA8, "rdi": 0xB0, "r12": 0xD8, "r13": 0xE0,
              "r14": 0xE8, "r15": 0xF0, "rip": 0xF8}  # fmt: skip
    return {name: int.from_bytes(context[at : at + 8], "little") for name, at in places.items()}


def test_a_break_in_looks_like_a_call_from_where_the_machine_was(kernel: SimulatedKernel) -> None:
    machine = machine_of(kernel)
    before = _registers(machine)
    broken_in(kernel)(machine)
    after = _registers(machine)
    assert (after["rip"], after["rcx"]) == (kernel.symbols["DbgBreakPointWithStatus"], 1)
    assert {name for name in before if before[name] != after[name]} == {"rip", "rcx", "rsp"}
    images = [(module.base, module.size) for module in kernel.modules]
    frames = Unwinder(machine.read_virtual, images).walk(after)
    told = [frame.instruction for frame in kernel.processors[0].frames]
    assert [frame.rip for frame in frames[:-1]] == [after["rip"], *told]


def test_breaking_in_again_does_not_deepen_the_stack(kernel: SimulatedKernel) -> None:
    machine = machine_of(kernel)
    broken_in(kernel)(machine)
    first = _registers(machine)
    for _ in range(1000):
        machine.stopped_processor.set(rip=first["rip"] + 1)  # a debugger stepped over the int3 and continued
        broken_in(kernel)(machine)
    assert _registers(machine) == first


def test_a_machine_that_stands_there_already_is_not_touched() -> None:
    kernel = _kernel("running")
    machine = machine_of(kernel)
    before = machine.stopped_processor.context
    broken_in(kernel)(machine)
    assert machine.stopped_processor.context == before
    assert machine.memory.digest() == kernel.image.digest()


def test_the_last_break_follows_the_first_with_another_status() -> None:
    kernel = _kernel("bugcheck-first")
    machine = machine_of(kernel)
    before = _registers(machine)
    assert before["rcx"] == 3
    last_break(kernel)(machine)
    assert _registers(machine) == {**before, "rcx": 4}


def test_a_crash_on_request_is_e2_without_parameters(kernel: SimulatedKernel) -> None:
    machine = machine_of(kernel)
    crashed_on_request(kernel)(machine)
    assert machine.read_virtual(kernel.symbols["KiBugCheckData"], 40) == (0xE2).to_bytes(8, "little") + bytes(32)
    assert _registers(machine)["rcx"] == 4
