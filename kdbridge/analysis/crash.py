"""The registers of the moment that counts: the best that the bug check's parameters and the stack lead to.

Best first (kd-protocol 7.5): a CONTEXT that a parameter points to; a trap frame that a parameter points to; the trap
frame on the stack that has the instruction which a parameter names, or the address that could not be accessed; the
CONTEXT in a dump's header, where it is not the break's; what KeBugCheckEx kept of its caller; the break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kdbridge.file_facts import told_by_file
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.arch import Architecture, architecture_of
from protocol.bugcheck import ParameterKind
from protocol.dumpfile.exception import ExceptionRecord
from protocol.structure import Structure

from .exceptions import exception_fact
from .model import CrashContext
from .names import Names
from .parameters import kinds_of
from .registers import (
    Registers,
    find_trap_frame,
    known_of,
    read_context,
    read_exception_record,
    read_trap_frame,
)
from .stopped import by_number
from .trap_frame import complete

__all__ = ["crash_context"]

_BREAKPOINT = 0x80000003
_FAULTS = (ParameterKind.ACCESS, ParameterKind.PAGE_ACCESS, ParameterKind.EXCEPTION_CODE)
"""A bug check with a parameter of these kinds tells of an instruction that the processor could not carry out."""


@dataclass(slots=True)
class _Search:
    """One search for the best registers, and what it met."""

    source: Source
    target: Target
    names: Names
    architecture: Architecture
    stopped: int
    passed_over: list[str] = field(default_factory=list)

    async def best(self) -> tuple[str, bool, Registers] | None:
        """Where they come from, whether that is better than the break, and the registers."""
        for number, (kind, value) in enumerate(kinds_of(self.target), 1):
            if kind is ParameterKind.CONTEXT_RECORD and value:
                found = await read_context(self.source, self.architecture, value)
                if (taken := self._taken(f"the CONTEXT that parameter {number} points to", found)) is not None:
                    return f"{taken[0]}, at {format_address(value)}", True, taken[1]
        for number, (kind, value) in enumerate(kinds_of(self.target), 1):
            if kind is ParameterKind.TRAP_FRAME and value:
                found = await read_trap_frame(self.source, self.architecture, value)
                if (taken := self._taken(f"the trap frame that parameter {number} points to", found)) is not None:
                    return f"{taken[0]}, at {format_address(value)}", True, await self._completed(taken[1])
        return await self._on_stack() or self._in_header() or await self._saved() or self._break()

    def _taken(self, what: str, found: Registers | str) -> tuple[str, Registers] | None:
        if isinstance(found, str):
            self.passed_over.append(f"{what}: {found}")
            return None
        return what, found

    async def _completed(self, registers: Registers) -> Registers:
        """With the registers that the frames between the break and the trap have saved."""
        processor = by_number(self.target, self.stopped)
        if processor is None or processor.context is None:
            return registers
        return await complete(self.source, self.names, self.architecture, processor.context, registers)

    async def _on_stack(self) -> tuple[str, bool, Registers] | None:
        """The trap frame on the stopped processor's stack that fits what the parameters say of the fault."""
        kinds = kinds_of(self.target)
        processor = by_number(self.target, self.stopped)
        if not any(kind in _FAULTS for kind, _ in kinds) or processor is None or processor.context is None:
            return None
        start = processor.context[self.architecture.stack_pointer]
        code = next((value & 0xFFFF_FFFF for kind, value in kinds if kind is ParameterKind.EXCEPTION_CODE), 0)
        for what, value, name, wanted in self._signs(code):
            at = await find_trap_frame(self.source, self.architecture, start, wanted, value, name)
            if at is None:
                self.passed_over.append(f"a trap frame of {what}: none was found on the stack")
                continue
            found = await read_trap_frame(self.source, self.architecture, at)
            taken = self._taken("the trap frame on the stack", found)
            if taken is not None:
                origin = f"the trap frame at {format_address(at)}, on the stack, of {what}"
                return origin, True, await self._completed(taken[1])
        return None

    def _signs(self, code: int) -> list[tuple[str, int, str, Callable[[Structure], bool]]]:
        """(what, value, field of a trap frame, what else must hold), by the parameters."""
        signs: list[tuple[str, int, str, Callable[[Structure], bool]]] = []
        touched = 0
        for kind, value in kinds_of(self.target):
            if kind is ParameterKind.CODE_ADDRESS and value:
                what = f"the instruction at {format_address(value)}"
                counter = self.architecture.program_counter
                signs.append((what, value, counter, lambda _: True))
                if code == _BREAKPOINT:  # its trap frame stands behind the int3
                    signs.append((what, value + 1, counter, lambda _: True))
            elif kind is ParameterKind.ADDRESS and not touched:
                touched = value
        if not signs and touched:
            what = f"the access to {format_address(touched)}"
            signs.append((what, touched, "fault_address", self._stands_in_an_image))
        return signs

    def _stands_in_an_image(self, frame: Structure) -> bool:
        return self.names.image_of(frame[self.architecture.program_counter]) is not None

    def _in_header(self) -> tuple[str, bool, Registers] | None:
        """Windows puts the registers of the exception there; other writers repeat those of the break."""
        told = told_by_file(self.source)
        context = None if told is None else told.context
        if context is None or not self.target.bug_check_code:
            return None
        name = self.architecture.program_counter
        standing = {one.context[name] for one in self.target.processors if one.context is not None}
        if context[name] in standing:
            return None
        registers = Registers(context, known_of(self.architecture, context))
        return "the CONTEXT in the dump's header", True, registers

    async def _saved(self) -> tuple[str, bool, Registers] | None:
        """KDBG.SavedContext is the CONTEXT's own address, no variable's; 0 on many systems (Windows 10 among them)."""
        address = self.target.kdbg.block["saved_context"] if self.target.kdbg is not None else 0
        if not address or not self.target.bug_check_code:
            return None
        found = await read_context(self.source, self.architecture, address)
        taken = self._taken("the CONTEXT that KeBugCheckEx kept of its caller", found)
        return None if taken is None else (f"{taken[0]}, at {format_address(address)}", True, taken[1])

    def _break(self) -> tuple[str, bool, Registers] | None:
        processor = by_number(self.target, self.stopped)
        if processor is None or processor.context is None:
            return None
        registers = Registers(processor.context, known_of(self.architecture, processor.context))
        return f"processor {self.stopped} as it stands", False, registers


