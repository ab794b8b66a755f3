"""Virtual memory of which only pieces are there: a small dump's blocks, what a Snapshot was given by address."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator

from kdbridge.errors import MemoryFault
from protocol.address import VirtualAddress

__all__ = ["BlockMemory"]


class BlockMemory:
    """Blocks by virtual address. They may overlap: what comes first in ascending order of addresses is read."""

    __slots__ = ("_blocks", "_farthest", "_starts")

    def __init__(self, blocks: Iterable[tuple[int, int, Callable[[int, int], bytes]]]) -> None:
        """Each: its address, its size, and what gives `size` bytes from an `offset` into it on."""
        self._blocks = sorted((block for block in blocks if block[1] > 0), key=lambda block: block[:2])
        self._starts = [address for address, _, _ in self._blocks]
        # The last block that begins at or before an address need not be the one that reaches it.
        self._farthest: list[int] = []
        farthest = 0
        for index, (address, size, _) in enumerate(self._blocks):
            best = self._blocks[farthest]
            if address + size > best[0] + best[1]:
                farthest = index
            self._farthest.append(farthest)

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes, across blocks that touch. MemoryFault names the first byte that is in none."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            index = bisect.bisect_right(self._starts, at) - 1
            start, length, give = self._blocks[self._farthest[index]] if index >= 0 else (0, 0, _nothing)
            part = give(at - start, min(size - done, start + length - at)) if start <= at < start + length else b""
            if not part:
                raise MemoryFault(
                    f"no piece that is there holds virtual address {at:#x}",
                    address=at, size=size, done=done, virtual=True,
                )  # fmt: skip
            parts.append(part)
            done += len(part)
        return b"".join(parts)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(address, size) of what is covered, ascending; blocks that touch are one."""
        start = end = -1
        for address, size, _ in self._blocks:
            if address <= end:
                end = max(end, address + size)
                continue
            if end > start:
                yield start, end - start
            start, end = address, address + size
        if end > start:
            yield start, end - start


def _nothing(offset: int, size: int) -> bytes:
    return b""
