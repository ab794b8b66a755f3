"""Virtual memory through page tables that were read: of a Snapshot, a dump, a raw image, or another process."""

from __future__ import annotations

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SIZE, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import PagingGeometry

from .translate import Translator

__all__ = ["PagedVirtualMemory"]


class PagedVirtualMemory:
    """Memory by virtual address below one directory table base."""

    __slots__ = ("_physical", "translator")

    def __init__(
        self, physical: PhysicalMemory, geometry: PagingGeometry, root: int, runs: PageRuns | None = None
    ) -> None:
        """`root` and `runs` as in Translator."""
        self._physical = physical
        self.translator = Translator(physical, geometry, root, runs=runs)

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that cannot be had."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            found = await self.translator.translate(at)
            problem = found.reason
            if found.physical is not None:
                try:
                    parts.append(await self._physical.read(PhysicalAddress(found.physical), length))
                    done += length
                    continue
                except MemoryFault as fault:
                    problem = str(fault)
                    done += fault.done
            raise MemoryFault(
                f"virtual address {address + done:#x} cannot be read: {problem}",
                address=address + done,
                size=size,
                done=done,
                virtual=True,
            )
        return b"".join(parts)
