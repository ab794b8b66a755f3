"""The driver to look at first: rules in a stated order, the first that finds one decides. docs/analysis.md has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import PureWindowsPath

from kdbridge.source import Source
from kdbridge.target import Module, Target
from protocol.address import format_address
from protocol.bugcheck import ParameterKind, bug_check
from protocol.ntstatus import STATUS_BREAKPOINT, STATUS_SINGLE_STEP, STATUS_WAKE_SYSTEM_DEBUGGER

from .model import Certainty, CrashContext, ExceptionFact, Frame, Place, Stack, Suspect
from .names import Names, short_name
from .objects import DriverOf, driver_of
from .parameters import kinds_of
from .whose import Judge, Judgement, Whose

__all__ = ["RULES", "Evidence", "Rule", "suspect_of"]

_STOPS = frozenset({STATUS_BREAKPOINT, STATUS_SINGLE_STEP, STATUS_WAKE_SYSTEM_DEBUGGER})
"""Exceptions that are there to stop a machine: as long as no bug check says that nobody took them, nothing failed."""
_WARNING = 0x80000000
"""NTSTATUS values below it are successes and information; an exception with one of them (DBG_CONTROL_C) is no fault."""
_BUG_CHECK_BREAKS = frozenset({3, 4, 5})
"""What a machine that crashed gives DbgBreakPointWithStatus: a bug check's first and last break, a fatal error."""
_FAULTS = frozenset({ParameterKind.ACCESS, ParameterKind.PAGE_ACCESS, ParameterKind.EXCEPTION_CODE})
_MOST_JUDGED = 12
"""So many images of a stack are asked whose they are."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a rule may look at."""

    source: Source
    target: Target
    names: Names
    judge: Judge
    crash: CrashContext | None
    stack: Stack | None

    @property
    def fault(self) -> ExceptionFact | None:
        """The exception that nothing handled, or at which the machine stopped; None for one that is no fault."""
        exception = self.crash.exception if self.crash is not None else None
        if exception is None or self.target.bug_check_code:
            return exception
        return None if exception.code in _STOPS or exception.code < _WARNING else exception

    async def suspect(
        self, place: Place, module: Module, rule: str, why: str, certainty: Certainty, judged: Judgement
    ) -> Suspect:
        """The driver at this place, with whose it is."""
        name = short_name(await self.names.named(module), self.names.kernel)
        return Suspect(name, place, rule, f"{why}; {judged.whose.value} ({judged.because})", certainty)


