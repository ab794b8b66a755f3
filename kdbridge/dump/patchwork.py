"""Pieces of virtual memory put together: overlapping ones become one, what is known better lies on top."""

from __future__ import annotations

from collections.abc import Iterable

from kdbridge.errors import MemoryFault
from kdbridge.source import VirtualMemory
from protocol.address import PAGE_SIZE, VirtualAddress

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
        merged: list[tuple[int, int]] = []
        for address, data in sorted([*self._pieces, *self._known], key=lambda piece: piece[0]):
            end = address + len(data)
            if merged and address <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((address, end))
        blocks = [(start, bytearray(end - start)) for start, end in merged]
        for pieces in (self._pieces, self._known):
            ordered = sorted(pieces, key=lambda piece: piece[0]) if pieces is self._pieces else pieces
            for address, data in ordered:
                start, block = next((start, block) for start, block in blocks if start <= address < start + len(block))
                block[address - start : address - start + len(data)] = data
        return [(start, bytes(block)) for start, block in blocks]
