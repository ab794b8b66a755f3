"""A machine out of a file: a crash dump goes back on the line, stopped where it stopped. Sans-IO: the caller reads.

A dump with pages (types 1, 2, 5, 6, 8, 9, A) gives memory, registers and the version packet; a small one (type 4) its
pieces by virtual address. A raw image gives memory alone: the machine has one processor without registers, and answers
physical reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64, MachineType
from protocol.dumpfile import parse_layout
from protocol.dumpfile.complete import marks_unreadable
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.index import HIGHEST_PAGE
from protocol.dumpfile.layout import DumpLayout, ReadFile
from protocol.errors import DumpFormatError, LayoutError
from protocol.kdcom import KdcomLink
from protocol.layouts.kdbg import LARGEST_SIZE, parse_kdbg
from protocol.layouts.version import GetVersion64
from protocol.link import LinkTimers, Role
from protocol.manipulate import ApiNumber
from protocol.ntstatus import STATUS_BREAKPOINT
from protocol.structure import Structure

from .errors import SimulationError
from .events import Event, Stop
from .from_triage import TriageMemory
from .image import MemoryImage, PageBacking
from .machine import Behaviour, Machine, VirtualProcessor
from .paging import read_virtual, translate
from .target import KdTarget

__all__ = ["FileMachine", "machine_of_dump", "machine_of_raw"]

_MOST_PROCESSORS = 2048
_MOST_RUNS = 1 << 16
"""Runs of RAM that are kept in memory: 10 MiB of them."""
_LARGEST_SPECIAL, _LEAST_SPECIAL = 0xF0, 0xD8
_VERSION_FLAGS = 0x47
_KPCR_PRCB = 0x180
_EXCEPTION_ADDRESS = 0x10
_TARGET_TRIES = 20
_PHYSICAL = frozenset({ApiNumber.READ_PHYSICAL_MEMORY, ApiNumber.WRITE_PHYSICAL_MEMORY, ApiNumber.READ_PHYSICAL_BULK})


@dataclass(slots=True)
class FileMachine:
    """The target to serve, and what it is in one line."""

    target: KdTarget
    text: str


def machine_of_dump(read: ReadFile, size: int) -> FileMachine:
    """Serve a dump: `read(offset, size)` gives bytes of the file. Raises SimulationError where it cannot be."""
    try:
        layout = parse_layout(read, size)
    except DumpFormatError as error:
        raise SimulationError(f"this is no dump that can be served: {error}") from None
    header = layout.header
    if header.machine_image_type != MachineType.AMD64:
        raise SimulationError(f"the dump is of a machine of type {header.machine_image_type:#x}; only x64 is served")
    if layout.is_triage:
        return _machine_of_small_dump(read, header, size)

    if not layout.pages.page_count:
        raise SimulationError("; ".join(("this dump has no page that can be served", *layout.shortcomings)))

    def page(pfn: int) -> bytes | None:
        offset = layout.pages.offset_of(pfn)
        data = read(offset, PAGE_SIZE) if offset is not None else b""
        return data if len(data) == PAGE_SIZE and not marks_unreadable(layout.kind, data) else None

    runs = _runs(layout)
    image = MemoryImage(runs, backings=(PageBacking(runs, page),))
    memory = _Memory(image, header.directory_table_base & AMD64.paging.root_mask)
    block = _block(memory, header.kd_debugger_data_block)
    processors = list(_processors(memory, block)) if block is not None else []
    if not processors:
        context = header.context_record[: AMD64.context.size].ljust(AMD64.context.size, b"\0")
        special = AMD64.special_registers.encode({"cr3": memory.root})
        processors = [VirtualProcessor(0, context, special, 0, 0, 0)]
    version = _version(header, block)
    place = int.from_bytes(header.exception[_EXCEPTION_ADDRESS : _EXCEPTION_ADDRESS + 8], "little")
    stopped = next((p.number for p in processors if p.program_counter == place), 0)
    code = int.from_bytes(header.exception[:4], "little") or STATUS_BREAKPOINT
    target = _target(image, version, processors, Behaviour(), stopped, Stop(code=code, again=True))
    text = (
        f"a dump of Windows build {header.minor_version}, {len(processors)} processors, {layout.pages.page_count} pages"
    )
    return FileMachine(target, text)


def _runs(layout: DumpLayout) -> PageRuns:
    """The frames of RAM. Where they lie in very many runs: all that there can be, and each page is looked up."""
    runs = list(islice(layout.pages.runs(), _MOST_RUNS + 1))
    return PageRuns(runs if len(runs) <= _MOST_RUNS else [PageRun(0, HIGHEST_PAGE)])


def _machine_of_small_dump(read: ReadFile, header: DumpHeader, size: int) -> FileMachine:
    """Serve the pieces of a small dump: by virtual address only (see from_triage for what is made up)."""
    try:
        memory = TriageMemory(read, header, size)
    except DumpFormatError as error:
        raise SimulationError(f"this is no small dump that can be served: {error}") from None
    block = _block(memory, header.kd_debugger_data_block)
    if block is None:
        raise SimulationError("this small dump has no KDBG that can be read: nobody would find anything in it")
    stopped = memory.lay_sections(block)
    processors = list(_processors(memory, block))
    if not processors:
        raise SimulationError("this small dump has registers of no processor in its pieces")
    registers = [AMD64.special_registers.decode(one.special_registers, least=_LEAST_SPECIAL) for one in processors]
    tables = [(special["gdtr_base"], special["gdtr_limit"]) for special in registers]
    memory.lay_lists(block, len(processors), tables)
    image = memory.image()
    behaviour = Behaviour(refused=_PHYSICAL)
    target = _target(
        image, _version(header, block), processors, behaviour, stopped if stopped < len(processors) else 0,
        Stop(again=True), lambda root, address: image.frame_of(address),
    )  # fmt: skip
    pieces = len(memory.layout.blocks)
    text = (
        f"a small dump of Windows build {header.minor_version}, {len(processors)} processors, {pieces} pieces of memory"
    )
    return FileMachine(target, text)


def _version(header: DumpHeader, block: Structure | None) -> GetVersion64:
    return GetVersion64(
        header.major_version & 0xFFFF, header.minor_version & 0xFFFF, 6, 2, _VERSION_FLAGS, MachineType.AMD64,
        0x0C, 3, 0x31, 0, block["kern_base"] if block is not None else 0, header.ps_loaded_module_list,
        _list_head(block, header.kd_debugger_data_block),
    )  # fmt: skip


def machine_of_raw(read: ReadFile, size: int) -> FileMachine:
    """Serve a raw image of physical memory. Nobody knows its registers: they are zero."""
    if size < PAGE_SIZE:
        raise SimulationError("a raw image needs at least one page of 4,096 bytes")
    runs = PageRuns([PageRun(0, size >> PAGE_SHIFT)])
    image = MemoryImage.from_raw(read, size & ~(PAGE_SIZE - 1), runs)
    context = AMD64.context.encode({"context_flags": AMD64.context_flags_all, "seg_cs": 0x10, "seg_ss": 0x18})
    processor = VirtualProcessor(0, context, AMD64.special_registers.encode({}), 0, 0, 0)
    version = GetVersion64(0xF, 1, 6, 2, _VERSION_FLAGS, MachineType.AMD64, 0x0C, 3, 0x31, 0, 0, 0, 0)
    target = _target(image, version, [processor], Behaviour(refuse_page_zero=False), 0, Stop(again=True))
    return FileMachine(target, f"a raw image of {runs.page_count} pages")


def _target(
    image: MemoryImage,
    version: GetVersion64,
    processors: list[VirtualProcessor],
    behaviour: Behaviour,
    stopped: int,
    stop: Event,
    by_address: Callable[[int, int], int | None] | None = None,
) -> KdTarget:
    """A target that stands at this stop, also after it was restarted: a file has no other moment to show."""
    states = [(part.context, part.special_registers) for part in processors]

    def make() -> Machine:
        memory = image.copy()
        for part, (context, special) in zip(processors, states, strict=True):
            part.context, part.special_registers = context, special
        walk = by_address or (lambda root, at: translate(memory, root, at))
        return Machine(memory, walk, version, processors, behaviour, current=stopped)

    def restart() -> tuple[Machine, deque[Event]]:
        return make(), deque([stop])

    link = KdcomLink(Role.TARGET, LinkTimers(tries=_TARGET_TRIES))
    return KdTarget(make(), link, script=deque([stop]), restart=restart)


class _Readable(Protocol):
    """Memory by virtual address."""

    def read(self, address: int, size: int) -> bytes | None: ...

    def pointer(self, address: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Memory:
    """Virtual reads through the dump's own page tables."""

    image: MemoryImage
    root: int

    def read(self, address: int, size: int) -> bytes | None:
        return read_virtual(self.image, self.root, address, size)

    def pointer(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8) or b"", "little")


