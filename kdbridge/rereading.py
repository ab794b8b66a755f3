"""Pages that failed: gone past while reading, so that they stop nothing, and tried once more at the end, in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

import trio

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, PhysicalAddress
from protocol.manipulate import ApiNumber, Manipulate

from .errors import MemoryFault, TargetChangedError, TargetLostError
from .session import Session
from .source import PageRead, PhysicalMemory

__all__ = ["PatientMemory", "Unread", "reread"]

_PIECE, _SMALLER = 512, 64
"""Bytes asked for at once; and where no answer comes to that."""
_MOST_SILENT = 8
"""After so many pages in a row to which no answer came, nothing more is to be hoped for."""
_MOST_REFUSED = 32
"""After so many pages in a row that are refused again, the rest of a run will be too."""
_STILL_THERE = 10.0
"""Seconds in which a target that is there answers what costs it nothing."""
_NO_ANSWER = "no answer came to it, though the target answers others"
_REFUSED = "the target refused it, in small pieces too"


class PatientMemory:
    """A target's physical memory. A page to which no answer comes is unreadable, as long as others are answered."""

    __slots__ = ("_physical", "_session", "_silent")

    def __init__(self, physical: PhysicalMemory, session: Session) -> None:
        self._physical = physical
        self._session = session
        self._silent = 0

    async def read(self, address: PhysicalAddress, size: int) -> bytes:
        """Exactly `size` bytes. MemoryFault where the target refuses, or answers others, and not this."""
        try:
            data = await self._physical.read(address, size)
        except TargetLostError as error:
            await self._go_past(error)
            raise _Unanswered(
                f"physical address {address:#x}: {_NO_ANSWER}", address=address, size=size, done=0, virtual=False
            ) from None
        self._silent = 0
        return data

    async def read_pages(self, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
        """Every page of these runs, in their order, each once."""
        for run in runs:
            at = run.base_page
            while at < run.end_page:
                try:
                    async with aclosing(self._physical.read_pages([PageRun(at, run.end_page - at)])) as pages:  # type: ignore[type-var]
                        async for page in pages:
                            at = page.pfn + 1
                            self._silent = 0
                            yield page
                except TargetLostError as error:
                    await self._go_past(error)
                    yield PageRead(at, None, _NO_ANSWER)
                    at += 1

    async def _go_past(self, error: TargetLostError) -> None:
        """Raises the error where it says more than that this one request failed."""
        self._silent += 1
        if isinstance(error, TargetChangedError) or self._silent > _MOST_SILENT or not await self._still_there():
            raise error

    async def _still_there(self) -> bool:
        with trio.move_on_after(_STILL_THERE):
            try:
                await self._session.ask(Manipulate.request(ApiNumber.GET_VERSION))
            except TargetChangedError:
                raise
            except TargetLostError:
                return False
            return True
        return False


class Unread:
    """Pages that stay unreadable, by reason."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[str, list[int]] = {}

    def add(self, page: PageRead) -> None:
        """One more."""
        self._pages.setdefault(page.reason, []).append(page.pfn)

    @property
    def by_reason(self) -> dict[str, PageRuns]:
        """Which pages, by what was said of them."""
        return {reason: PageRuns.from_pages(pages) for reason, pages in self._pages.items()}

    def lines(self, most: int = 8) -> list[str]:
        """For a person: each reason with its pages, the first runs of them."""
        told: list[str] = []
        for reason, runs in self.by_reason.items():
            shown = [
                f"{run.base_page:#x}" + (f"-{run.end_page - 1:#x}" if run.page_count > 1 else "")
                for run in list(runs)[:most]
            ]
            more = f" and {len(runs) - most} more runs" if len(runs) > most else ""
            pages, frames = ("1 page", "frame") if runs.page_count == 1 else (f"{runs.page_count} pages", "frames")
            told.append(f"{pages}, {reason}: {frames} {', '.join(shown)}{more}")
        return told


async def reread(physical: PhysicalMemory, runs: Iterable[PageRun]) -> AsyncIterator[PageRead]:
    """These pages once more, in small pieces: whole where all pieces came, or with the reason why not.

    Where a run of pages is refused page after page, its rest is not asked for again; nor is anything where no answer
    comes to one page after the other.
    """
    silent = 0
    for run in runs:
        refused = 0
        for pfn in range(run.base_page, run.end_page):
            if silent >= _MOST_SILENT or refused >= _MOST_REFUSED:
                yield PageRead(pfn, None, _NO_ANSWER if silent >= _MOST_SILENT else _REFUSED)
                continue
            page = await _in_pieces(physical, pfn)
            silent = silent + 1 if page.reason.endswith(_NO_ANSWER) else 0
            refused = refused + 1 if page.reason == _REFUSED else 0
            yield page


async def _in_pieces(physical: PhysicalMemory, pfn: int) -> PageRead:
    base = pfn << PAGE_SHIFT
    parts: list[bytes] = []
    try:
        for at in range(base, base + PAGE_SIZE, _PIECE):
            try:
                parts.append(await physical.read(PhysicalAddress(at), _PIECE))
            except _Unanswered:
                smaller = range(at, at + _PIECE, _SMALLER)
                parts += [await physical.read(PhysicalAddress(one), _SMALLER) for one in smaller]
    except _Unanswered:
        return PageRead(pfn, None, _NO_ANSWER)
    except MemoryFault:
        return PageRead(pfn, None, _REFUSED)
    return PageRead(pfn, b"".join(parts))


class _Unanswered(MemoryFault):
    """Memory to which no answer comes from a target that answers."""
