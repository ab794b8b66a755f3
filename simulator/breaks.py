"""How a running machine comes to a stop: its registers and memory when a debugger breaks in, or when it crashes."""

from __future__ import annotations

from collections.abc import Callable

from protocol.arch import AMD64

from .kernel import SimulatedKernel
from .machine import Machine

__all__ = ["CONTROL_C", "FINAL_BREAK", "broken_in", "crashed_on_request", "first_break", "last_break"]

CONTROL_C, FINAL_BREAK = 1, 4
"""DBG_STATUS_CONTROL_C and DBG_STATUS_BUGCHECK_SECOND (kd-protocol 7.1)."""

_MANUALLY_INITIATED_CRASH = 0xE2


def broken_in(kernel: SimulatedKernel) -> Callable[[Machine], None]:
    """A break-in: the processor stands on the int3 of DbgBreakPointWithStatus, status 1 (kd-protocol 1.11)."""
    return lambda machine: _stand(kernel, machine, CONTROL_C)


def first_break(kernel: SimulatedKernel) -> Callable[[Machine], None]:
    """The first break of a bug check: the processor stands as it was made, status 3, whatever broke in before."""

    def stand(machine: Machine) -> None:
        processor = machine.stopped_processor
        processor.context = kernel.processors[processor.number].context()

    return stand


def last_break(kernel: SimulatedKernel) -> Callable[[Machine], None]:
    """The final break of a bug check: same place, status 4 (kd-protocol 7.2). A continue leads to it again."""
    return lambda machine: _stand(kernel, machine, FINAL_BREAK)


def crashed_on_request(kernel: SimulatedKernel) -> Callable[[Machine], None]:
    """The final break of bug check E2, which the debugger asked for: no parameters (kd-protocol 3.18)."""

    def crash(machine: Machine) -> None:
        data = b"".join(value.to_bytes(8, "little") for value in (_MANUALLY_INITIATED_CRASH, 0, 0, 0, 0))
        machine.write_virtual(kernel.symbols["KiBugCheckData"], data)
        _stand(kernel, machine, FINAL_BREAK)

    return crash


def _stand(kernel: SimulatedKernel, machine: Machine, status: int) -> None:
    """Put the stopped processor on the int3, as if what it was doing had called the function."""
    processor = machine.stopped_processor
    place = kernel.symbols["DbgBreakPointWithStatus"]
    context = AMD64.context.decode(processor.context)
    # On the int3 or behind it, it never left: what it does is told by the frames below, which stay.
    if context["rip"] not in (place, place + len(AMD64.break_instruction)):
        stack = context["rsp"] - 8
        if machine.write_virtual(stack, context["rip"].to_bytes(8, "little")) == 8:
            processor.set(rsp=stack)
    processor.set(rip=place, rcx=status)
