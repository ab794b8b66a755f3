"""Virtual memory of which only pieces are there: a small dump's blocks, what a Snapshot was given by address."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator

from kdbridge.errors import MemoryFault
from protocol.address import VirtualAddress
from protocol.pieces import without_overlaps

__all__ = ["BlockMemory"]

_Give = Callable[[int, int], bytes]
_Stretch = tuple[int, int, int, _Give]
"""Where it begins and ends, the address of the block it is a part of, and what gives the block's bytes."""
_NONE: _Stretch = (0, 0, 0, lambda offset, size: b"")


class BlockMemory:
    """Blocks by virtual address. They may overlap: of two that hold a byte, the one given first is read."""

    __slots__ = ("_starts", "_stretches")

    def __init__(self, blocks: Iterable[tuple[int, int, _Give]]) -> None:
        """Each: its address, its size, and what gives `size` bytes from an `offset` into it on."""
        given = list(blocks)
        self._stretches: list[_Stretch] = [
            (part.start, part.end, given[part.piece][0], given[part.piece][2])
            for part in without_overlaps([(address, size) for address, size, _ in given])
        ]
        self._starts = [stretch[0] for stretch in self._stretches]

    async def read(self, address: VirtualAddress, size: int) -> bytes:
        """Exactly `size` bytes, across blocks that touch. MemoryFault names the first byte that is in none."""
        parts: list[bytes] = []
        done = 0
        index = bisect.bisect_right(self._starts, address) - 1
        while done < size:
            at = address + done
            start, end, block, give = self._stretches[index] if 0 <= index < len(self._stretches) else _NONE
            part = give(at - block, min(size - done, end - at)) if start <= at < end else b""
            if not part:
                raise MemoryFault(
                    f"no piece that is there holds virtual address {at:#x}",
                    address=at, size=size, done=done, virtual=True,
                )  # fmt: skip
            parts.append(part)
            done += len(part)
            index += at + len(part) >= end
        return b"".join(parts)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(address, size) of what is covered, ascending; blocks that touch are one."""
        low = high = -1
        for start, end, _, _ in self._stretches:
            if start != high:
                if high > low:
                    yield low, high - low
                low = start
            high = end
        if high > low:
            yield low, high - low
