"""What a debugger must find in a dump's memory and a stopped machine's memory need not hold.

Two things: each processor's CONTEXT as the target's debugger gave it, where readers look for it (memory may hold an
older one), and the KDBG decoded (memory may hold it encoded). Both were read from the target; nothing else is laid
over its memory, and the target itself is never written to (dump-formats 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kdbridge.errors import MemoryFault
from kdbridge.memory.translate import Translator
from kdbridge.source import PhysicalMemory, Source
from kdbridge.target import Target
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PhysicalAddress
from protocol.arch import Architecture, architecture_of

__all__ = ["Overlay", "laid_over", "overlay_for"]


class Overlay:
    """Bytes to lay over pages, by frame."""

    __slots__ = ("_parts", "missing", "notes")

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[int, bytes]]] = {}
        self.notes: list[str] = []
        """What was laid over, in words."""
        self.missing: list[str] = []
        """What should have been, and could not be."""

    @property
    def frames(self) -> frozenset[int]:
        """Frames that differ from what the target's memory held."""
        return frozenset(self._parts)

    def add(self, pfn: int, offset: int, data: bytes) -> None:
        """Lay bytes over a part of one page."""
        self._parts.setdefault(pfn, []).append((offset, data))

    def onto(self, pfn: int, page: bytes) -> bytes:
        """This page with everything laid over it."""
        changed = bytearray(page)
        self.apply(pfn, changed)
        return bytes(changed)

    def apply(self, first_pfn: int, pages: bytearray) -> None:
        """Lay everything that falls into these consecutive pages over them."""
        for pfn in self._parts.keys() & range(first_pfn, first_pfn + (len(pages) >> PAGE_SHIFT)):
            for offset, data in self._parts[pfn]:
                at = (pfn - first_pfn << PAGE_SHIFT) + offset
                pages[at : at + len(data)] = data


async def overlay_for(source: Source, target: Target) -> Overlay:
    """What to lay over the memory of this target. What cannot be placed is named in `missing`."""
    overlay = Overlay()
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or target.directory_table_base is None or source.physical is None:
        overlay.missing.append("no page tables: the registers could not be put where a debugger looks for them")
        return overlay
    translator = Translator(source.physical, architecture.paging, target.directory_table_base)
    for processor in target.processors:
        if processor.context is None or not processor.context_address:
            overlay.missing.append(f"registers of processor {processor.number}")
            continue
        data = _whole(processor.context.raw, architecture)
        if await _place(overlay, translator, source.physical, processor.context_address, data):
            overlay.notes.append(f"CONTEXT of processor {processor.number} at {processor.context_address:#x}")
        else:
            overlay.missing.append(f"registers of processor {processor.number}: its CONTEXT's page was not read")
    if target.kdbg is not None and target.kdbg.encoded:
        if await _place(overlay, translator, source.physical, target.kdbg.address, target.kdbg.block.raw):
            overlay.notes.append(f"decoded KDBG at {target.kdbg.address:#x}")
        else:
            overlay.missing.append("the decoded KDBG: its page was not read")
    return overlay


async def laid_over(dump: Source, target: Target) -> Overlay:
    """All that a rendering may have laid over the memory of this dump, as the dump has it: CONTEXTs and the KDBG."""
    if target.kdbg is not None:
        target = replace(target, kdbg=replace(target.kdbg, encoded=True))
    return await overlay_for(dump, target)


def _whole(raw: bytes, architecture: Architecture) -> bytes:
    return raw[: architecture.context.size]


async def _place(
    overlay: Overlay, translator: Translator, physical_memory: PhysicalMemory, address: int, data: bytes
) -> bool:
    """Lay it over its pages; False, and nothing is laid, where one of them is not mapped or not there."""
    placed: list[tuple[int, int, bytes]] = []
    for start, part in _split(address, data):
        try:
            physical = (await translator.translate(start)).physical
            if physical is not None:
                await physical_memory.read(PhysicalAddress(physical), 1)
        except MemoryFault:
            physical = None
        if physical is None:
            return False
        placed.append((physical >> PAGE_SHIFT, physical & PAGE_SIZE - 1, part))
    for pfn, offset, part in placed:
        overlay.add(pfn, offset, part)
    return True


def _split(address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length = min(len(data) - at, PAGE_SIZE - (address + at & PAGE_SIZE - 1))
        yield address + at, data[at : at + length]
        at += length
