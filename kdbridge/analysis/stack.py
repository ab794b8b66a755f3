"""The calls that led to where a processor or a thread stands: unwound where that can be, guessed and marked elsewhere.

Frames are those of WinDbg's `k`: Child-SP, RetAddr, Call Site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdbridge.plan.bug_check_data import is_kernel_address
from kdbridge.plan.threads import LARGEST_STACK, stack_of_thread, working
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, format_address
from protocol.arch import MachineType
from protocol.structure import Structure
from protocol.unwind.info import REGISTERS

from .frame_pointers import walk_arm64, walk_x86
from .model import Frame, Stack, Trust
from .names import Names
from .scan import Scanner
from .unwind_data import UnwindTables
from .unwinder import CannotUnwindError, Registers, StackUnreadableError, Step, Unwinder

__all__ = ["walk"]

_FOREIGN_STACK = 2 * PAGE_SIZE
"""Of a stack that is not the thread's so much is looked through."""
_BELOW = "below a guess"


async def walk(
    source: Source,
    target: Target,
    names: Names,
    context: Structure,
    *,
    known: frozenset[str] | None = None,
    processor: int | None = None,
    thread: int | None = None,
    most: int = 256,
) -> Stack:
    """The stack that begins with these registers, at most so many frames of it.

    `known` are the registers that `context` really holds (None: all); program counter and stack pointer always are.
    `processor` and `thread` (its address) say whose stack it is, if that is known. Never raises for what it reads.
    """
    if "rip" in context.values:
        return await _Walk(source, target, names, processor, thread, most).walk(_registers(context, known))
    if "eip" in context.values:
        frames, ended, whole = await walk_x86(source, names, context, known, most)
    elif target.version.machine_type == MachineType.ARM64:
        frames, ended, whole = await walk_arm64(source, names, context, known, most)
    else:
        frames, ended, whole = (), f"stacks of machines of type {target.version.machine_type:#x} are not known", False
    return Stack(frames, ended, whole, processor, thread)


def _registers(context: Structure, known: frozenset[str] | None) -> Registers:
    return Registers(
        context["rip"],
        tuple(context[name] if known is None or name in known or name == "rsp" else None for name in REGISTERS),
    )


@dataclass(slots=True)
class _Walk:
    """One x64 stack while it is walked."""

    source: Source
    target: Target
    names: Names
    processor: int | None
    thread: int | None
    most: int
    _guessing: bool = False
    _why: str = ""
    """Of the last guess: what is the same for the next one need not be said again."""
    _high: int | None = None
    """The thread's stack base, once it was asked for; 0 where it is not known."""

    async def walk(self, registers: Registers) -> Stack:
        """From these registers up."""
        tables = UnwindTables(self.source)
        scanner = Scanner(self.source, self.names, tables)
        unwinder = Unwinder(self.source, self.names, tables, scanner)
        frames: list[Frame] = []
        at = Step(registers, Trust.REGISTERS, exact=True)
        seen = {(registers.rip, registers.rsp)}
        ended, whole = "", False
        while not ended:
            frame = Frame(
                at.registers.rip,
                at.registers.rsp,
                0,
                await self.names.place(at.registers.rip),
                Trust.SCANNED if self._guessing else at.trust,
                at.note,
            )
            if _in_user_mode(at.registers):
                frames.append(frame)
                return self._stack(frames, f"user mode at {format_address(at.registers.rip)}", whole=True)
            try:
                step = await self._step(unwinder, scanner, at)
            except (CannotUnwindError, StackUnreadableError) as problem:
                frames.append(frame)
                return self._stack(frames, str(problem), whole=False)
            rip = step.registers.rip
            frames.append(replace(frame, return_address=rip))
            if not rip:
                ended, whole = "the thread's first call", True
            elif step.exact and not is_kernel_address(rip):
                ended, whole = f"user mode at {format_address(rip)}", True
            elif (rip, step.registers.rsp) in seen:
                ended = f"it comes back to {format_address(rip)}, where it was before"
            elif len(frames) >= self.most:
                ended = f"more than {self.most} frames were not asked for"
            seen.add((rip, step.registers.rsp))
            at = step
        return self._stack(frames, ended, whole=whole)

    def _stack(self, frames: list[Frame], ended: str, *, whole: bool) -> Stack:
        return Stack(tuple(frames), ended, whole and not self._guessing, self.processor, self.thread)

    async def _step(self, unwinder: Unwinder, scanner: Scanner, at: Step) -> Step:
        """By unwind data where that can be, else by a guess. Below a guess, what is found by data must look right."""
        frame = at.registers
        try:
            step = await unwinder.step(frame, exact=at.exact)
        except CannotUnwindError as problem:
            if problem.leaf:
                step = await unwinder.leaf(frame)
                if await scanner.behind_call(step.registers.rip):
                    return self._marked(step)
            return await self._scan(scanner, frame, str(problem))
        except StackUnreadableError:
            if not self._guessing:
                raise
            return await self._scan(scanner, frame, "its stack cannot be read")
        plausible = step.exact or not step.registers.rip
        if self._guessing and not plausible and not await scanner.behind_call(step.registers.rip):
            return await self._scan(scanner, frame, "what its unwind data lead to is behind no call")
        return self._marked(step)

    def _marked(self, step: Step) -> Step:
        if self._guessing:
            return replace(step, note=f"{_BELOW}, {step.note}" if step.note else _BELOW)
        self._guessing = step.trust is Trust.SCANNED
        return step

    async def _scan(self, scanner: Scanner, frame: Registers, why: str) -> Step:
        guess = await scanner.next(frame.rsp, await self._end_of_stack(frame.rsp))
        if guess is None:
            raise CannotUnwindError(f"{why}; no return address was found on the stack above")
        said = why if guess.seen else f"{why}; the code before it could not be looked at"
        note = said if said != self._why else ""
        if guess.by_processor:
            note += f"{'; ' if note else ''}what lies at {format_address(guess.slot)} looks like a machine frame"
        if self._guessing:
            note = f"{_BELOW}: {note}" if note else _BELOW
        self._guessing, self._why = True, said
        registers = Registers.at(guess.address, guess.stack_pointer)
        return Step(registers, Trust.SCANNED, note, exact=guess.by_processor)

    async def _end_of_stack(self, pointer: int) -> int:
        """The first address above the stack that this pointer is in: of the thread's own, where that is known."""
        if self._high is None:
            self._high = await self._thread_stack_base()
        if self._high - LARGEST_STACK <= pointer < self._high:
            return self._high
        return (pointer & -PAGE_SIZE) + _FOREIGN_STACK

    async def _thread_stack_base(self) -> int:
        stack = None
        if self.thread is not None:
            stack = await stack_of_thread(self.source, self.target, self.thread)
        elif self.processor is not None and self.processor < len(self.target.processors):
            of_processor = await working(self.source, self.target, self.target.processors[self.processor])
            if of_processor.thread is not None:
                stack = await stack_of_thread(self.source, self.target, of_processor.thread.address)
        return stack.address + stack.size if stack is not None else 0


def _in_user_mode(registers: Registers) -> bool:
    """A call to nowhere has an address like this too, but its stack is the kernel's."""
    return not is_kernel_address(registers.rip) and not is_kernel_address(registers.rsp)
