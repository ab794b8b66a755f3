"""Whole pages by frame as physical memory: of a dump, a raw image, a Snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from kdbridge.errors import MemoryFault
from kdbridge.source import PageRead
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PhysicalAddress

__all__ = ["PageMemory"]


class _HasPages(Protocol):
    @property
    def name(self) -> str: ...

    def page(self, pfn: int) -> bytes | None: ...


class PageMemory:
    """What is held. What is not is a fault, never zeros."""

    __slots__ = ("_owner",)

    def __init__(self, owner: _HasPages) -> None:
        """`owner.page(frame)` gives 4,096 bytes, or None where it does not hold them."""
        self._owner = owner

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first that is not held."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            page = self._owner.page(at >> PAGE_SHIFT)
            if page is None:
                raise MemoryFault(
                    f"{self._owner.name} does not hold physical address {at:#x}",
                    address=at, size=size, done=done, virtual=False,
                )  # fmt: skip
            parts.append(page[at & PAGE_SIZE - 1 :][:length])
            done += length
        return b"".join(parts)

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of these runs; those that are not held with the reason."""
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                page = self._owner.page(pfn)
                yield PageRead(pfn, page, "" if page is not None else f"{self._owner.name} does not hold it")
