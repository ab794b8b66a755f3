"""Memory of which only pieces are known, a page at a time."""

from __future__ import annotations

from protocol.address import PAGE_SHIFT, PAGE_SIZE

__all__ = ["SparseBytes"]

_INSIDE = PAGE_SIZE - 1


class SparseBytes:
    """Pieces at addresses. What was put first at an address stays there."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        # The page's bytes, and which of them are known: bit n for byte n.
        self._pages: dict[int, tuple[bytearray, int]] = {}

    def put(self, address: int, data: bytes) -> None:
        """Keep what is not known yet."""
        at = 0
        while at < len(data):
            page, offset = (address + at) >> PAGE_SHIFT, (address + at) & _INSIDE
            part = data[at : at + PAGE_SIZE - offset]
            content, known = self._pages.get(page) or (bytearray(PAGE_SIZE), 0)
            mask = ((1 << len(part)) - 1) << offset
            if not known & mask:
                content[offset : offset + len(part)] = part
            else:
                for index, byte in enumerate(part, offset):
                    if not known >> index & 1:
                        content[index] = byte
            self._pages[page] = content, known | mask
            at += len(part)

    def get(self, address: int, size: int) -> bytes:
        """What is known from there on, up to the first byte that is not; at most `size` bytes."""
        out = bytearray()
        while len(out) < size:
            page, offset = (address + len(out)) >> PAGE_SHIFT, (address + len(out)) & _INSIDE
            content, known = self._pages.get(page) or (b"", 0)
            behind = known >> offset
            there = (~behind & (behind + 1)).bit_length() - 1
            wanted = min(size - len(out), PAGE_SIZE - offset)
            out += content[offset : offset + min(there, wanted)]
            if there < wanted:
                break
        return bytes(out)

    def __bool__(self) -> bool:
        return bool(self._pages)
