"""A machine out of a file: a crash dump goes back on the line, stopped where it stopped. Sans-IO: the caller reads.

A dump with pages (types 1, 2, 5, 6, 8, 9, A) gives memory, registers and the version packet. A raw image gives
memory alone: the machine has one processor without registers, and answers physical reads.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64, MachineType
from protocol.dumpfile import parse_layout
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.errors import DumpFormatError, LayoutError
from protocol.kdcom import KdcomLink
from protocol.layouts.kdbg import LARGEST_SIZE, parse_kdbg
from protocol.layouts.version import GetVersion64
from protocol.link import LinkTimers, Role
from protocol.structure import Structure

from .errors import SimulationError
from .image import MemoryImage, PageBacking
from .machine import Behaviour, Machine, VirtualProcessor
from .paging import translate
from .target import Event, KdTarget, Stop

__all__ = ["FileMachine", "machine_of_dump", "machine_of_raw"]

_MOST_PROCESSORS = 2048
_SPECIAL_SIZE = 0xF0
_VERSION_FLAGS = 0x47
ReadFile = Callable[[int, int], bytes]


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
        raise SimulationError("a small dump holds pieces of memory only; serve a complete or kernel dump")

    def page(pfn: int) -> bytes | None:
        offset = layout.pages.offset_of(pfn)
        data = read(offset, PAGE_SIZE) if offset is not None else b""
        return data if len(data) == PAGE_SIZE and data != UNREADABLE_PAGE else None

    runs = PageRuns(layout.pages.runs())
    image = MemoryImage(runs, backings=(PageBacking(runs, page),))
    root = header.directory_table_base & AMD64.paging.root_mask
    memory = _Memory(image, root)
    block = _block(memory, header.kd_debugger_data_block)
    base = block["kern_base"] if block is not None else 0
    processors = _processors(memory, block, header.context_record, root)
    version = GetVersion64(
        header.major_version & 0xFFFF, header.minor_version & 0xFFFF, 6, 2, _VERSION_FLAGS, MachineType.AMD64,
        0x0C, 3, 0x31, 0, base, header.ps_loaded_module_list, _list_head(block, header.kd_debugger_data_block),
    )  # fmt: skip
    place = int.from_bytes(header.exception[0x10:0x18], "little")
    stopped = next((p.number for p in processors if p.program_counter == place), 0)
    code = int.from_bytes(header.exception[:4], "little") or 0x80000003
    stop: Event = Stop(code=code, again=True)
    machine = Machine(image, lambda cr3, address: translate(image, cr3, address), version, processors, current=stopped)
    text = f"a dump of Windows build {header.minor_version}, {len(processors)} processors, {runs.page_count} pages"
    return FileMachine(_target(machine, stop), text)


def machine_of_raw(read: ReadFile, size: int) -> FileMachine:
    """Serve a raw image of physical memory. Nobody knows its registers: they are zero."""
    if size < PAGE_SIZE:
        raise SimulationError("a raw image needs at least one page of 4,096 bytes")
    runs = PageRuns([PageRun(0, size >> PAGE_SHIFT)])
    image = MemoryImage.from_raw(read, size & ~(PAGE_SIZE - 1), runs)
    context = AMD64.context.encode({"context_flags": AMD64.context_flags_all, "seg_cs": 0x10, "seg_ss": 0x18})
    processor = VirtualProcessor(0, context, AMD64.special_registers.encode({}), 0, 0, 0)
    version = GetVersion64(0xF, 1, 6, 2, _VERSION_FLAGS, MachineType.AMD64, 0x0C, 3, 0x31, 0, 0, 0, 0)
    behaviour = Behaviour(refuse_page_zero=False)
    machine = Machine(image, lambda cr3, address: translate(image, cr3, address), version, [processor], behaviour)
    return FileMachine(_target(machine, Stop(again=True)), f"a raw image of {runs.page_count} pages")


def _target(machine: Machine, stop: Event) -> KdTarget:
    return KdTarget(machine, KdcomLink(Role.TARGET, LinkTimers(tries=20)), script=deque([stop]))


class _Memory:
    """Virtual reads through the dump's own page tables."""

    def __init__(self, image: MemoryImage, root: int) -> None:
        self.image = image
        self.root = root

    def read(self, address: int, size: int) -> bytes | None:
        parts: list[bytes] = []
        while size > 0:
            length = min(size, PAGE_SIZE - (address & PAGE_SIZE - 1))
            physical = translate(self.image, self.root, address)
            data = None if physical is None else self.image.read(physical, length)
            if data is None:
                return None
            parts.append(data)
            address, size = address + length, size - length
        return b"".join(parts)

    def pointer(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8) or b"", "little")


def _block(memory: _Memory, address: int) -> Structure | None:
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


def _processors(memory: _Memory, block: Structure | None, header_context: bytes, root: int) -> list[VirtualProcessor]:
    processors: list[VirtualProcessor] = []
    array = memory.read(block["ki_processor_block"], 8 * _MOST_PROCESSORS) if block is not None else None
    if array is None and block is not None:
        array = memory.read(block["ki_processor_block"], 8 * 64) or memory.read(block["ki_processor_block"], 8)
    for (prcb,) in struct.iter_unpack("<Q", array or b""):
        if block is None or not prcb >> 47:
            break
        place = prcb + block["offset_prcb_proc_state_context"]
        if block.has("offset_prcb_max_breakpoints") and block["offset_prcb_context"]:
            place = memory.pointer(prcb + block["offset_prcb_context"])
        context = memory.read(place, AMD64.context.size)
        special = memory.read(prcb + block["offset_prcb_proc_state_special_reg"], _SPECIAL_SIZE)
        if context is None or special is None:
            break
        thread = memory.pointer(prcb + block["offset_prcb_current_thread"])
        pcr = prcb - (block["offset_pcr_contained_prcb"] or 0x180)
        processors.append(VirtualProcessor(len(processors), context, special, pcr, prcb, thread))
    if not processors:
        special = AMD64.special_registers.encode({"cr3": root})
        context = header_context[: AMD64.context.size].ljust(AMD64.context.size, b"\0")
        processors.append(VirtualProcessor(0, context, special, 0, 0, 0))
    return processors
