"""Which processor stopped the machine."""

from __future__ import annotations

from kdbridge.target import Processor, Target
from protocol.arch import architecture_of

__all__ = ["by_number", "stopped_processor"]

_NEAR = 0x6000
"""A kernel stack has so many bytes: a CONTEXT so far above a stack pointer lies on that stack."""


def by_number(target: Target, number: int) -> Processor | None:
    """A processor; None where discovery found none of this number."""
    return next((one for one in target.processors if one.number == number), None)


def stopped_processor(target: Target) -> int:
    """The processor that stopped the machine, by the first of these that tells one.

    What the stop says, if that processor stands where the stop says it does (the number may be garbage); the one that
    stands at DbgBreakPointWithStatus; the one on whose stack KeBugCheckEx kept its caller's registers; what the stop
    says; the first.
    """
    architecture = architecture_of(target.version.machine_type)
    stop, block = target.stop, target.kdbg.block if target.kdbg is not None else None
    if architecture is not None:
        standing = {
            one.number: one.context[architecture.program_counter]
            for one in target.processors
            if one.context is not None
        }
        if stop is not None and standing.get(stop.processor) == stop.program_counter:
            return stop.processor
        places = [stop.program_counter] if stop is not None else []
        if block is not None and block["breakpoint_with_status"]:
            places.append(block["breakpoint_with_status"])
        for place in places:
            there = [number for number, at in standing.items() if at == place]
            if len(there) == 1:
                return there[0]
        saved = block["saved_context"] if block is not None else 0
        for one in target.processors:
            if saved and one.context is not None and 0 <= saved - one.context[architecture.stack_pointer] < _NEAR:
                return one.number
    if stop is not None and by_number(target, stop.processor) is not None:
        return stop.processor
    return target.processors[0].number if target.processors else 0
