"""The bug check in words, and what each of its parameters points to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdbridge.discovery.notes import try_read, try_read_pointer
from kdbridge.plan.threads import LARGEST_STACK, working
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.arch import Architecture, architecture_of
from protocol.bugcheck import ParameterKind, bug_check, describe, parameters_of

from .model import BugCheckFact, ParameterFact, Place, ProcessFact
from .names import Names
from .objects import DriverOf, driver_of

__all__ = ["POINTERS", "Regions", "bug_check_fact", "kinds_of", "with_processes"]

POINTERS = frozenset(
    {
        ParameterKind.ADDRESS, ParameterKind.CODE_ADDRESS, ParameterKind.PTE, ParameterKind.EXCEPTION_RECORD,
        ParameterKind.CONTEXT_RECORD, ParameterKind.TRAP_FRAME, ParameterKind.THREAD, ParameterKind.PROCESS,
        ParameterKind.OBJECT, ParameterKind.DEVICE_OBJECT, ParameterKind.DRIVER_OBJECT, ParameterKind.IRP,
        ParameterKind.MDL, ParameterKind.UNICODE_STRING,
    }
)  # fmt: skip
"""Kinds that are virtual addresses."""
_MAYBE_POINTERS = frozenset({ParameterKind.RESERVED, ParameterKind.VALUE})
"""Kinds that may be anything: told where they point to only if that is an image or something else well known."""
_MAYBE_THREADS = frozenset({ParameterKind.THREAD, ParameterKind.OBJECT, *_MAYBE_POINTERS})
_DRIVERS_OBJECTS = frozenset({ParameterKind.IRP, ParameterKind.DEVICE_OBJECT, ParameterKind.DRIVER_OBJECT})
_NULL_PAGE = 0x10000
_PRCB = 0x700
"""Of a KPRCB whose size the KDBG does not tell."""


def kinds_of(target: Target) -> tuple[tuple[ParameterKind, int], ...]:
    """Kind and value of each of the four parameters; empty without a bug check."""
    if not target.bug_check_code:
        return ()
    values = target.bug_check_parameters
    meanings = parameters_of(bug_check(target.bug_check_code), values)
    return tuple(zip((one.kind for one in meanings), values, strict=True))


async def bug_check_fact(source: Source, target: Target, names: Names) -> BugCheckFact | None:
    """None where there was no bug check, or nobody knows."""
    code = target.bug_check_code
    if not code:
        return None
    words = describe(code, target.bug_check_parameters)
    regions = Regions(source, target)
    facts: list[ParameterFact] = []
    for number, ((kind, value), line) in enumerate(zip(kinds_of(target), words.parameters, strict=True), 1):
        place: Place | None = None
        region = ""
        if kind in POINTERS or kind in _MAYBE_POINTERS:
            found = await names.place(value)
            place = found if found.module else None
            # The KPRCB of the first processor may lie in the kernel's image.
            region = regions.processors_own(value) if place is not None else ""
            if place is None:
                region = await regions.of(value, surely=kind in POINTERS, thread=kind in _MAYBE_THREADS)
            owner = await driver_of(source, target, kind, value) if kind in _DRIVERS_OBJECTS else ""
            if isinstance(owner, DriverOf):
                region = owner.words
        facts.append(ParameterFact(number, value, line, kind.value, place, region))
    return BugCheckFact(words.code, words.name, words.meaning, tuple(facts))


def with_processes(fact: BugCheckFact, processes: Sequence[ProcessFact]) -> BugCheckFact:
    """Parameters that are one of these processes say which."""
    known = {one.address: one for one in processes}
    parameters = [
        replace(one, region=f"process {known[one.value].name or 'without a name'}, id {known[one.value].process_id}")
        if one.value in known and one.place is None
        else one
        for one in fact.parameters
    ]
    return replace(fact, parameters=tuple(parameters))


class Regions:
    """What an address is that lies in no image, as far as that is sure."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source = source
        self._target = target
        self._architecture = architecture_of(target.version.machine_type)

    async def of(self, address: int, *, surely: bool, thread: bool) -> str:
        """In words. `surely`: it is an address; else it may be any number, and most of what can be said is left out.

        `thread`: it may be a thread's; to look for that costs a read for each processor.
        """
        architecture = self._architecture
        if architecture is None:
            return ""
        if not architecture.paging.is_canonical(address):
            return "not canonical: no address at all" if surely else ""
        if not architecture.is_kernel_address(address):
            return self._low(address) if surely else ""
        known = self.processors_own(address) or await self._on_stack(architecture, address)
        if thread and not known:
            known = await self._current_thread(address)
        if known or not surely:
            return known
        if await try_read(self._source, address, 1) is None:
            return "kernel memory that cannot be read: not mapped, or not brought home"
        return "kernel memory"

    @staticmethod
    def _low(address: int) -> str:
        if not address:
            return "null"
        return "near null: a null pointer and an offset" if address < _NULL_PAGE else "user memory"

    def processors_own(self, address: int) -> str:
        """Whose KPRCB an address lies in, in words; empty: in nobody's."""
        block = self._target.kdbg.block if self._target.kdbg is not None else None
        size = (block["size_prcb"] if block is not None else 0) or _PRCB
        for one in self._target.processors:
            if one.prcb is not None and one.prcb <= address < one.prcb + size:
                return f"the KPRCB of processor {one.number}"
        return ""

    async def _on_stack(self, architecture: Architecture, address: int) -> str:
        """Only stacks that lie near are looked at: each costs a few reads."""
        for one in self._target.processors:
            if one.context is None or abs(address - one.context[architecture.stack_pointer]) > LARGEST_STACK:
                continue
            found = await working(self._source, self._target, one)
            stack = found.stack
            if stack is not None and stack.address <= address < stack.address + stack.size:
                return f"the stack of processor {one.number}'s thread"
        return ""

    async def _current_thread(self, address: int) -> str:
        block = self._target.kdbg.block if self._target.kdbg is not None else None
        width = self._target.pointer_size
        if block is None:
            return ""
        for one in self._target.processors:
            if one.prcb is None:
                continue
            found = await try_read_pointer(self._source, one.prcb + block["offset_prcb_current_thread"], width)
            if found == address & (1 << 8 * width) - 1:
                return f"the thread that processor {one.number} runs"
        return ""
