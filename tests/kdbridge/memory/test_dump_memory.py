"""However large a dump is, and however torn: opening it and reading from it takes at most 64 MiB of memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.dumpfile.bitmap import MOST_BITS
from protocol.dumpfile.ranges import MOST_RANGES
from tests.hand_dumps import header64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell peak memory here"),
]

_RESIDENT = 64 << 10
"""KiB."""

_CHILD = """
import json, sys
from pathlib import Path
import trio
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile

with DumpFile(Path(sys.argv[1])) as dump:
    trio.run(discover, dump)
    pages = {page: None if (data := dump.page(page)) is None else data[:8].hex() for page in json.loads(sys.argv[2])}
    count = dump.layout.pages.page_count
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(json.dumps([int(peak), count, pages]))
"""


def _child(path: Path, pages: list[int]) -> tuple[int, int, dict[int, str | None]]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), json.dumps(pages)], check=True, capture_output=True, text=True
    )
    peak, count, found = json.loads(done.stdout)
    return peak, count, {int(page): data for page, data in found.items()}


def _torn_bitmap(path: Path) -> tuple[int, dict[int, int]]:
    """Every other page of 128 GiB: pages and file offsets."""
    bits = 1 << 25
    first = -(-(0x2038 + bits // 8) // 4096) * 4096
    with path.open("wb") as file:
        file.write(header64(5, [(1, 1)]))
        file.write(struct.pack("<4s4sI20xQQQ", b"FDMP", b"DUMP", 0, first, bits // 2, bits) + b"\x55" * (bits // 8))
        file.truncate(first + bits // 2 * 4096)
    return bits // 2, {page: first + page // 2 * 4096 for page in (0, 2, 0x12344, bits - 2)}


def _largest_bitmap(path: Path) -> tuple[int, dict[int, int]]:
    """As many bits as are believed, in 1 GiB of which hardly any is set."""
    first = -(-(0x2038 + MOST_BITS // 8) // 4096) * 4096
    pages = [5, 0x7000, 0x12345678, MOST_BITS - 1]
    with path.open("wb") as file:
        file.write(header64(5, [(1, 1)]))
        file.write(struct.pack("<4s4sI20xQQQ", b"FDMP", b"DUMP", 0, first, len(pages), MOST_BITS))
        for page in pages:
            file.seek(0x2038 + page // 8)
            file.write(bytes([1 << page % 8]))
        file.truncate(first + len(pages) * 4096)
    return len(pages), {page: first + 4096 * at for at, page in enumerate(pages)}


def _most_ranges(path: Path) -> tuple[int, dict[int, int]]:
    """As many ranges as are believed."""
    count = MOST_RANGES - 1
    size = 16 + 16 * MOST_RANGES
    first = size + 0x2020
    with path.open("wb") as file:
        file.write(header64(8, [(1, 1)]))
        file.write(struct.pack("<I4s4sIQQ", 0x40, b"RDMP", b"DUMP", 0, size, first) + bytes(16))
        for start in range(0, count, 4096):
            part = range(start, min(start + 4096, count))
            file.write(b"".join(struct.pack("<QQ", 8 * at + 3, 2) for at in part))
        file.truncate(first + 2 * count * 4096)
    return 2 * count, {8 * at + 3: first + 2 * at * 4096 for at in (0, 63, 64, 1_000_001, count - 1)}


@pytest.mark.parametrize("make", [_torn_bitmap, _largest_bitmap, _most_ranges])
def test_peak_memory_of_reading_a_huge_dump(make: Callable[[Path], tuple[int, dict[int, int]]], tmp_path: Path) -> None:
    path = tmp_path / "huge.dmp"
    count, places = make(path)
    with path.open("r+b") as file:
        for page, offset in places.items():
            file.seek(offset)
            file.write(page.to_bytes(8, "big"))
    peak, found, pages = _child(path, [*places, 1])
    assert found == count
    assert pages == {page: f"{page:016x}" for page in places} | {1: None}
    assert peak < _RESIDENT, f"{peak} KiB"
