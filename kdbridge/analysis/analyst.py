"""One analysis, in the order in which a person wants to know: first why, then everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdbridge.discovery.modules import name_reader
from kdbridge.discovery.notes import readable_end
from kdbridge.file_facts import told_by_file
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.arch import Architecture, MachineType, architecture_of
from protocol.structure import Structure

from .bucket import bucket_of
from .crash import crash_context
from .disassembly import Disassembler
from .exports import Exports
from .held import held_of
from .images import image_facts
from .model import (
    Analysis,
    BugCheckFact,
    CrashContext,
    ImageFact,
    Missing,
    ProcessFact,
    Stack,
    Suspect,
    System,
    ThreadFact,
)
from .names import Names, SymbolSource
from .parameters import bug_check_fact, with_processes
from .print_buffer import print_buffer
from .processes import process_facts
from .reading import ReadOnce
from .registers import Registers
from .renaming import renamed_bug_check, renamed_crash, renamed_stack, renamed_suspect
from .shortcomings import Shortcomings
from .stack import walk
from .stopped import by_number, stopped_processor
from .suspect import Evidence, suspect_of
from .system import system_of, times_of
from .threads import current_thread, thread_facts
from .whose import Judge

__all__ = ["Analyst"]

_CODE, _STACK, _TOUCHED, _POINTED = 0x40, 0x100, 0x40, 0x80
"""Bytes that are shown in hexadecimal."""
_KERNEL_CODE = 0x10

_Piece = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class _Why:
    """The first screen, before it is put into an Analysis."""

    stopped: int
    crash: CrashContext | None
    bug_check: BugCheckFact | None
    stack: Stack | None
    suspect: Suspect | None
    system: System | None
    current: ThreadFact | None
    pieces: tuple[_Piece, ...]
    lacks: tuple[Missing, ...]
    """What could not be found out of the current thread. Why it stopped is known without, so it is told in the end."""


class Analyst:
    """Analyses one source. Reads each byte once (wrap it in `ReadOnce` before discovery), writes nothing."""

    def __init__(
        self, source: Source, target: Target, *, symbols: Sequence[SymbolSource] = (), console: str = ""
    ) -> None:
        self.source = source if isinstance(source, ReadOnce) else ReadOnce(source)
        self._symbols = tuple(symbols)
        self._console = console
        self._architecture = architecture_of(target.version.machine_type)
        self._kernel = target.kernel_base
        self._judge = Judge(self.source)
        self._shortcomings = Shortcomings(self.source)
        self._why: _Why | None = None
        self._all: Analysis | None = None
        told = told_by_file(self.source)
        for text in told.shortcomings if told is not None else ():
            # First: most of what is missing then is missing for this.
            self._shortcomings.add("the file", text)
        self.know(target)

    def know(self, target: Target) -> None:
        """What discovery found, also where a first look was all there was before. Call it before `all`."""
        self.target = target
        self._names = Names(target.modules, self._symbols, self._kernel, name_reader(self.source, target))
        self._judge.know(target, self._names)
        for finding in target.shortcomings:
            self._shortcomings.add(finding.step, finding.text)

    async def first(self) -> Analysis:
        """The first screen: bug check, crash context, the stopped thread's stack, the suspect. As little as can be.

        Names are those of `symbols`; exports, versions of images, other stacks and processes are left to `all`.
        """
        if self._why is None:
            self._why = await self._find_out_why()
        return self._analysis(self._why)

    async def all(self) -> Analysis:
        """And the rest: all stacks, versions of images, processes, prints. What was found before is kept."""
        if self._all is None:
            await self.first()
            assert self._why is not None  # noqa: S101
            self._all = await self._everything(self._why)
        return self._all

    # ---- first ---------------------------------------------------------------------------------------------

    async def _find_out_why(self) -> _Why:
        source, target, names, part = self.source, self.target, self._names, self._shortcomings.part
        stopped = stopped_processor(target)
        bug_check = await part("the bug check's parameters", bug_check_fact(source, target, names))
        crash = await part("the crash context", crash_context(source, target, names, stopped))
        pieces: tuple[_Piece, ...] = ()
        stack: Stack | None = None
        told = await part("the current thread", current_thread(source, target, stopped, names))
        current, lacks = told if told is not None else (None, ())
        if crash is None:
            self._shortcomings.add("the crash context", "there are no registers of the processor that stopped")
        elif self._architecture is not None:
            crash = await self._with_instructions(crash, self._architecture)
            thread = None if current is None else current.address
            stack = await self._stack(crash.context, crash.known, stopped, thread, "the rest of the stack")
            pieces = await self._pieces(crash, self._architecture)
        evidence = Evidence(source, target, names, self._judge, crash, stack)
        suspect = await part("the driver to suspect", suspect_of(evidence))
        system = await part("the system", system_of(source, target))
        return _Why(stopped, crash, bug_check, stack, suspect, system, current, pieces, lacks)

    async def _with_instructions(self, crash: CrashContext, architecture: Architecture) -> CrashContext:
        registers = Registers(crash.context, crash.known)
        reader = Disassembler(self.source, self._names, architecture, self._gs_base(crash))
        found = await self._shortcomings.part("the instruction", reader.at(crash.place.address, registers))
        if found is None:
            return crash
        self._shortcomings.extend(found[1])
        return replace(crash, instructions=found[0])

    def _gs_base(self, crash: CrashContext) -> int | None:
        """What gs: means in the kernel of x64: the processor's KPCR. In user mode it is something else."""
        processor = by_number(self.target, crash.processor)
        if processor is None or self.target.version.machine_type != MachineType.AMD64:
            return None
        if "seg_cs" in crash.known and crash.context["seg_cs"] != _KERNEL_CODE:
            return None
        if processor.special_registers is not None and processor.special_registers["msr_gs_base"]:
            return processor.special_registers["msr_gs_base"]
        offset = self.target.kdbg.block["offset_pcr_contained_prcb"] if self.target.kdbg is not None else 0
        return processor.prcb - offset if processor.prcb is not None and offset else None

    async def _stack(
        self, context: Structure, known: frozenset[str] | None, processor: int, thread: int | None, rest: str
    ) -> Stack | None:
        work = walk(self.source, self.target, self._names, context, known=known, processor=processor, thread=thread)
        stack = await self._shortcomings.part(rest, work)
        if stack is not None and not stack.whole:
            self._shortcomings.add(rest, stack.ended, self._shortcomings.refused())
        return stack

    async def _pieces(self, crash: CrashContext, architecture: Architecture) -> tuple[_Piece, ...]:
        """What is worth a look in hexadecimal; most of it was read already."""
        wanted = [("code at the crash", crash.place.address, _CODE)]
        wanted.append(("stack at the crash", crash.context[architecture.stack_pointer], _STACK))
        wanted += [
            (f"memory at {operand.expression}", operand.address & ~0xF, _TOUCHED)
            for one in crash.instructions[:1]
            for operand in one.operands
            if operand.content is not None
        ]
        return await self._read(wanted)

    async def _read(self, wanted: Sequence[tuple[str, int, int]]) -> tuple[_Piece, ...]:
        found = [(what, address, await readable_end(self.source, address, size)) for what, address, size in wanted]
        return tuple(piece for piece in found if piece[2])

    # ---- all -----------------------------------------------------------------------------------------------

    async def _everything(self, why: _Why) -> Analysis:
        source, target, part = self.source, self.target, self._shortcomings.part
        known = (*self._symbols, Exports(source))
        names = Names(target.modules, known, self._kernel, name_reader(source, target))
        why = await self._renamed(why, names)
        self._names = names
        stacks = await self._all_stacks(why)
        processes = await self._processes(why, names)
        why = self._with_current_thread(why, processes)
        if why.bug_check is not None:
            why = replace(why, bug_check=with_processes(why.bug_check, processes))
        images, lacks = await part("versions of modules", image_facts(source, target, names)) or ((), ())
        self._shortcomings.extend(lacks)
        if why.system is not None and not why.system.system_root:
            self._shortcomings.add("the system's folder", "nothing that is there names it")
        prints, lacks = await part("the kernel's print buffer", print_buffer(source, target)) or (None, ())
        self._shortcomings.extend(lacks)
        pointed = [
            (f"memory at parameter {one.number}", one.value, _POINTED)
            for one in (why.bug_check.parameters if why.bug_check is not None else ())
            if one.place is None and one.region and self._in_kernel(one.value)
        ]
        pieces = (*why.pieces, *await self._read(pointed))
        return replace(
            self._analysis(why),
            stacks=stacks,
            images=self._images(images),
            processes=processes,
            print_buffer=prints,
            held=held_of(source.source, target),
            missing=self._shortcomings.found,
            bytes_read=source.bytes_read,
            pieces=pieces,
            first_screen=False,
        )

    def _in_kernel(self, address: int) -> bool:
        return self._architecture is not None and self._architecture.is_kernel_address(address)

    async def _renamed(self, why: _Why, names: Names) -> _Why:
        return replace(
            why,
            crash=None if why.crash is None else await renamed_crash(why.crash, names),
            bug_check=None if why.bug_check is None else await renamed_bug_check(why.bug_check, names),
            stack=None if why.stack is None else await renamed_stack(why.stack, names),
            suspect=None if why.suspect is None else await renamed_suspect(why.suspect, names),
        )

    async def _all_stacks(self, why: _Why) -> tuple[Stack, ...]:
        found: list[Stack] = []
        for one in self.target.processors:
            if one.context is None:
                continue
            if one.number == why.stopped and why.crash is not None and one.context is why.crash.context and why.stack:
                found.append(why.stack)  # the break is what there is
                continue
            rest = f"the rest of the stack of processor {one.number}"
            stack = await self._stack(one.context, None, one.number, None, rest)
            if stack is not None:
                found.append(stack)
        return tuple(found)

    async def _processes(self, why: _Why, names: Names) -> tuple[ProcessFact, ...]:
        found = await self._shortcomings.part("processes", process_facts(self.source, self.target, names=names))
        if found is None:
            return ()
        processes, missing = found
        self._shortcomings.extend(missing)
        told: list[ProcessFact] = []
        for one in processes:
            threads: tuple[ThreadFact, ...] | None = None
            if why.stopped in one.current_on:
                work = thread_facts(self.source, self.target, one, names, stacks=True)
                what = f"threads of process {one.process_id}"
                threads, lacks = await self._shortcomings.part(what, work) or (None, ())
                self._shortcomings.extend(lacks)
            told.append(one if threads is None else replace(one, threads=threads))
        return tuple(told)

    def _with_current_thread(self, why: _Why, processes: Sequence[ProcessFact]) -> _Why:
        """With its id, where only the list of its process told it; else it is said what of it is missing."""
        listed = {thread.address: thread for one in processes for thread in one.threads}
        current = why.current
        if current is not None and current.thread_id is None and current.address in listed:
            found = listed[current.address]
            if found.thread_id is not None:
                return replace(why, current=replace(current, thread_id=found.thread_id, process_id=found.process_id))
        self._shortcomings.extend(why.lacks)
        return why

    # ---- both ----------------------------------------------------------------------------------------------

    def _images(self, facts: Sequence[ImageFact]) -> tuple[ImageFact, ...]:
        """One of every module, with what was read of it."""
        known = {**self._judge.facts, **{one.module.base: one for one in facts}}
        return tuple(known.get(one.base) or ImageFact(self._names.as_known(one)) for one in self.target.modules)

    def _analysis(self, why: _Why) -> Analysis:
        target = self.target
        place = why.suspect.place if why.suspect is not None else None
        if place is None and why.crash is not None:
            place = why.crash.place
        return Analysis(
            source=self.source.name,
            target=target,
            system=why.system or System("", target.build_lab, "", "", len(target.processors), "", None, None),
            times=times_of(target),
            bug_check=why.bug_check,
            crash=why.crash,
            stopped=why.stopped,
            stack=why.stack,
            stacks=(),
            suspect=why.suspect,
            bucket=bucket_of(target.bug_check_code, target.bug_check_parameters[0], place),
            images=self._images(()),
            unloaded=target.unloaded_modules,
            processes=(),
            current=None if why.current is None else replace(why.current, stack=why.stack),
            console=self._console,
            print_buffer=None,
            held=None,
            missing=self._shortcomings.found,
            bytes_read=self.source.bytes_read,
            pieces=why.pieces,
            first_screen=True,
        )
