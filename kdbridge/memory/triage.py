"""A small dump as virtual memory: its pieces, and the sections whose addresses the dump itself tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kdbridge.target import Module, UnloadedModule
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.triage import TriageBlock, TriageLayout, parse_triage
from protocol.errors import LayoutError
from protocol.layouts.kdbg import parse_kdbg
from protocol.structure import Structure

from .blocks import BlockMemory

__all__ = ["SmallDump"]

_APC_PROCESS = {8: 0xB8, 4: 0}
"""KTHREAD.ApcState.Process on x64 where the KDBG does not say (kd-protocol 6), by the size of a pointer."""

_Give = Callable[[int, int], bytes]


class SmallDump:
    """What a dump of type 4 holds beside its header. `read(offset, size)` gives bytes of the file.

    Its memory is the blocks first of all, as WinDbg reads it; a section is read where no block has the byte.
    """

    def __init__(self, read: _Give, header: DumpHeader, size: int) -> None:
        """Raises DumpFormatError where there is no TRIAGE_DUMP."""
        self._read = read
        self._width = header.bits // 8
        self.layout: TriageLayout = parse_triage(read, header, size)
        self._kdbg = self._block()
        self._prcb = self._bytes(self.layout.prcb)
        number = self._number("offset_prcb_number", self._prcb, 4)
        self.processor = number if number < header.number_processors else 0
        """The one whose KPRCB has a section of its own: it stopped the machine."""
        self.memory = BlockMemory(
            (block.address, block.size, self._give(block)) for block in (*self.layout.blocks, *self._sections())
        )

    def _bytes(self, section: TriageBlock) -> bytes:
        return self._read(section.file_offset, section.size) if section.size else b""

    def _give(self, block: TriageBlock) -> _Give:
        return lambda offset, size: self._read(block.file_offset + offset, size)

    def _block(self) -> Structure | None:
        try:
            return parse_kdbg(self._bytes(self.layout.debugger_data), pointer_size=self._width)
        except LayoutError:
            return None

    def _number(self, offset: str, data: bytes, size: int = 0) -> int:
        """The number (a pointer, if no size says else) at the offset in this field of the KDBG; 0: there is none."""
        at = self._kdbg[offset] if self._kdbg is not None else 0
        return int.from_bytes(data[at : at + (size or self._width)], "little") if at else 0

    def _sections(self) -> Iterator[TriageBlock]:
        """Where the sections were: the file says it of two, and of the others each pointer leads to the next."""
        thread = self._bytes(self.layout.thread)
        at = (self._kdbg["offset_kthread_apc_process"] if self._kdbg is not None else 0) or _APC_PROCESS[self._width]
        process = int.from_bytes(thread[at : at + self._width], "little") if at else 0
        places = (
            (self.layout.debugger_data.address, self.layout.debugger_data, "size"),
            (self.layout.call_stack.address, self.layout.call_stack, ""),
            (self.layout.data_page.address, self.layout.data_page, ""),
            (self._prcb_address(), self.layout.prcb, "size_prcb"),
            (self._number("offset_prcb_current_thread", self._prcb), self.layout.thread, "size_ethread"),
            (process, self.layout.process, "size_eprocess"),
        )
        for address, section, size in places:
            told = self._kdbg[size] if self._kdbg is not None and size else 0
            if address and section.size:
                yield replace(section, address=address, size=min(told or section.size, section.size))

    def _prcb_address(self) -> int:
        """What KiProcessorBlock has for the processor, where a block has that."""
        if self._kdbg is None or not self._kdbg["ki_processor_block"]:
            return 0
        width = self._width
        place = self._kdbg["ki_processor_block"] + width * self.processor
        for block in self.layout.blocks:
            if block.address <= place and place + width <= block.address + block.size:
                return int.from_bytes(self._read(block.file_offset + place - block.address, width), "little")
        return 0

    @property
    def modules(self) -> tuple[Module, ...]:
        """The list of drivers. Their entries in memory are not in a small dump: where they were is not told."""
        return tuple(
            Module(
                name=driver.path.replace("/", "\\").rpartition("\\")[2], path=driver.path, base=driver.base,
                size=driver.size, entry_point=driver.entry_point, time_date_stamp=driver.time_date_stamp,
                check_sum=driver.check_sum, entry_address=0,
            )
            for driver in self.layout.drivers
        )  # fmt: skip

    @property
    def unloaded_modules(self) -> tuple[UnloadedModule, ...]:
        """The unloaded drivers; when they were unloaded is not told."""
        return tuple(UnloadedModule(one.name, one.start, one.end, 0) for one in self.layout.unloaded)
