"""Pieces of virtual memory put together: overlapping ones become one, what is known better lies on top."""

from __future__ import annotations

from collections.abc import Iterable

from kdbridge.errors import MemoryFault
from kdbridge.source import VirtualMemory
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.pieces import without_overlaps

__all__ = ["Patchwork", "available"]


async def available(memory: VirtualMemory, address: int, size: int) -> list[tuple[int, bytes]]:
    """What there is of a range: each piece as far as it goes, and again from the next page on."""
    found: list[tuple[int, bytes]] = []
    at, end = address, min(address + size, 1 << 64)
    while address and at < end:
        try:
            found.append((at, await memory.read(VirtualAddress(at), end - at)))
            break
        except MemoryFault as fault:
            if fault.done:
                found.append((at, await memory.read(VirtualAddress(at), fault.done)))
            at = (at + fault.done & ~(PAGE_SIZE - 1)) + PAGE_SIZE
    return found


class Patchwork:
    """A few thousand pieces at most: small dumps are made of it."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes]] = []
        self._known: list[tuple[int, bytes]] = []

    def add(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Pieces of memory, each with its address."""
        self._pieces += ((address, bytes(data)) for address, data in pieces if data)

    def know(self, address: int, data: bytes) -> None:
        """What the target said by another way than its memory: it is laid over what memory holds."""
        if address and data:
            self._known.append((address, data))

    def blocks(self) -> list[tuple[int, bytes]]:
        """Everything, ascending, without overlaps; neighbours are one block."""
        # Of two pieces the first counts: the latest of what is known, then of memory the one that begins last.
        order = [*reversed(self._known), *sorted(self._pieces, key=lambda piece: piece[0], reverse=True)]
        blocks: list[tuple[int, bytearray]] = []
        for part in without_overlaps([(address, len(data)) for address, data in order]):
            address, data = order[part.piece]
            if not blocks or blocks[-1][0] + len(blocks[-1][1]) != part.start:
                blocks.append((part.start, bytearray()))
            blocks[-1][1].extend(data[part.start - address : part.end - address])
        return [(start, bytes(block)) for start, block in blocks]
