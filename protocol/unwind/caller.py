"""Where a function's caller left its registers: prologs undone, epilogs carried on. Arithmetic over unwind data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .info import UnwindInfo, UnwindOperation

__all__ = ["RSP", "CallerPlaces", "finish_epilog", "undo_prolog"]

RSP = 4
"""Its number."""

_MASK = (1 << 64) - 1


@dataclass(slots=True)
class CallerPlaces:
    """Addresses on the stack at which a debugger finds what the caller had."""

    return_slot: int
    """Of the return address, or of the machine frame's rip."""
    machine_frame: bool = False
    """The processor pushed rip, cs, rflags, rsp and ss there."""
    saved: dict[int, int] = field(default_factory=dict)
    """Register number to the address of its value; what is not here the function left alone."""


def undo_prolog(parts: Iterable[tuple[UnwindInfo, int | None]], registers: Sequence[int | None]) -> CallerPlaces | None:
    """Undo what the prolog did until now. `parts` are the unwind data and those it is chained to.

    With each goes the offset of the program counter in its part; None where all of the prolog was executed.
    `registers` are the sixteen by number, None where not known. The result is None where one is needed that is not.
    """
    places = CallerPlaces(registers[RSP] or 0)
    base: int | None = None
    for info, inside in parts:
        frame = registers[info.frame_register] if info.frame_register not in places.saved else None
        fixed = None if frame is None else frame - info.frame_offset & _MASK
        if base is None:
            base = fixed if _frame_is_set(info, inside) else places.return_slot
            if base is None:
                return None
        for code in info.codes:
            if inside is not None and code.offset > inside:
                continue
            match code.operation:
                case UnwindOperation.PUSH_NONVOL:
                    places.saved[code.info] = places.return_slot
                    places.return_slot += 8
                case UnwindOperation.ALLOC_LARGE | UnwindOperation.ALLOC_SMALL:
                    places.return_slot += code.operand
                case UnwindOperation.SET_FPREG:
                    if fixed is None:
                        return None
                    places.return_slot = fixed
                case UnwindOperation.SAVE_NONVOL | UnwindOperation.SAVE_NONVOL_FAR:
                    places.saved[code.info] = base + code.operand & _MASK
                case UnwindOperation.PUSH_MACHFRAME:
                    places.return_slot += 8 * (code.info & 1)
                    return _finished(places, machine_frame=True)
                case _:
                    pass  # vector registers, and what only epilogs need
    return _finished(places)


def finish_epilog(parts: Iterable[UnwindInfo], offset: int, stack_pointer: int) -> CallerPlaces:
    """What the rest of an epilog of version 2 will do, from `offset` bytes into it on: pops, and the return."""
    places = CallerPlaces(stack_pointer)
    at, popping = 0, False
    for info in parts:
        for code in info.codes:
            if code.operation is UnwindOperation.PUSH_NONVOL:
                popping = True
                if at >= offset:
                    places.saved[code.info] = places.return_slot
                    places.return_slot += 8
                at += 2 if code.info >= 8 else 1
            elif code.operation is UnwindOperation.ALLOC_SMALL and code.operand == 8 and popping:
                if at >= offset:  # a pop into a register that does not matter
                    places.return_slot += 8
                at += 1
            elif code.operation is UnwindOperation.PUSH_MACHFRAME:
                places.return_slot += 8 * (code.info & 1)
                return _finished(places, machine_frame=True)
    return _finished(places)


def _frame_is_set(info: UnwindInfo, inside: int | None) -> bool:
    """Whether the frame register points into the frame already, so that saves are found from it."""
    if not info.frame_register:
        return False
    if inside is None or inside >= info.prolog_size or info.chained is not None:
        return True
    return any(code.operation is UnwindOperation.SET_FPREG and code.offset <= inside for code in info.codes)


def _finished(places: CallerPlaces, *, machine_frame: bool = False) -> CallerPlaces:
    places.machine_frame = machine_frame
    places.return_slot &= _MASK
    places.saved = {register: place & _MASK for register, place in places.saved.items()}
    places.saved.pop(RSP, None)  # where rsp was is known without it
    return places