async def crash_context(source: Source, target: Target, names: Names, stopped: int) -> CrashContext | None:
    """The best registers there are, without the instructions there. None: there are none at all.

    `stopped` is the number of the processor that stopped the machine.
    """
    architecture = architecture_of(target.version.machine_type)
    if architecture is None:
        return None
    search = _Search(source, target, names, architecture, stopped)
    best = await search.best()
    if best is None:
        return None
    origin, better, registers = best
    record = await _record(source, target, architecture, search)
    place = await names.place(registers.context[architecture.program_counter])
    return CrashContext(
        origin=origin,
        better_than_break=better,
        processor=stopped,
        context=registers.context,
        known=registers.known,
        place=place,
        exception=None if record is None else await exception_fact(record, names, architecture),
        passed_over=tuple(search.passed_over),
    )


async def _record(
    source: Source, target: Target, architecture: Architecture, search: _Search
) -> ExceptionRecord | None:
    """The exception: by the record that a parameter points to, by the parameters themselves, by the stop."""
    kinds = kinds_of(target)
    for number, (kind, value) in enumerate(kinds, 1):
        if kind is ParameterKind.EXCEPTION_RECORD and value:
            found = await read_exception_record(source, architecture, value)
            if not isinstance(found, str):
                return found
            search.passed_over.append(f"the exception record that parameter {number} points to: {found}")
    code = next((value & 0xFFFF_FFFF for kind, value in kinds if kind is ParameterKind.EXCEPTION_CODE), 0)
    place = next((value for kind, value in kinds if kind is ParameterKind.CODE_ADDRESS), 0)
    if code:
        # Of bug check 1E the other two are the exception's first parameters; of others they are something else.
        plain = [value for kind, value in kinds if kind is ParameterKind.VALUE]
        parameters = tuple(plain) if len(plain) == 2 and target.bug_check_parameters[2:] == tuple(plain) else ()
        return ExceptionRecord(code, 0, 0, place, parameters)
    if not target.bug_check_code and target.stop is not None and target.stop.exception_code:
        return ExceptionRecord(target.stop.exception_code & 0xFFFF_FFFF, 0, 0, target.stop.program_counter)
    return None
