"""64-bit dumps of ARM64 page tables laid out by hand: Microsoft's engine reads through them what we do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.files import DumpFile
from protocol.address import VirtualAddress
from tests.arm64_memory import ARM64_BLOCK, ARM64_PAGES, arm64_header, arm64_memory
from tests.end_to_end.printed import parse_memory
from tests.hand_dumps import bitmap, complete, summary
from tests.referee import Kdexec, parse

pytestmark = pytest.mark.referee


@pytest.mark.parametrize("kind", [1, 2, 5])
async def test_the_engine_reads_the_same_words(kdexec: Kdexec, tmp_path: Path, kind: int) -> None:
    memory = arm64_memory()
    path = tmp_path / "arm64.dmp"
    path.write_bytes({1: complete, 2: summary, 5: bitmap}[kind](arm64_header(kind, memory), memory))
    start, _ = ARM64_BLOCK
    places = [page + 8 * at for page in ARM64_PAGES for at in (0, 1, 0x1FF)]
    # Of the block of 2 MiB four pages are in the file.
    places += [start, start + 0x1008, start + 0x3FF8, start + 0x4000, start - 0x1000, 0xFFFFF803_F3A2C000]
    commands = [f"dq {place:016x} L1" for place in places]
    transcript = parse(kdexec("-z", path, *commands))
    read: dict[int, int | None] = {}
    with DumpFile(path) as dump:
        assert dump.layout.shortcomings == ()
        for place in places:
            try:
                read[place] = int.from_bytes(await dump.virtual.read(VirtualAddress(place), 8), "little")
            except MemoryFault:
                read[place] = None
    seen = dict(word for command in commands for word in parse_memory(transcript[command].text).words)
    assert seen == read
    assert list(read.values()).count(None) == 3
