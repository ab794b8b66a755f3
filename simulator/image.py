"""The simulated machine's physical memory: sparse pages over runs, holes, device memory, and what will not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns

__all__ = ["DeviceAccess", "MemoryImage", "PageBacking"]

_ZEROS = bytes(PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class PageBacking:
    """Pages that exist before anything is written: in a file, or computed on demand. Costs no memory here.

    `read_page` is asked for frames in `pages` only; fewer than 4,096 bytes are filled up with zeros, None means that
    the page cannot be read (the file ends before it).
    """

    pages: PageRuns
    read_page: Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """Somebody touched device memory, which no debugger may: a device would have noticed."""

    address: int
    size: int
    write: bool


class MemoryImage:
    """Sparse physical memory. Pages of a run that were never written are zeros and cost nothing.

    Pages are kept as immutable bytes, so a copy shares them until one side writes.
    """

    __slots__ = ("_backings", "_pages", "device", "device_accesses", "runs", "unreadable")

    def __init__(
        self,
        runs: PageRuns,
        *,
        device: PageRuns | None = None,
        unreadable: set[int] | None = None,
        backings: tuple[PageBacking, ...] = (),
    ) -> None:
        """`runs` are the frames of RAM; an access outside them fails, and is recorded when it hits `device`."""
        self.runs = runs
        self.device = device or PageRuns()
        """Frames of device memory. Every access is recorded in `device_accesses`, and fails."""
        self.unreadable = unreadable if unreadable is not None else set()
        """Frames of the runs that fail all the same: kept by a secure kernel, or hot-removed."""
        self.device_accesses: list[DeviceAccess] = []
        self._backings = backings
        self._pages: dict[int, bytes] = {}

    @classmethod
    def from_raw(cls, read_at: Callable[[int, int], bytes], size: int, runs: PageRuns | None = None) -> MemoryImage:
        """A raw file as memory: frame n lies at n x 4096. `read_at(offset, size)` is called when a page is read.

        Without `runs` the whole file is one run; a last page that is cut short ends in zeros.
        """
        pages = PageRuns([PageRun(0, (size + PAGE_SIZE - 1) >> PAGE_SHIFT)])
        backing = PageBacking(pages, lambda pfn: read_at(pfn << PAGE_SHIFT, PAGE_SIZE))
        return cls(runs or pages, backings=(backing,))

    def add_backing(self, backing: PageBacking) -> None:
        """Put pages under what is written; the first backing that has a frame wins."""
        self._backings = (*self._backings, backing)

    def copy(self) -> MemoryImage:
        """The same memory again; a write to one side does not show on the other. Accesses are counted anew."""
        image = MemoryImage(self.runs, device=self.device, unreadable=set(self.unreadable), backings=self._backings)
        image._pages = dict(self._pages)
        return image

    def read_page(self, pfn: int) -> bytes | None:
        """One page; None outside the runs, for device memory (recorded) and for pages that fail."""
        if pfn not in self.runs or pfn in self.unreadable:
            if pfn in self.device:
                self.device_accesses.append(DeviceAccess(pfn << PAGE_SHIFT, PAGE_SIZE, write=False))
            return None
        return self._content(pfn)

    def read_some(self, address: int, size: int) -> bytes:
        """As many bytes from `address` on as can be read before the first page that fails: what a target returns."""
        parts: list[bytes] = []
        while size > 0:
            start = address & PAGE_SIZE - 1
            length = min(size, PAGE_SIZE - start)
            page = self._reachable(address, length, write=False)
            if page is None:
                break
            parts.append(page[start : start + length])
            address, size = address + length, size - length
        return b"".join(parts)

    def read(self, address: int, size: int) -> bytes | None:
        """Exactly these bytes, or None when one of them cannot be read."""
        data = self.read_some(address, size)
        return data if len(data) == size else None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> bool:
        """Write these bytes; False, and nothing behind the first page that fails is written, when one cannot be."""
        at = 0
        while at < len(data):
            start = address + at & PAGE_SIZE - 1
            length = min(len(data) - at, PAGE_SIZE - start)
            if length == PAGE_SIZE and (address + at) >> PAGE_SHIFT in self.runs:
                page: bytes | None = _ZEROS  # replaced as a whole: no need to fetch it
            else:
                page = self._reachable(address + at, length, write=True)
            pfn = address + at >> PAGE_SHIFT
            if page is None or pfn in self.unreadable:
                return False
            self._pages[pfn] = page[:start] + bytes(data[at : at + length]) + page[start + length :]
            at += length
        return True

    def content_pages(self) -> Iterator[int]:
        """Frames that may hold something other than zeros, ascending: written ones and those of backings."""
        runs = PageRuns.from_pages(self._pages)
        for backing in self._backings:
            runs |= backing.pages & self.runs
        return runs.pages()

    def digest(self) -> str:
        """A fingerprint of all memory: equal exactly when every page is. Zero pages do not count, however made."""
        total = hashlib.blake2b(digest_size=16)
        for pfn in self.content_pages():
            page = self._content(pfn)
            if page is not None and page != _ZEROS:
                total.update(pfn.to_bytes(8, "little"))
                total.update(page)
        return total.hexdigest()

    def _reachable(self, address: int, length: int, *, write: bool) -> bytes | None:
        pfn = address >> PAGE_SHIFT
        if pfn not in self.runs or pfn in self.unreadable:
            if pfn in self.device:
                self.device_accesses.append(DeviceAccess(address, length, write))
            return None
        return self._content(pfn)

    def _content(self, pfn: int) -> bytes | None:
        page = self._pages.get(pfn)
        if page is not None:
            return page
        for backing in self._backings:
            if pfn in backing.pages:
                data = backing.read_page(pfn)
                return None if data is None else data.ljust(PAGE_SIZE, b"\0")
        return _ZEROS
