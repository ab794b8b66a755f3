"""What a small dump shows, most valuable first: by virtual address, so that it can be asked of anything.

The same batches say what to read from a target, and later which pieces of what was read go into the file.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from kdbridge.discovery.notes import readable_end
from kdbridge.source import Source
from kdbridge.target import Processor, Target, image_of
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns
from protocol.arch import Architecture, architecture_of

from .bug_check_data import bug_check_ranges, is_kernel_address
from .places import Places
from .plan import PlannedPages, Stage, VirtualRange
from .threads import Working, working
from .unwind import unwind_ranges

__all__ = ["Batch", "small_batches", "small_plan"]

_KPCR = 0x180
"""What lies before the KPRCB in its KPCR (kd-protocol 5.5)."""
_CODE = 0x100
_MOST_RETURNS = 24
"""Return addresses of the stopped thread that are followed: deeper frames are seldom looked at."""
_MOST_OTHER_RETURNS = 16
_MOST_CODE_PAGES = 64
"""Pages of code and unwind data in all: 256 KiB, whatever a broken stack points to."""
_MOST_REGISTERS = 16
_WINDOW = 0x80
_UNLOADED = 50 * 0x28
_LARGEST_STACK_PIECE = 0x4000
"""Bytes of one stack: Windows' own small dumps hold 16 KiB (dump-formats 3.1)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces that are worth the same, and what for."""

    reason: str
    ranges: tuple[VirtualRange, ...]


