"""Which pages a dump has: asked about some, it reads no others; too torn a set is refused by name."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kdbridge.errors import DumpError
from kdbridge.memory import files, stored
from kdbridge.memory.files import DumpFile
from kdbridge.progress import Progress
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import encode_header, plan_bitmap
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpType
from tests.dumps import HEADER, written

_FAR = 1 << 20
_HUGE = 1 << 28
"""Pages: 1 TiB, of which the file system keeps nothing."""


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A complete dump: frames 16 to 31, of which 17 and 20 are marks, and 1 TiB that is a hole."""
    path = tmp_path / "sparse.dmp"
    runs = (PageRun(16, 16), PageRun(_FAR, _HUGE))
    pages = [UNREADABLE_PAGE if at in (1, 4) else bytes([at + 1]) * PAGE_SIZE for at in range(16)]
    with path.open("wb") as file:
        file.write(encode_header(replace(HEADER, physical_memory=runs)))
        file.writelines(pages)
        file.truncate(file.tell() + _HUGE * PAGE_SIZE)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that were read of any file; nobody may read 64 MiB."""
    sizes: list[int] = []

    def counted(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        assert sum(sizes) < 64 << 20, "it reads the whole file"
        return os.pread(fd, size, offset)

    monkeypatch.setattr(files, "read_at", counted)
    return sizes


@pytest.mark.parametrize("few", [0, 1 << 14], ids=["by runs", "one by one"])
async def test_what_is_not_asked_for_is_not_read(
    sparse: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(stored, "_FEW", few)
    with DumpFile(sparse) as dump:
        reads.clear()
        wanted = PageRuns([PageRun(8, 10), PageRun(19, 3), PageRun(40, 5), PageRun(_FAR + 7, 2)])
        held, unreadable = await dump.among(wanted)
        assert unreadable == PageRuns.from_pages([17, 20])
        assert held == PageRuns.from_pages([16, 19, 21, _FAR + 7, _FAR + 8])
        assert sum(reads) <= 7 * PAGE_SIZE
        assert await dump.among(PageRuns()) == (PageRuns(), PageRuns())


async def test_a_hole_is_not_read(sparse: Path, reads: list[int]) -> None:
    with DumpFile(sparse) as dump:
        held, unreadable = await dump.among(PageRuns([PageRun(0, 1 << 30)]))
        assert unreadable == PageRuns.from_pages([17, 20])
        assert held == PageRuns([PageRun(16, 16), PageRun(_FAR, _HUGE)]) - unreadable
        assert (dump.held, dump.unreadable) == (held, unreadable)
        assert sum(reads) < 4 << 20


async def test_a_system_that_knows_no_holes_is_read_and_can_be_left(
    sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is a cancellation: it comes through long before 1 TiB is read, and what is done is told of."""
    monkeypatch.setattr(files, "_SEEK_DATA", None)
    told: list[Progress] = []
    with DumpFile(sparse) as dump:
        assert (await dump.among(PageRuns([PageRun(16, 16)])))[1] == PageRuns.from_pages([17, 20])
        with trio.move_on_after(0.4) as scope:
            await dump.among(PageRuns([PageRun(0, 1 << 30)]), told.append)
    assert scope.cancelled_caught
    assert {look.what for look in told} == {"looking for unreadable pages"}
    assert len(told) > 1 and {look.total for look in told} == {(_HUGE + 16) * PAGE_SIZE}
    assert 0 < told[-1].done < _HUGE * PAGE_SIZE


async def test_marks_of_pages_that_lie_apart_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Frames 0x10 to 0x14 first, then those before them; three pages are looked at in one piece.
    monkeypatch.setattr(stored, "_AT_ONCE", 3)
    order = [*range(0x10, 0x15), *range(0x8, 0x10)]
    marked = {0x9, 0xF, 0x10, 0x14}
    path = tmp_path / "apart.dmp"
    header = encode_header(replace(HEADER, physical_memory=(PageRun(0x10, 5), PageRun(0x8, 8))))
    pages = (UNREADABLE_PAGE if pfn in marked else struct.pack("<Q", pfn) * 512 for pfn in order)
    path.write_bytes(header + b"".join(pages))
    with DumpFile(path) as dump:
        held, unreadable = await dump.among(PageRuns([PageRun(0, 1 << 16)]))
        assert unreadable == dump.unreadable == PageRuns.from_pages(marked)
        assert held == dump.held == PageRuns.from_pages(set(order) - marked)


@pytest.mark.parametrize("kind", [DumpType.BITMAP_FULL, DumpType.FULL])
async def test_too_torn_a_set_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: DumpType
) -> None:
    """Every second page: of a bitmap, or of a complete dump the marks. A few of them can be asked for all the same."""
    monkeypatch.setattr(stored, "_MOST_RUNS", 8)
    monkeypatch.setattr(stored, "_STEPS", 4)
    monkeypatch.setattr(stored, "_FEW", 4)
    path = tmp_path / "torn.dmp"
    all_of_it, every_second = PageRuns([PageRun(0, 40)]), PageRuns.from_pages(range(0, 40, 2))
    if kind is DumpType.FULL:
        content = [UNREADABLE_PAGE if pfn in every_second else bytes(PAGE_SIZE) for pfn in range(40)]
        path.write_bytes(encode_header(replace(HEADER, physical_memory=tuple(all_of_it))) + b"".join(content))
    else:
        written(path, plan_bitmap(HEADER, all_of_it, every_second, kind), lambda _: bytes(PAGE_SIZE))
    refusal = f"the pages in {path} lie in more than 8 runs: too many to be kept in memory"
    with DumpFile(path) as dump:
        held, unreadable = await dump.among(PageRuns([PageRun(10, 4)]))
        ours, others = PageRuns.from_pages([10, 12]), PageRuns.from_pages([11, 13])
        assert (held, unreadable) == ((others, ours) if kind is DumpType.FULL else (ours, PageRuns()))
        with pytest.raises(DumpError) as raised:
            await dump.among(all_of_it)
        assert str(raised.value) == refusal
        with pytest.raises(DumpError) as raised:
            _ = dump.held
        assert str(raised.value) == refusal
