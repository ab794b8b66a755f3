"""Virtual memory through page tables that were read: of a Snapshot, a dump, a raw image, or another process."""

from __future__ import annotations

from kdbridge.errors import MemoryFault
from kdbridge.source import PhysicalMemory
from protocol.address import PAGE_SIZE, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import PagingGeometry

from .translate import Translator

__all__ = ["NoMemory", "PagedVirtualMemory", "looks_like_pae"]

_POINTER_RESERVED = 0xFFFF_FFF0_0000_01E6
"""Bits that a page directory pointer of x86 cannot have; an entry of a table without PAE has some of them."""


class NoMemory:
    """Virtual memory of which nothing can be read, and why."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        self._why = why

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """MemoryFault, always."""
        raise MemoryFault(
            f"virtual address {address:#x} cannot be read: {self._why}",
            address=address, size=size, done=0, virtual=True,
        )  # fmt: skip


def looks_like_pae(page: bytes | None, root: int) -> bool | None:
    """Whether the top table of an x86 machine is that of PAE: four pointers. None: it is not there.

    The KDBG says it, too, but lies behind these very tables.
    """
    if root & PAGE_SIZE - 1:
        return True
    if page is None:
        return None
    pointers = [int.from_bytes(page[at : at + 8], "little") for at in range(0, 32, 8)]
    return any(pointers) and all(not one or (one & 1 and not one & _POINTER_RESERVED) for one in pointers)


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
