"""memory.raw: the page of frame n at n x 4096. Pages are gathered before they are written; runs of zeros stay holes."""

from __future__ import annotations

import os

from kdbridge.positioned import read_at, write_at
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun

from .syncing import Syncing

__all__ = ["PageFile"]

_GATHERED = 1 << 18
_ZEROS = bytes(PAGE_SIZE)


class PageFile:
    """The file and what is not in it yet. Every method may raise OSError, and then nothing is lost by it."""

    __slots__ = ("_buffer", "_fd", "_first", "_syncing")

    def __init__(self, fd: int) -> None:
        """Over an open file, which is this object's to close."""
        self._fd = fd
        self._buffer = bytearray()
        self._first = 0
        self._syncing = Syncing()

    @property
    def closed(self) -> bool:
        """Whether the file was given back."""
        return self._fd < 0

    def put(self, pfn: int, data: bytes | memoryview) -> None:
        """Add a page. An error says that it was not added."""
        size = len(self._buffer)
        if size >= _GATHERED or (size and pfn << PAGE_SHIFT != self._first * PAGE_SIZE + size):
            self.write_out()
        if not self._buffer:
            self._first = pfn
        self._buffer += data

    def replace(self, pfn: int, data: bytes | memoryview) -> None:
        """Write a page over another that is there, zeros too."""
        self.write_out()
        write_at(self._fd, bytes(data), pfn << PAGE_SHIFT)

    def write_out(self) -> None:
        """Put the gathered pages in their place. They stay gathered where that fails."""
        if not self._buffer:
            return
        base = self._first * PAGE_SIZE
        data = bytes(self._buffer)
        start = 0
        for at in range(0, len(data) + 1, PAGE_SIZE):
            if at == len(data) or data[at : at + PAGE_SIZE] == _ZEROS:
                write_at(self._fd, data[start:at], base + start)
                start = at + PAGE_SIZE
        size = base + len(data)
        if os.fstat(self._fd).st_size < size:
            os.ftruncate(self._fd, size)
        self._buffer.clear()

    def give_up(self) -> PageRun:
        """Forget what could not be written; which frames these were."""
        lost = PageRun(self._first, -(-len(self._buffer) // PAGE_SIZE))
        self._buffer.clear()
        return lost

    def page(self, pfn: int) -> bytes:
        """A page that was put."""
        at = pfn - self._first << PAGE_SHIFT
        if 0 <= at < len(self._buffer):
            return bytes(self._buffer[at : at + PAGE_SIZE])
        return self._read(PAGE_SIZE, pfn << PAGE_SHIFT)

    def run(self, run: PageRun) -> bytes:
        """Consecutive pages that were put."""
        self.write_out()
        return self._read(run.page_count << PAGE_SHIFT, run.base_page << PAGE_SHIFT)

    def _read(self, size: int, offset: int) -> bytes:
        return read_at(self._fd, size, offset).ljust(size, b"\0")

    # ---- durability ----------------------------------------------------------------------------------------

    @property
    def syncing(self) -> bool:
        """Whether pages are being made durable that `settle` was not called for."""
        return self._syncing.busy

    def begin_sync(self) -> None:
        """Begin to make durable what was put up to now, beside whoever goes on."""
        self.write_out()
        self._syncing.begin(self._fd)

    def settle(self) -> None:
        """Wait until it is."""
        self._syncing.settle()

    def sync(self) -> None:
        """Make durable what was written out."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Give the file back; what is gathered is not written."""
        self._syncing.close()
        os.close(self._fd)
        self._fd = -1
