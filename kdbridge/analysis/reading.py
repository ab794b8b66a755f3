"""A source of which no byte is read twice, and of which every byte that could not be read is remembered."""

from __future__ import annotations

import bisect
from collections.abc import Awaitable, Callable

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.file_facts import FileFacts, told_by_file
from kdbridge.source import PhysicalMemory, Source, StopEvent, VirtualMemory
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

__all__ = ["ReadOnce"]

_Keep = Callable[[int, bytes], None]


class _Once:
    """Virtual memory: what came is kept, what was refused is not asked for again."""

    def __init__(self, virtual: VirtualMemory, keep: _Keep | None, *, whole_pages: bool) -> None:
        self._virtual = virtual
        self._whole_pages = whole_pages
        self._keep = keep
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._data: list[bytearray] = []
        self.refused: dict[int, str] = {}
        """Pages (by their addresses' first byte) that cannot be read, and why."""
        self.bytes_read = 0

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        done = 0
        while done < size:
            at = address + done
            index = bisect.bisect_right(self._starts, at) - 1
            if index >= 0 and at < self._ends[index]:
                done += min(self._ends[index] - at, size - done)
                continue
            await self._fetch(at, address, size, done)
        return self._gather(address, size)

    async def _fetch(self, at: int, address: int, size: int, done: int) -> None:
        """Bring what is missing from `at` on: to the next piece that is there, or to the end of the page or range."""
        after = bisect.bisect_right(self._starts, at)
        page = at & ~(PAGE_SIZE - 1)
        # Not beyond the page: what came of it would be lost where the next one cannot be read.
        end = min(address + size, page + PAGE_SIZE, self._starts[after] if after < len(self._starts) else 1 << 64)
        if page in self.refused and self._whole_pages:
            raise MemoryFault(self.refused[page], address=at, size=size, done=done, virtual=True)
        try:
            data = await self._virtual.read(VirtualAddress(at), end - at)
        except MemoryFault as fault:
            bad = at + fault.done & ~(PAGE_SIZE - 1)
            self.refused.setdefault(bad, str(fault))
            if not fault.done:
                raise MemoryFault(str(fault), address=at, size=size, done=done, virtual=True) from None
            data = await self._virtual.read(VirtualAddress(at), fault.done)
        self._put(at, data)

    def _put(self, at: int, data: bytes) -> None:
        self.bytes_read += len(data)
        if self._keep is not None:
            self._keep(at, data)
        index = bisect.bisect_right(self._starts, at)
        if index and self._ends[index - 1] == at:
            index -= 1
            self._data[index] += data
            self._ends[index] += len(data)
        else:
            self._starts.insert(index, at)
            self._ends.insert(index, at + len(data))
            self._data.insert(index, bytearray(data))
        if index + 1 < len(self._starts) and self._starts[index + 1] == self._ends[index]:
            self._data[index] += self._data.pop(index + 1)
            self._ends[index] = self._ends.pop(index + 1)
            del self._starts[index + 1]

    def _gather(self, address: int, size: int) -> bytes:
        index = bisect.bisect_right(self._starts, address) - 1
        at = address - self._starts[index] if index >= 0 else 0
        return bytes(self._data[index][at : at + size]) if size else b""


class ReadOnce:
    """Any Source, read through a memory of what came. `keep` is told each piece once, with its address."""

    def __init__(self, source: Source, keep: _Keep | None = None) -> None:
        self.source = source
        # A file may hold a part of a page (a small dump's pieces), and to ask one again costs nothing.
        self._virtual = _Once(source.virtual, keep, whole_pages=not hasattr(type(source), "held"))
        self._registers: dict[tuple[str, int], Structure | TargetRefusedError] = {}

    @property
    def file_facts(self) -> FileFacts | None:
        """What the file behind it tells, if there is one."""
        return told_by_file(self.source)

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def physical(self) -> PhysicalMemory | None:
        """The source's, as it is."""
        return self.source.physical

    @property
    def virtual(self) -> VirtualMemory:
        """The source's, each byte once."""
        return self._virtual

    @property
    def stop(self) -> StopEvent | None:
        """The source's."""
        return self.source.stop

    @property
    def bytes_read(self) -> int:
        """Bytes of virtual memory that the source was asked for and gave."""
        return self._virtual.bytes_read

    @property
    def refused(self) -> tuple[tuple[int, str], ...]:
        """Pages that could not be read: their addresses, and why."""
        return tuple(sorted(self._virtual.refused.items()))

    async def version(self) -> GetVersion64:
        """The source's."""
        return await self.source.version()

    async def context(self, processor: int) -> Structure:
        """The source's, asked for once."""
        return await self._asked(self.source.context, processor)

    async def special_registers(self, processor: int) -> Structure:
        """The source's, asked for once."""
        return await self._asked(self.source.special_registers, processor)

    async def _asked(self, ask: Callable[[int], Awaitable[Structure]], processor: int) -> Structure:
        key = (ask.__name__, processor)
        if key not in self._registers:
            try:
                self._registers[key] = await ask(processor)
            except TargetRefusedError as refusal:
                self._registers[key] = refusal
        found = self._registers[key]
        if isinstance(found, TargetRefusedError):
            raise found
        return found
