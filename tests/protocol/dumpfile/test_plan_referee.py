"""Microsoft's engine on our files: what it wrote itself, written again in each layout, must look the same to it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import DumpHeader, DumpType, encode_header, parse_layout, plan_bitmap, plan_complete
from protocol.dumpfile.bitmap import bitmap_chunks
from protocol.dumpfile.secondary import encode_secondary
from tests.dumps import reader, written
from tests.referee import Kdexec, parse

pytestmark = pytest.mark.referee

_COMMANDS = (".bugcheck", "r", "k", "lm", ".time", "dq fffff80412000000 L1000", "dq ffff850400005000 L40")
_GUID = "54c84888-01d1-4e1e-bed7-28c8cbcbd8a0"
# Words of its complaints (dump-formats 2.2, 2.3, 3.3). Opening this little machine causes none of them.
_COMPLAINT = re.compile(r"warning|truncated|corrupt|inconsistent|too large|missing|invalid", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Machine:
    """A dump that the engine wrote, taken apart, and what it says when it opens it."""

    header: DumpHeader
    memory: Mapping[int, bytes]
    said: tuple[str, ...]

    @property
    def runs(self) -> PageRuns:
        return PageRuns.from_pages(self.memory)


def _ask(kdexec: Kdexec, path: Path, banner: str, *more: str) -> tuple[str, ...]:
    transcript = parse(kdexec("-z", path, *_COMMANDS, *more))
    assert banner in transcript.opening
    assert _COMPLAINT.findall(transcript.opening) == []
    return tuple(transcript[command].text for command in (*_COMMANDS, *more))


@pytest.fixture(scope="module")
def machine(shared: Path, kdexec: Kdexec) -> _Machine:
    """Three runs of memory with a kernel, a driver, a stack and a processor in them."""
    path = shared / "data/dumps/dbgeng-written/full_type1_3runs.dmp"
    data = path.read_bytes()
    layout = parse_layout(reader(data), len(data))
    memory = {}
    for page in PageRuns(layout.pages.runs()).pages():
        offset = layout.pages.offset_of(page)
        assert offset is not None
        memory[page] = data[offset : offset + PAGE_SIZE]
    said = _ask(kdexec, path, "Kernel Complete Dump File")
    assert "rip=fffff80412001010" in said[1]
    return _Machine(layout.header, memory, said)


def test_a_complete_dump(machine: _Machine, kdexec: Kdexec, tmp_path: Path) -> None:
    path = written(tmp_path / "1.dmp", plan_complete(machine.header, machine.runs), machine.memory)
    assert _ask(kdexec, path, "Kernel Complete Dump File: Full address space is available") == machine.said


@pytest.mark.parametrize(
    ("kind", "banner"),
    [
        (DumpType.BITMAP_FULL, "Kernel Bitmap Dump File: Full address space is available"),
        (DumpType.BITMAP_KERNEL, "Kernel Bitmap Dump File: Kernel address space is available"),
    ],
)
def test_bitmap_dumps_with_secondary_data(
    kind: DumpType, banner: str, machine: _Machine, kdexec: Kdexec, tmp_path: Path
) -> None:
    secondary = encode_secondary([(_GUID, b"left by a driver")], 0xF0004A61)
    plan = plan_bitmap(machine.header, machine.runs, machine.runs, kind, secondary)
    path = written(tmp_path / "bitmap.dmp", plan, machine.memory)
    *said, tags = _ask(kdexec, path, banner, ".enumtag")
    assert tuple(said) == machine.said
    assert _GUID.replace("-", "") in tags.lower().replace("-", "")  # it leaves out the last hyphen
    assert "left by a driver" in tags


def test_a_machine_of_many_runs(machine: _Machine, kdexec: Kdexec, tmp_path: Path) -> None:
    """More runs than the header holds: they stay unset, and the bitmap alone says what is there."""
    more = PageRuns(PageRun(0x1000 + 2 * n, 1) for n in range(100))
    pages = machine.runs | more
    plan = plan_bitmap(machine.header, pages, pages, DumpType.BITMAP_FULL)
    assert plan.header.physical_memory == ()
    path = written(tmp_path / "many.dmp", plan, {**dict.fromkeys(more.pages(), bytes(PAGE_SIZE)), **machine.memory})
    assert _ask(kdexec, path, "Kernel Bitmap Dump File: Full address space is available") == machine.said


def test_a_summary_dump_is_read_as_the_engine_reads_it(machine: _Machine, kdexec: Kdexec, tmp_path: Path) -> None:
    """Type 2 has no other reader: the engine says that this file is one, and we find the same pages in it."""
    bits = 0x400
    header = encode_header(replace(machine.header, dump_type=DumpType.SUMMARY))
    counts = (1, 0x3000, bits, len(machine.memory), bits, 0, 0, 0)
    bitmap = b"".join(bitmap_chunks(machine.runs, bits)).ljust(0x1000 - 0x28, b"\0")
    data = b"".join([header, b"SDMPDUMP", struct.pack("<8I", *counts), bitmap, *machine.memory.values()])
    path = tmp_path / "summary.dmp"
    path.write_bytes(data)
    assert _ask(kdexec, path, "Kernel Summary Dump File") == machine.said
    layout = parse_layout(reader(data), len(data))
    assert layout.shortcomings == ()
    assert PageRuns(layout.pages.runs()) == machine.runs
    for page, content in machine.memory.items():
        offset = layout.pages.offset_of(page)
        assert offset is not None and data[offset : offset + PAGE_SIZE] == content
