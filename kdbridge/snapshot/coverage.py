"""Coverage: one state for every page frame, in a sparse file beside the memory it speaks of.

The file: 16 bytes of header ("KDCOVER1", page size, zero), then one byte a frame. A frame whose byte was never
written is missing. Single bytes cannot tear, so a killed writer leaves a file that says less, never more.
"""

from __future__ import annotations

import enum
import os
import re
import struct
from collections.abc import Iterable, Iterator

from kdbridge.errors import SnapshotError
from kdbridge.positioned import read_at, write_at
from protocol.address import PAGE_SIZE, PageRun, PageRuns

__all__ = ["Coverage", "PageState"]

_HEADER = struct.Struct("<8sII")
_MAGIC = b"KDCOVER1"
_CHUNK = 1 << 20
_STATES = re.compile(rb"\x01+|\x02+|\x03+|\x04+|[^\x00-\x04]")


class PageState(enum.IntEnum):
    """What is known of a page frame."""

    MISSING = 0
    READ = 1
    """As the target gave it."""
    UNREADABLE = 2
    """Asked for, and refused."""
    INFERRED_ZERO = 3
    """Not read: the target's PFN database says that it was zeroed and is nobody's."""
    INFERRED_IMAGE = 4
    """Not read: a read-only part of a module, taken from its file."""

    @property
    def inferred(self) -> bool:
        """Whether the content was concluded, not read."""
        return self in (PageState.INFERRED_ZERO, PageState.INFERRED_IMAGE)


class Coverage:
    """Which frames are read and which cannot be. What was added lives in memory until `save`."""

    __slots__ = ("_added", "_fd", "_recent", "_saved")

    def __init__(self, fd: int) -> None:
        """Over an open file that `create` or `load` has made sure of. The file stays the caller's."""
        self._fd = fd
        self._saved: dict[PageState, PageRuns] = {}
        self._recent: dict[int, PageState] = {}
        self._added: dict[PageState, list[PageRun]] = {state: [] for state in PageState if state}

    @classmethod
    def create(cls, fd: int) -> Coverage:
        """Empty coverage in an empty file."""
        write_at(fd, _HEADER.pack(_MAGIC, PAGE_SIZE, 0), 0)
        return cls(fd)

    @classmethod
    def load(cls, fd: int, name: str) -> Coverage:
        """What a file says. Raises SnapshotError when it is not one, or says what this version does not know."""
        head = read_at(fd, _HEADER.size, 0)
        if len(head) < _HEADER.size or _HEADER.unpack(head)[:2] != (_MAGIC, PAGE_SIZE):
            raise SnapshotError(f"{name} is not a coverage file; the Snapshot is damaged or is not one")
        coverage = cls(fd)
        found: dict[PageState, list[PageRun]] = {state: [] for state in PageState if state}
        for state, run in _runs_of(fd, name):
            found[state].append(run)
        coverage._saved = {state: PageRuns(runs) for state, runs in found.items()}
        return coverage

    def add(self, pfn: int, state: PageState) -> None:
        """This frame is known now. What was refused or inferred once and came later is read; what was read stays so."""
        known = self.state_of(pfn)
        if known is state or known is PageState.READ:
            return
        if known is not PageState.MISSING:
            no_more = PageRuns([PageRun(pfn, 1)])
            self._saved[known] = self._saved.get(known, PageRuns()) - no_more
            self._added[known] = [*(PageRuns(self._added[known]) - no_more)]
        self._recent[pfn] = state
        runs = self._added[state]
        if runs and runs[-1].end_page == pfn:
            runs[-1] = PageRun(runs[-1].base_page, runs[-1].page_count + 1)
        else:
            runs.append(PageRun(pfn, 1))

    def add_missing(self, pages: PageRuns, state: PageState) -> None:
        """Those of these frames that were missing are known now."""
        missing = pages - PageRuns(known for one in PageState if one for known in self.runs(one))
        self._saved[state] = self.runs(state) | missing
        self._added[state] += missing

    def forget(self, run: PageRun) -> None:
        """These frames, added since the last `save`, are not known after all."""
        gone = PageRuns([run])
        for state, runs in self._added.items():
            self._added[state] = [*(PageRuns(runs) - gone)]
        for pfn in range(run.base_page, run.end_page):
            self._recent.pop(pfn, None)

    def state_of(self, pfn: int) -> PageState:
        """What is known of one frame."""
        if pfn in self._recent:
            return self._recent[pfn]
        return next((state for state, runs in self._saved.items() if pfn in runs), PageState.MISSING)

    @property
    def empty(self) -> bool:
        """Whether nothing is known of any frame."""
        return not any(self.runs(state) for state in PageState if state is not PageState.MISSING)

    def runs(self, state: PageState) -> PageRuns:
        """All frames in this state."""
        return PageRuns([*self._saved.get(state, PageRuns()), *self._added.get(state, [])])

    def added(self) -> dict[PageState, PageRuns]:
        """What is not saved yet, for a later `save`."""
        return {state: PageRuns(runs) for state, runs in self._added.items()}

    def save(self, only: dict[PageState, PageRuns] | None = None) -> None:
        """Write what was added, or `only` so much of it. The memory it speaks of must be durable before."""
        for state, added in self._added.items():
            runs = PageRuns(added) if only is None else only[state] & PageRuns(added)
            for run in runs:
                for at in range(0, run.page_count, _CHUNK):
                    count = min(_CHUNK, run.page_count - at)
                    write_at(self._fd, bytes([state]) * count, _HEADER.size + run.base_page + at)
            if runs:
                self._saved[state] = self._saved.get(state, PageRuns()) | runs
                self._added[state] = [*(PageRuns(added) - runs)]
        left = self._added.items()
        self._recent = {pfn: state for state, runs in left for pfn in PageRuns(runs).pages()}


def _runs_of(fd: int, name: str) -> Iterator[tuple[PageState, PageRun]]:
    for start, end in _written(fd):
        for at in range(start, end, _CHUNK):
            chunk = read_at(fd, min(_CHUNK, end - at), at)
            yield from _split(chunk, at - _HEADER.size, name)


def _written(fd: int) -> Iterable[tuple[int, int]]:
    """The parts of the file that are not holes, behind the header."""
    size = os.fstat(fd).st_size
    if not hasattr(os, "SEEK_DATA"):
        return [(_HEADER.size, size)]
    parts: list[tuple[int, int]] = []
    at = _HEADER.size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        parts.append((max(start, _HEADER.size), end))
        at = end
    return parts


def _split(chunk: bytes, base: int, name: str) -> Iterator[tuple[PageState, PageRun]]:
    for found in _STATES.finditer(chunk):
        value = found[0][0]
        if value > max(PageState):
            raise SnapshotError(
                f"{name} holds the state {value} at frame {base + found.start():#x}, which this version does not know"
            )
        yield PageState(value), PageRun(base + found.start(), len(found[0]))
