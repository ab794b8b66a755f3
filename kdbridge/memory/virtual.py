"""Virtual memory through page tables that were read: of a Snapshot, a dump, a raw image, or another process."""

from __future__ import annotations

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SIZE, PhysicalAddress, VirtualAddress
from protocol.arch import PagingGeometry

from .translate import Translator

__all__ = ["PagedVirtualMemory"]


class PagedVirtualMemory:
    """Memory by virtual address below one directory table base."""

    __slots__ = ("_physical", "_translator")

    def __init__(self, physical: PhysicalMemory, geometry: PagingGeometry, root: int) -> None:
        self._physical = physical
        self._translator = Translator(physical, geometry, root)

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            found = await self._translator.translate(at)
            problem = found.reason
            if found.physical is not None:
                try:
                    parts.append(await self._physical.read(PhysicalAddress(found.physical), length))
                    done += length
                    continue
                except MemoryFault as fault:
                    problem = str(fault)
            raise MemoryFault(
                f"virtual address {at:#x} cannot be read: {problem}", address=at, size=size, done=done, virtual=True
            )
        return b"".join(parts)
