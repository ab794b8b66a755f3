"""The calls that led to where a processor or a thread stands: unwound where that can be, guessed and marked elsewhere.

Frames are those of WinDbg's `k`: Child-SP, RetAddr, Call Site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdbridge.discovery.notes import try_read_pointer
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

__all__ = ["doubted", "walk"]

_FOREIGN_STACK = 2 * PAGE_SIZE
"""Of a stack that is not the thread's so much is looked through."""
_FIRST_FRAME = 0x200
"""The first call's return address lies at most so far below where the stack began: 8 bytes in Windows 10 of x64."""
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


def doubted(stack: Stack) -> Stack:
    """The same where guesses are in it: nothing proves that it is whole."""
    return replace(stack, ended=f"guesses led to {stack.ended}", whole=False) if stack.whole else stack


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
    _start: int = 0
    """Where its stack began: below the base lies what is kept of its user mode. 0 where that is not known."""

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
            if not frames and _in_user_mode(at.registers):
                return self._stack([frame], f"user mode at {format_address(at.registers.rip)}", whole=True)
            try:
                step = await self._step(unwinder, scanner, at)
            except (CannotUnwindError, StackUnreadableError) as problem:
                frames.append(frame)
                return self._stack(frames, str(problem), whole=False)
            rip = step.registers.rip
            frames.append(replace(frame, return_address=rip))
            if step.user_mode:
                ended, whole = f"user mode at {format_address(rip)}", True
            elif not rip and not step.exact:
                ended, whole = await self._without_caller(step.registers.rsp - 8)
            elif (rip, step.registers.rsp) in seen:
                ended = f"it comes back to {format_address(rip)}, where it was before"
            elif len(frames) >= self.most:
                ended = f"more than {self.most} frames were not asked for"
            seen.add((rip, step.registers.rsp))
            at = step
        return self._stack(frames, ended, whole=whole)

    def _stack(self, frames: list[Frame], ended: str, *, whole: bool) -> Stack:
        stack = Stack(tuple(frames), ended, whole, self.processor, self.thread)
        return doubted(stack) if self._guessing else stack

    async def _without_caller(self, slot: int) -> tuple[str, bool]:
        """What a return address of 0 at `slot` means, and whether it proves that this is the thread's first call."""
        base = await self._stack_base()
        if not self._start:
            return "the return address is 0: the thread's first call, or an overwritten stack", False
        if self._start - _FIRST_FRAME <= slot < self._start:
            return "the thread's first call", True
        top = format_address(base)
        return f"the return address is 0 far from the thread's stack base at {top}: the stack may be overwritten", False

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
        if self._guessing and not plausible and not await scanner.may_return_to(step.registers.rip):
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
        said = why if guess.seen else f"{why}; whether it is behind a call is not known"
        note = said if said != self._why else ""
        if guess.by_processor:
            note += f"{'; ' if note else ''}what lies at {format_address(guess.slot)} looks like a machine frame"
        if self._guessing:
            note = f"{_BELOW}: {note}" if note else _BELOW
        self._guessing, self._why = True, said
        registers = Registers.at(guess.address, guess.stack_pointer)
        user_mode = guess.by_processor and not is_kernel_address(guess.address)
        return Step(registers, Trust.SCANNED, note, exact=guess.by_processor, user_mode=user_mode)

    async def _end_of_stack(self, pointer: int) -> int:
        """The first address above the stack that this pointer is in: of the thread's own, where that is known."""
        base = await self._stack_base()
        if base - LARGEST_STACK <= pointer < base:
            return base
        return (pointer & -PAGE_SIZE) + _FOREIGN_STACK

    async def _stack_base(self) -> int:
        if self._high is None:
            self._high, self._start = await self._thread_stack()
        return self._high

    async def _thread_stack(self) -> tuple[int, int]:
        """The base of the thread's stack, and where it began."""
        thread = self.thread
        if thread is None and self.processor is not None and self.processor < len(self.target.processors):
            running = (await working(self.source, self.target, self.target.processors[self.processor])).thread
            thread = running.address if running is not None else None
        stack = await stack_of_thread(self.source, self.target, thread) if thread is not None else None
        if thread is None or stack is None or self.target.kdbg is None:
            return 0, 0
        base = stack.address + stack.size
        start = await try_read_pointer(self.source, thread + self.target.kdbg.block["offset_kthread_initial_stack"])
        return base, start if start is not None and base - LARGEST_STACK < start <= base else 0


def _in_user_mode(registers: Registers) -> bool:
    """A call to nowhere has an address like this too, but its stack is the kernel's."""
    return not is_kernel_address(registers.rip) and not is_kernel_address(registers.rsp)
