"""What an analysis could not find out, and which memory it lacked: one part may fail, and the others go on."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TypeVar

from kdbridge.discovery.notes import try_read
from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.source import Source
from protocol.address import PAGE_SIZE
from protocol.errors import DumpFormatError, LayoutError

from .model import Missing
from .reading import ReadOnce

__all__ = ["Shortcomings", "pages_of", "unreadable"]

_T = TypeVar("_T")
_MOST_RANGES = 64


class Shortcomings:
    """Collects what is missing while parts of an analysis do their work."""

    def __init__(self, source: ReadOnce) -> None:
        self._source = source
        self._found: dict[tuple[str, str], Missing] = {}
        self._seen: set[int] = set()

    def add(self, what: str, why: str, ranges: tuple[tuple[int, int], ...] = ()) -> None:
        """Something is missing. What was said before is not said again."""
        self._found.setdefault((what, why), Missing(what, why, ranges))

    def extend(self, missing: Iterable[Missing]) -> None:
        """What a part says itself."""
        for one in missing:
            self.add(one.what, one.why, one.ranges)

    @property
    def found(self) -> tuple[Missing, ...]:
        """All of it, in the order in which it was met."""
        return tuple(self._found.values())

    async def part(self, what: str, work: Awaitable[_T]) -> _T | None:
        """Carry out one part. What it cannot read, or what is not as it should be, is missing, and no more.

        A target that is lost, or a file that cannot be read any more, is another matter: that is raised.
        """
        self.mark()
        try:
            return await work
        except (MemoryFault, TargetRefusedError, LayoutError, DumpFormatError) as error:
            self.add(what, str(error), self.refused())
            return None

    def mark(self) -> None:
        """From here on, `refused` counts."""
        self._seen = {page for page, _ in self._source.refused}

    def refused(self) -> tuple[tuple[int, int], ...]:
        """(address, size) of what could not be read since the mark, pages that touch put together."""
        ranges: list[tuple[int, int]] = []
        for page, _ in self._source.refused:
            if page in self._seen:
                continue
            if ranges and sum(ranges[-1]) == page:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + PAGE_SIZE)
            else:
                ranges.append((page, PAGE_SIZE))
        return tuple(ranges[:_MOST_RANGES])


async def unreadable(source: Source, *ranges: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Those of these (address, size) that cannot be read as a whole."""
    return tuple([one for one in dict.fromkeys(ranges) if await try_read(source, *one) is None])


def pages_of(address: int, size: int) -> tuple[tuple[int, int], ...]:
    """A range page by page: (address, size) of each piece."""
    starts = (address, *range((address & -PAGE_SIZE) + PAGE_SIZE, address + size, PAGE_SIZE))
    return tuple((at, min(PAGE_SIZE - at % PAGE_SIZE, address + size - at)) for at in starts)
