"""A small dump as virtual memory: its pieces, and the sections whose addresses the dump itself tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kdbridge.target import Module, UnloadedModule
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.triage import TriageBlock, TriageLayout, parse_triage

from .blocks import BlockMemory

__all__ = ["SmallDump"]

_POINTER = 8
_APC_PROCESS = 0xB8
"""KTHREAD.ApcState.Process on x64 where the KDBG does not say (kd-protocol 6)."""

_Give = Callable[[int, int], bytes]


class SmallDump:
    """What a dump of type 4 holds beside its header. `read(offset, size)` gives bytes of the file."""

    def __init__(self, read: _Give, header: DumpHeader, size: int) -> None:
        """Raises DumpFormatError where there is no TRIAGE_DUMP."""
        self._read = read
        self._header = header
        self.layout: TriageLayout = parse_triage(read, header, size)
        pieces = [(block.address, block) for block in (*self.layout.blocks, *self._known_sections())]
        self.memory = BlockMemory((address, block.size, self._give(block)) for address, block in pieces)
        found = list(self._objects())
        if found:
            self.memory = BlockMemory((address, block.size, self._give(block)) for address, block in [*pieces, *found])

    def _give(self, block: TriageBlock) -> _Give:
        return lambda offset, size: self._read(block.file_offset + offset, size)

    def _known_sections(self) -> Iterator[TriageBlock]:
        for section in (self.layout.debugger_data, self.layout.call_stack):
            if section.address and section.size:
                yield section

    def _objects(self) -> Iterator[tuple[int, TriageBlock]]:
        """KPRCB, thread and process: found by the pointers from one to the next, where no piece has them already."""
        block = self._read(self.layout.debugger_data.file_offset, self.layout.debugger_data.size)
        prcb = self._section(self.layout.prcb)
        if len(block) < 0x2C2 or len(prcb) < 16:
            return
        thread_at = int.from_bytes(block[0x2B4:0x2B6], "little")
        process_at = int.from_bytes(block[0x2A0:0x2A2], "little") or _APC_PROCESS
        thread = int.from_bytes(prcb[thread_at : thread_at + _POINTER], "little")
        if thread and self.layout.thread.size:
            yield thread, self.layout.thread
            data = self._section(self.layout.thread)
            process = int.from_bytes(data[process_at : process_at + _POINTER], "little")
            if process and self.layout.process.size:
                yield process, self.layout.process

    def _section(self, section: TriageBlock) -> bytes:
        return self._read(section.file_offset, section.size) if section.size else b""

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
