"""The PFN database in memory: a record for each frame of RAM, made when somebody reads it."""

from __future__ import annotations

import bisect
import hashlib
import operator
import struct
from collections.abc import Callable
from functools import lru_cache

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.layouts.pfn import PageLocation

from .frame_states import FrameState, FrameStates
from .image import PageBacking
from .paging import MIB2, PteFlag
from .pfn_layout import PfnLayout
from .space import KernelSpace

__all__ = ["PfnArray", "RecordCodec"]

_LARGE = MIB2 >> PAGE_SHIFT
_READ_WRITE = 4 << 5
_SUBSECTION = 0xFFFFA000_00000000
_CACHED, _NOT_MAPPED, _MODIFIED = 1 << 6, 3 << 6, 1 << 4
_PROTOTYPE, _LOCKED = 1 << 57, 1 << 63
_ON_A_LIST = frozenset({PageLocation.ZEROED, PageLocation.FREE, PageLocation.STANDBY, PageLocation.MODIFIED,
                        PageLocation.MODIFIED_NO_WRITE, PageLocation.BAD})  # fmt: skip
_LOCK_EVERY = 997
_KEPT_PAGES = 64


class RecordCodec:
    """Writes records of one layout."""

    def __init__(self, layout: PfnLayout) -> None:
        fields = [
            (layout.link, "Q", 0),
            (layout.share_count, "Q", 1),
            (layout.pte_address, "Q", 2),
            (layout.pte_frame, "Q", 3),
            (layout.reference_count, "H", 4),
            (layout.location, "B", 5),
        ]
        if layout.original_pte is not None:
            fields.append((layout.original_pte, "Q", 6))
        text, end = "<", 0
        for offset, letter, _ in sorted(fields):
            text += f"{offset - end}x{letter}"
            end = offset + struct.calcsize(f"<{letter}")
        self._struct = struct.Struct(f"{text}{layout.record_size - end}x")
        self._in_order = operator.itemgetter(*(number for _, _, number in sorted(fields)))
        self._layout = layout

    def untouched(self, pfn: int, location: PageLocation) -> bytes:
        """A frame that is zeroed or free: neighbours of its list, and nothing else."""
        return self._struct.pack(*self._in_order((pfn + 1, _before(pfn), 0, 0, 0, location | _NOT_MAPPED, 0)))

    def untouched_run(self, first: int, count: int, location: PageLocation) -> bytes:
        """So many such frames, one behind the other: byte by byte of all at once, because most frames are so."""
        size = self._layout.record_size
        run = bytearray(self.untouched(first, location) * count)
        for offset, start in ((self._layout.link, first + 1), (self._layout.share_count, first - 1)):
            numbers = struct.pack(f"<{count}q", *range(start, start + count))
            for byte in range(8):
                run[offset + byte :: size] = numbers[byte::8]
        return bytes(run)

    def encode(self, pfn: int, state: FrameState, *, written: bool = False) -> bytes:
        """The record of a frame in any state; `written`: it was modified through a mapping that is gone."""
        location = state.location
        if location in (PageLocation.ZEROED, PageLocation.FREE):
            return self.untouched(pfn, location)
        listed = location in _ON_A_LIST
        second = _before(pfn) if listed else state.share_count
        if not listed and pfn % _LOCK_EVERY == 0:
            second |= _LOCKED
        dirty = written or location in (PageLocation.MODIFIED, PageLocation.MODIFIED_NO_WRITE)
        values = (
            pfn + 1 if listed else pfn & 0xFFF,
            second,
            state.pte_address,
            state.pte_frame | (_PROTOTYPE if state.prototype else 0),
            0 if listed else 1,
            location | _CACHED | (_MODIFIED if dirty else 0),
            _SUBSECTION + pfn * 0x40 | PteFlag.PROTOTYPE if state.prototype else _READ_WRITE,
        )
        return self._struct.pack(*self._in_order(values))


def _before(pfn: int) -> int:
    """The frame before it on a list; nothing but ones before frame 0."""
    return pfn - 1 & (1 << 64) - 1


class PfnArray:
    """The array's place: by large pages where memory has such blocks, which it takes when it is made; filled later."""

    def __init__(self, space: KernelSpace, layout: PfnLayout) -> None:
        self._space = space
        self._layout = layout
        self._pieces: list[tuple[int, int]] = []  # first frame, page of the array that lies there
        self._runs: list[PageRun] = []
        size = layout.record_size
        needed = PageRuns(
            PageRun(first, (run.end_page * size - 1 >> PAGE_SHIFT) + 1 - first)
            for run in space.image.runs
            for first in (run.base_page * size >> PAGE_SHIFT,)
        )
        self._small = PageRuns()
        for chunk in sorted(
            {at for run in needed for at in range(run.base_page // _LARGE, -(-run.end_page // _LARGE))}
        ):
            window = PageRuns([PageRun(chunk * _LARGE, _LARGE)]) & needed
            block = None
            if space.large_pages and window.page_count * 2 > _LARGE:
                block = space.frames.allocate_block(_LARGE, _LARGE)
            if block is None:
                self._small |= window
            else:
                space.tables.map(space.addresses.pfn_database + chunk * MIB2, block << PAGE_SHIFT, MIB2)
                self._add(block, chunk * _LARGE, _LARGE)

    def map_rest(self) -> None:
        """Map what has no large pages, once all others have taken their blocks: single pages lie all over memory."""
        for page in self._small.pages():
            address = self._space.addresses.pfn_database + page * PAGE_SIZE
            self._add(self._space.map_fresh(address) >> PAGE_SHIFT, page, 1)

    def _add(self, pfn: int, page: int, pages: int) -> None:
        bisect.insort(self._pieces, (pfn, page))
        self._runs.append(PageRun(pfn, pages))

    def fill(self, states: FrameStates, written: frozenset[int] = frozenset()) -> None:
        """Let the array say what is true. `written` frames were modified through mappings that are gone."""
        size, codec = self._layout.record_size, RecordCodec(self._layout)

        def make(page: int) -> bytes:
            start = page * PAGE_SIZE
            first, last = start // size, (start + PAGE_SIZE - 1) // size
            if states.is_untouched(first, last):
                parts = [codec.untouched_run(*stretch) for stretch in states.untouched(first, last)]
            else:
                known = ((pfn, states.state(pfn)) for pfn in range(first, last + 1))
                parts = [
                    bytes(size) if state is None else codec.encode(pfn, state, written=pfn in written)
                    for pfn, state in known
                ]
            return b"".join(parts)[start - first * size :][:PAGE_SIZE]

        self._back(make)

    def scramble(self, seed: int) -> None:
        """Let the array say nothing: bytes that no layout makes sense of."""
        prefix = f"scrambled {seed} ".encode()
        self._back(lambda page: hashlib.shake_128(prefix + page.to_bytes(8, "little")).digest(PAGE_SIZE))

    def _back(self, make: Callable[[int], bytes]) -> None:
        kept = lru_cache(maxsize=_KEPT_PAGES)(make)

        def read_page(pfn: int) -> bytes:
            start, page = self._pieces[bisect.bisect_right(self._pieces, (pfn, 1 << 60)) - 1]
            return kept(page + pfn - start)

        self._space.image.add_backing(PageBacking(PageRuns(self._runs), read_page))