async def small_plan(source: Source, target: Target) -> AsyncIterator[PlannedPages]:
    """The batches as pages; as ranges, where there are no page tables to look them up in."""
    places = Places.of(source, target)
    roots = _roots(target)
    async with aclosing(small_batches(source, target)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            if places is None:
                yield PlannedPages(PageRuns(), batch.reason, stage=Stage.SMALL, ranges=batch.ranges)
                continue
            pages = await places.frames(batch.ranges)
            yield PlannedPages(pages | roots, batch.reason, stage=Stage.SMALL)
            roots = PageRuns()
    yield PlannedPages(PageRuns(), "a small dump", stage=Stage.SMALL, ends=True)


def _roots(target: Target) -> PageRuns:
    """Top page tables: a debugger that switches to a processor walks from its own."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or target.directory_table_base is None:
        return PageRuns()
    register = architecture.directory_table_base
    roots = [p.special_registers[register] for p in target.processors if p.special_registers is not None and register]
    mask = architecture.paging.root_mask
    pages = PageRuns.from_pages((root & mask) >> PAGE_SHIFT for root in (target.directory_table_base, *roots))
    return pages if target.runs is None else pages & target.runs


async def small_batches(source: Source, target: Target) -> AsyncIterator[Batch]:
    """What to look at, in order. Reads of the source what tells it more: so it is kept, and cheap."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None:
        return
    yield Batch("what a debugger needs to open the dump", tuple(_vital(target, architecture)))
    stopped, others = _by_importance(target)
    yield Batch("the stopped processor's registers", tuple(_registers(target, architecture, stopped)))
    doing = [await working(source, target, one) for one in stopped]
    yield Batch("the stopped thread's stack", _stacks(doing))
    yield Batch("the stopped thread and its process", _objects(doing))
    yield Batch("what the bug check points to", tuple(await bug_check_ranges(source, target)))
    yield Batch("all registers", tuple(_registers(target, architecture, others)))
    code = _Code(source, target)
    found = [piece for one in doing for piece in await code.of(one, _MOST_RETURNS)]
    yield Batch("the code on the stopped thread's stack", tuple(found))
    doings = [await working(source, target, other) for other in others]
    yield Batch("all current stacks", _stacks(doings))
    yield Batch("all current threads", _objects(doings))
    yield Batch("unloaded drivers", tuple(_unloaded(target)))
    found = [piece for one in doings for piece in await code.of(one, _MOST_OTHER_RETURNS)]
    yield Batch("the code on the other stacks", tuple(found))
    yield Batch("what the registers point to", tuple(_pointed_at(architecture, stopped)))
    yield Batch("the processors' blocks", tuple(_blocks(target)))


def _by_importance(target: Target) -> tuple[list[Processor], list[Processor]]:
    """The processor that stopped, if it is known, and the others."""
    number = target.stop.processor if target.stop is not None else 0
    return (
        [one for one in target.processors if one.number == number],
        [one for one in target.processors if one.number != number],
    )


def _vital(target: Target, architecture: Architecture) -> Iterator[VirtualRange]:
    yield VirtualRange(target.version.kern_base, PAGE_SIZE)
    yield VirtualRange(architecture.fixed_shared_data, PAGE_SIZE)
    yield VirtualRange(target.version.ps_loaded_module_list, 16)
    if target.kdbg is None:
        return
    block = target.kdbg.block
    yield VirtualRange(target.kdbg.address, len(block.raw))
    for name, size in (
        ("ki_bugcheck_data", 40),
        ("nt_build_lab", 256),
        ("ki_processor_block", 8 * max(len(target.processors), 1)),
        ("mm_unloaded_drivers", 8),
        ("mm_last_unloaded_driver", 4),
        ("mm_physical_memory_block", 8),
        ("saved_context", architecture.context.size),
        ("ps_active_process_head", 16),
    ):
        yield VirtualRange(block[name], size)


def _registers(target: Target, architecture: Architecture, processors: Sequence[Processor]) -> Iterator[VirtualRange]:
    """Of each KPRCB what leads to its CONTEXT, and the tables without which a debugger does not believe its CS."""
    block = target.kdbg.block if target.kdbg is not None else None
    for processor in processors:
        if processor.prcb is not None and block is not None:
            yield VirtualRange(processor.prcb, 0x100)
            yield VirtualRange(
                processor.prcb + block["offset_prcb_proc_state_special_reg"], architecture.special_registers.size
            )
            if block.has("offset_prcb_context"):
                yield VirtualRange(processor.prcb + block["offset_prcb_context"], 8)
        if processor.context_address:
            yield VirtualRange(processor.context_address, architecture.context.size)
        if processor.special_registers is not None and architecture.descriptor_tables:
            base, limit = architecture.descriptor_tables[0]
            size = min(processor.special_registers[limit] + 1, PAGE_SIZE)
            yield VirtualRange(processor.special_registers[base], size)


def _stacks(doings: Sequence[Working]) -> tuple[VirtualRange, ...]:
    return tuple(
        VirtualRange(one.stack.address, min(one.stack.size, _LARGEST_STACK_PIECE))
        for one in doings
        if one.stack is not None
    )


def _objects(doings: Sequence[Working]) -> tuple[VirtualRange, ...]:
    return tuple(piece for one in doings for piece in (one.thread, one.process) if piece is not None)


def _unloaded(target: Target) -> Iterator[VirtualRange]:
    """The names are known by discovery; a debugger takes them from the ring that this points to."""
    if target.kdbg is not None and target.unloaded_modules:
        yield VirtualRange(target.kdbg.block["mm_unloaded_drivers"], 8)


def _pointed_at(architecture: Architecture, processors: Sequence[Processor]) -> Iterator[VirtualRange]:
    """Windows of 256 bytes around what the general registers hold, as Windows' own small dumps have them."""
    names = [name for line in architecture.display for name in line]
    values = [one.context[name] for one in processors if one.context is not None for name in names]
    for value in [value for value in dict.fromkeys(values) if is_kernel_address(value)][:_MOST_REGISTERS]:
        yield VirtualRange(value - _WINDOW, 2 * _WINDOW)


def _blocks(target: Target) -> Iterator[VirtualRange]:
    """All of every KPRCB. The KPCR before it shares its first page."""
    size = target.kdbg.block["size_prcb"] if target.kdbg is not None else 0
    for processor in target.processors:
        if processor.prcb is not None and size:
            yield VirtualRange(processor.prcb - _KPCR, size + _KPCR)


class _Code:
    """Code around return addresses, and what unwinding through it needs: so many pages in all, and no more."""

    def __init__(self, source: Source, target: Target) -> None:
        self._source = source
        self._target = target
        self._architecture = architecture_of(target.version.machine_type)
        self._pages: set[int] = set()
        self._known: set[int] = set()

    async def of(self, doing: Working, most: int) -> list[VirtualRange]:
        """For the program counter, and whatever on the stack may be a return address."""
        found: list[VirtualRange] = []
        for address in (await self._addresses(doing))[: most + 1]:
            if address in self._known or len(self._pages) >= _MOST_CODE_PAGES:
                continue
            self._known.add(address)
            image = image_of(self._target.modules, address)
            pieces = [VirtualRange(address & ~(PAGE_SIZE - 1), PAGE_SIZE)]
            if image is not None:
                pieces += await unwind_ranges(self._source, image, address)
            self._pages.update(piece.address >> PAGE_SHIFT for piece in pieces)
            found += pieces
        return found

    async def _addresses(self, doing: Working) -> list[int]:
        addresses: list[int] = []
        context = doing.processor.context
        if context is not None and self._architecture is not None:
            addresses.append(context[self._architecture.program_counter])
        if doing.stack is not None:
            data = await readable_end(self._source, doing.stack.address, doing.stack.size)
            for (value,) in struct.iter_unpack("<Q", data[: len(data) & ~7]):
                if is_kernel_address(value) and image_of(self._target.modules, value) is not None:
                    addresses.append(value)
        return [one for one in dict.fromkeys(addresses) if is_kernel_address(one)]
