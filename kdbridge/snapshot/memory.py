"""The pages of a Snapshot as physical memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from kdbridge.errors import MemoryFault
from kdbridge.source import PageRead
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PhysicalAddress

__all__ = ["SnapshotMemory"]


class _Pages(Protocol):
    def page(self, pfn: int) -> bytes | None: ...


class SnapshotMemory:
    """What is held. What is not is a fault, never zeros."""

    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: _Pages) -> None:
        self._snapshot = snapshot

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault names the first byte that was not read from the target."""
        parts: list[bytes] = []
        done = 0
        while done < size:
            at = address + done
            length = min(size - done, PAGE_SIZE - (at & PAGE_SIZE - 1))
            page = self._snapshot.page(at >> PAGE_SHIFT)
            if page is None:
                raise MemoryFault(
                    f"the Snapshot does not hold physical address {at:#x}",
                    address=at,
                    size=size,
                    done=done,
                    virtual=False,
                )
            parts.append(page[at & PAGE_SIZE - 1 :][:length])
            done += length
        return b"".join(parts)

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of these runs; those that are missing with the reason."""
        for run in runs:
            for pfn in range(run.base_page, run.end_page):
                page = self._snapshot.page(pfn)
                yield PageRead(pfn, page, "" if page is not None else "the Snapshot does not hold it")
