"""The same findings with better names: what was named by module and offset, once exports or symbols are known."""

from __future__ import annotations

from dataclasses import replace

from .model import BugCheckFact, CrashContext, Instruction, Place, Stack, Suspect
from .names import Names

__all__ = ["renamed_bug_check", "renamed_crash", "renamed_stack", "renamed_suspect"]


async def _named(place: Place | None, names: Names) -> Place | None:
    """As `names` knows it; a place that no image holds (an unloaded driver's) stays as it is."""
    if place is None:
        return None
    found = await names.place(place.address)
    return found if found.module else place


async def _surely(place: Place, names: Names) -> Place:
    return await _named(place, names) or place


async def renamed_stack(stack: Stack, names: Names) -> Stack:
    """Every frame of it."""
    frames = [replace(frame, place=await _surely(frame.place, names)) for frame in stack.frames]
    return replace(stack, frames=tuple(frames))


async def renamed_suspect(suspect: Suspect, names: Names) -> Suspect:
    """The place of it; the module is the same."""
    return replace(suspect, place=await _surely(suspect.place, names))


async def renamed_bug_check(fact: BugCheckFact, names: Names) -> BugCheckFact:
    """What its parameters point to."""
    parameters = [replace(one, place=await _named(one.place, names)) for one in fact.parameters]
    return replace(fact, parameters=tuple(parameters))


async def renamed_crash(crash: CrashContext, names: Names) -> CrashContext:
    """Where it was, the exception, and what the instructions touch."""
    exception = crash.exception
    if exception is not None:
        exception = replace(exception, place=await _surely(exception.place, names))
    return replace(
        crash,
        place=await _surely(crash.place, names),
        exception=exception,
        instructions=tuple([await _renamed_instruction(one, names) for one in crash.instructions]),
    )


async def _renamed_instruction(one: Instruction, names: Names) -> Instruction:
    operands = [replace(operand, place=await _named(operand.place, names)) for operand in one.operands]
    return replace(one, operands=tuple(operands))
