"""How much one request may bring: what the link carries, what the target was seen to do, and what a reply brought."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from protocol.manipulate import Manipulate

__all__ = ["CacheType", "MemoryReply", "TransferSize", "memory_reply"]

_LEAST_LIMIT = 512
"""Replies shorter than this say something of the memory there, and nothing of the target."""


class CacheType(enum.IntEnum):
    """How a physical page is to be mapped for reading (kd-protocol 3.5)."""

    DEFAULT = 0
    CACHED = 1
    UNCACHED = 2


class MemoryReply(NamedTuple):
    """What one memory request brought: the bytes before the first that could not be read."""

    data: bytes
    complete: bool
    status: int


class TransferSize:
    """Bytes that are asked for at once.

    `carried` gives two sizes: what every target on this link is known to send in one reply, and the most that this
    one may be tried with. More than the first is asked for once a reply proved it; less, once two replies in a row
    came equally short of what was asked, as those of a target do that cuts off what its packets have no room for.
    """

    __slots__ = ("_carried", "_limit", "_proven", "_short")

    def __init__(self, carried: Callable[[], tuple[int, int]]) -> None:
        self._carried = carried
        self._proven = 0
        self._limit: int | None = None
        self._short = 0

    @property
    def now(self) -> int:
        """What a read of memory asks for."""
        known, most = self._carried()
        return self._cut(min(most, max(known, self._proven)))

    @property
    def most(self) -> int:
        """What may be tried where a short answer costs nothing."""
        return self._cut(self._carried()[1])

    def limit(self, size: int) -> None:
        """Never ask for more than this."""
        self._limit = size

    def came(self, size: int) -> None:
        """A reply carried so many bytes."""
        self._proven = max(self._proven, size)

    def came_short(self, size: int) -> None:
        """A read succeeded, and brought fewer bytes than it was asked for."""
        if size >= _LEAST_LIMIT and size == self._short:
            self.limit(size)
        self._short = size

    def _cut(self, size: int) -> int:
        return size if self._limit is None else min(size, self._limit)


def memory_reply(reply: Manipulate, size: int) -> MemoryReply:
    """What a memory reply brought: never more than was asked, than it says, or than it carries (T35, T36)."""
    actual = int.from_bytes(reply.union[12:16], "little")
    good = not reply.status & 0x8000_0000
    # A failure that carries every byte contradicts itself: without the last one, the failing page stays known.
    data = reply.data[: min(actual, size if good else size - 1)]
    return MemoryReply(data, good and bool(data), reply.status)