_Finder = Callable[[Evidence], Awaitable[Suspect | None]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name, what it says, and how it finds a driver."""

    name: str
    text: str
    find: _Finder


async def _faulting_instruction(evidence: Evidence) -> Suspect | None:
    for place, why in await _instructions(evidence):
        module = evidence.names.image_of(place.address)
        if module is None:
            continue
        judged = await evidence.judge.of(module)
        if judged.whose in (Whose.INFRASTRUCTURE, Whose.MICROSOFT):
            continue
        certainty = Certainty.CERTAIN if judged.whose is Whose.THIRD_PARTY and judged.sure else Certainty.LIKELY
        return await evidence.suspect(place, module, "faulting instruction", why, certainty, judged)
    return None


async def _instructions(evidence: Evidence) -> list[tuple[Place, str]]:
    """Where the processor could not go on: by the crash context, by the bug check's own parameter, by the exception.

    Where the processor stands at the break is none of these: there it only stopped.
    """
    found: list[tuple[Place, str]] = []
    if evidence.crash is not None and evidence.crash.better_than_break:
        found.append((evidence.crash.place, "the instruction that failed lies in it"))
    kinds = kinds_of(evidence.target)
    if any(kind in _FAULTS for kind, _ in kinds):
        found += [
            (await evidence.names.place(value), f"parameter {number} of the bug check names an instruction in it")
            for number, (kind, value) in enumerate(kinds, 1)
            if kind is ParameterKind.CODE_ADDRESS
        ]
    if evidence.fault is not None:
        found.append((evidence.fault.place, "the exception occurred in it"))
    return found


async def _unloaded(evidence: Evidence) -> Suspect | None:
    for place, _ in await _instructions(evidence):
        if evidence.names.image_of(place.address) is not None:
            continue  # what lies there now was loaded later
        for one in evidence.target.unloaded_modules:
            if one.start <= place.address < one.end:
                name = PureWindowsPath(one.name).stem or one.name
                there = Place(place.address, name, place.address - one.start)
                why = f"{format_address(place.address)} was to be executed, where it lay before it was unloaded"
                return Suspect(name, there, "unloaded driver", why, Certainty.LIKELY)
    return None


async def _named_object(evidence: Evidence) -> Suspect | None:
    for wanted in (ParameterKind.IRP, ParameterKind.DRIVER_OBJECT, ParameterKind.DEVICE_OBJECT):
        for number, (kind, value) in enumerate(kinds_of(evidence.target), 1):
            if kind is not wanted:
                continue
            found = await driver_of(evidence.source, evidence.target, kind, value)
            module = evidence.names.image_of(found.start) if isinstance(found, DriverOf) else None
            if module is None or not isinstance(found, DriverOf):
                continue
            judged = await evidence.judge.of(module)
            if judged.whose is Whose.INFRASTRUCTURE:
                continue
            # A device object may as well be its bus driver's, which only passes on.
            guess = wanted is ParameterKind.DEVICE_OBJECT and judged.whose is not Whose.THIRD_PARTY
            certainty = Certainty.GUESS if guess else Certainty.LIKELY
            inside = found.routine if evidence.names.image_of(found.routine) is module else found.start
            place = await evidence.names.place(inside)
            why = f"parameter {number} of the bug check is {found.words}"
            return await evidence.suspect(place, module, "named object", why, certainty, judged)
    return None


async def _third_party_on_stack(evidence: Evidence) -> Suspect | None:
    for frame, module, guessed in _frames(evidence):
        judged = await evidence.judge.of(module)
        if judged.whose is Whose.THIRD_PARTY:
            certainty = Certainty.GUESS if guessed or not judged.sure else Certainty.LIKELY
            why = _on_stack(frame, "the first driver of a third party on the stack", guessed=guessed)
            return await evidence.suspect(frame.place, module, "third party on the stack", why, certainty, judged)
    return None


async def _driver_on_stack(evidence: Evidence) -> Suspect | None:
    failed = {place.address for place, _ in await _instructions(evidence)}
    for frame, module, guessed in _frames(evidence):
        judged = await evidence.judge.of(module)
        if judged.whose is Whose.INFRASTRUCTURE:
            continue
        sure = not guessed and (frame.instruction in failed or judged.whose is Whose.UNTOLD)
        certainty = Certainty.LIKELY if sure else Certainty.GUESS
        why = _on_stack(frame, "the first driver on the stack", guessed=guessed)
        return await evidence.suspect(frame.place, module, "driver on the stack", why, certainty, judged)
    return None


def _frames(evidence: Evidence) -> list[tuple[Frame, Module, bool]]:
    """The first frame of each image on the stack, innermost first; whether it, or one before it, was guessed."""
    found: list[tuple[Frame, Module, bool]] = []
    seen: set[int] = set()
    guessed = False
    for frame in evidence.stack.frames if evidence.stack is not None else ():
        guessed = guessed or frame.trust.guessed
        module = evidence.names.image_of(frame.instruction)
        if module is not None and module.base not in seen and len(seen) < _MOST_JUDGED:
            seen.add(module.base)
            found.append((frame, module, guessed))
    return found


def _on_stack(frame: Frame, what: str, *, guessed: bool) -> str:
    return f"it is {what}, at {frame.place}" + (", and that frame is a guess" if guessed else "")


async def _address_as_parameter(evidence: Evidence) -> Suspect | None:
    for number, value in enumerate(evidence.target.bug_check_parameters, 1):
        module = evidence.names.image_of(value) if evidence.target.bug_check_code else None
        if module is None:
            continue
        judged = await evidence.judge.of(module)
        if judged.whose not in (Whose.INFRASTRUCTURE, Whose.MICROSOFT):
            place = await evidence.names.place(value)
            why = f"parameter {number} of the bug check is an address in it"
            return await evidence.suspect(place, module, "address as a parameter", why, Certainty.GUESS, judged)
    return None


RULES: tuple[Rule, ...] = (
    Rule(
        "faulting instruction",
        "The instruction that failed lies in an image that is not Microsoft's. Certain where its version resource "
        "says whose it is, else likely.",
        _faulting_instruction,
    ),
    Rule(
        "unloaded driver",
        "The processor was to execute memory where no image lies, and where a driver had lain that was unloaded. "
        "Likely.",
        _unloaded,
    ),
    Rule(
        "named object",
        "A parameter of the bug check is an IRP (the driver whose turn it was), a driver object or a device object. "
        "Likely; a guess for a device object of Microsoft's, which may be that of a bus driver.",
        _named_object,
    ),
    Rule(
        "third party on the stack",
        "The first image on the stack that is a third party's, from the crash context on outwards. Likely; a guess "
        "where a frame up to it was guessed, or only the path of its file says whose it is.",
        _third_party_on_stack,
    ),
    Rule(
        "driver on the stack",
        "The first image on the stack that is not one of those that only do what others ask. Likely where the "
        "instruction that failed is in it or nobody can tell whose it is, else a guess.",
        _driver_on_stack,
    ),
    Rule(
        "address as a parameter",
        "A parameter of the bug check is an address in an image that is not Microsoft's. A guess.",
        _address_as_parameter,
    ),
)
"""In the order in which they are asked."""


async def suspect_of(evidence: Evidence) -> Suspect | None:
    """By the first rule that finds one. None: no rule does, or nothing failed."""
    if _nothing_failed(evidence):
        return None
    for rule in RULES:
        found = await rule.find(evidence)
        if found is not None:
            if evidence.target.bug_check_code is None and evidence.fault is None:
                why = f"{found.why}; but whether anything failed is not known"
                found = replace(found, why=why, certainty=Certainty.GUESS)
            return found
    return None


def _nothing_failed(evidence: Evidence) -> bool:
    """Whether somebody asked for the crash, or the machine only stopped: by a break-in, a breakpoint, a step."""
    code, status = evidence.target.bug_check_code, evidence.target.break_status
    if code:
        found = bug_check(code)
        return found is not None and found.asked_for
    if evidence.fault is not None:
        return False
    # Where the bug check cannot be read, there may have been one, unless the machine itself gives another reason.
    return code == 0 or (status is not None and status not in _BUG_CHECK_BREAKS)