def _block(memory: _Readable, address: int) -> Structure | None:
    head = memory.read(address, 0x18) if address else None
    if head is None:
        return None
    size = min(int.from_bytes(head[0x14:0x18], "little"), LARGEST_SIZE)
    try:
        return parse_kdbg(memory.read(address, size) or b"", address)
    except LayoutError:
        return None


def _list_head(block: Structure | None, address: int) -> int:
    """The block's links lead to the head of its list."""
    return block["flink"] if block is not None and block["flink"] else address


def _processors(memory: _Readable, block: Structure) -> Iterator[VirtualProcessor]:
    """Processors as far as the dump has them: the first one that cannot be read ends the list."""
    offset_context, offset_special = (
        block["offset_prcb_proc_state_context"],
        block["offset_prcb_proc_state_special_reg"],
    )
    room = offset_context - offset_special
    special_size = room if _LEAST_SPECIAL <= room <= _LARGEST_SPECIAL else _LEAST_SPECIAL
    for number in range(_MOST_PROCESSORS):
        prcb = memory.pointer(block["ki_processor_block"] + 8 * number)
        if not prcb >> 47:
            return
        place = prcb + offset_context
        if block["offset_prcb_context"]:
            place = memory.pointer(prcb + block["offset_prcb_context"])
        context = memory.read(place, AMD64.context.size)
        special = memory.read(prcb + offset_special, special_size)
        if context is None or special is None:
            return
        thread = memory.pointer(prcb + block["offset_prcb_current_thread"])
        pcr = prcb - (block["offset_pcr_contained_prcb"] or _KPCR_PRCB)
        yield VirtualProcessor(number, context, special, pcr, prcb, thread)
