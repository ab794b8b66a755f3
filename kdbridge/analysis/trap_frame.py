"""What a trap frame does not hold: the non-volatile registers, which the frames between it and the break have saved."""

from __future__ import annotations

from kdbridge.source import Source
from protocol.arch import Architecture, MachineType
from protocol.structure import Structure
from protocol.unwind.info import REGISTERS

from . import unwinder as unwinding
from .model import Trust
from .names import Names
from .registers import Registers
from .scan import Scanner
from .unwind_data import UnwindTables

__all__ = ["complete"]

_MOST_STEPS = 32
_NOT_SAVED = frozenset({"rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "rsp"})
"""What a caller does not get back from a function that it called."""


async def complete(
    source: Source, names: Names, architecture: Architecture, inner: Structure, trapped: Registers
) -> Registers:
    """The registers of a trap frame, with those that unwinding from `inner` to the trap gives back (x64).

    `inner` are the registers of the processor that took the trap, at some moment after it. Only unwind data are
    believed for this: with a guess on the way, nothing is added.
    """
    if architecture.machine_type is not MachineType.AMD64 or "rip" not in inner.values:
        return trapped
    tables = UnwindTables(source)
    unwinder = unwinding.Unwinder(source, names, tables, Scanner(source, names, tables))
    at = unwinding.Registers(inner["rip"], tuple(inner[name] for name in REGISTERS))
    trust, last = Trust.REGISTERS, 0
    for _ in range(_MOST_STEPS):
        try:
            step = await unwinder.step(at, exact=trust in (Trust.REGISTERS, Trust.MACHINE_FRAME))
        except (unwinding.CannotUnwindError, unwinding.StackUnreadableError):
            return trapped
        at, trust = step.registers, step.trust
        if trust.guessed or (at.rsp <= last and trust is not Trust.MACHINE_FRAME):
            return trapped
        last = at.rsp
        if trust is Trust.MACHINE_FRAME and (at.rip, at.rsp) == (trapped.context["rip"], trapped.context["rsp"]):
            saved = {
                name: value
                for name, value in zip(REGISTERS, at.values, strict=True)
                if value is not None and name not in _NOT_SAVED and name not in trapped.known
            }
            data = architecture.context.encode(saved, trapped.context.raw)
            return Registers(architecture.context.decode(data), trapped.known | saved.keys())
    return trapped
