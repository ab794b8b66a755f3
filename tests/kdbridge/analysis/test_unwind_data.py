"""Rows of a .pdata as large as Windows' kernel's: each is found, by little reading, and from a small dump's pieces."""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable

import pytest

from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.unwind_data import UnwindTables
from kdbridge.errors import MemoryFault
from kdbridge.memory.blocks import BlockMemory
from kdbridge.plan.unwind import unwind_ranges
from kdbridge.target import Module
from protocol.errors import LayoutError
from tests.kdbridge.analysis.fake_memory import FakeMemory, FakeSource, fake_module

_BASE, _ROWS = 0xFFFFF800_10000000, 35_000
_UNWIND = 0x800


def _headers(table: int, size: int) -> bytes:
    """After the PE format's specification: machine, magic, and the fourth data directory."""
    data = bytearray(0x400)
    data[:2], data[0x3C] = b"MZ", 0x80
    struct.pack_into("<4sH", data, 0x80, b"PE\0\0", 0x8664)
    struct.pack_into("<H", data, 0x80 + 24, 0x20B)
    struct.pack_into("<I", data, 0x80 + 24 + 108, 16)
    struct.pack_into("<II", data, 0x80 + 24 + 112 + 24, table, size)
    return bytes(data)


@functools.lru_cache
def _kernel() -> tuple[FakeSource, Module, list[tuple[int, int]]]:
    """Functions of very different sizes, in sections with gaps between them."""
    rng = random.Random(1)
    rows: list[tuple[int, int]] = []
    at = 0x1000
    for number in range(_ROWS):
        if number in (12_000, 13_000, 30_000):
            at = (at + 0xFFF & ~0xFFF) + 0x100000
        size = int(rng.paretovariate(1.2) * 24) % 5000 + 8
        rows.append((at, at + size))
        at = at + size + 15 & ~15
    table = at + 0xFFF & ~0xFFF
    data = b"".join(struct.pack("<III", begin, end, _UNWIND) for begin, end in rows)
    module = fake_module("ntoskrnl.exe", _BASE, table + len(data) + 0xFFF & ~0xFFF)
    headers = _headers(table, len(data)).ljust(_UNWIND, b"\0") + bytes([1, 4, 1, 0, 4, 0x42, 0, 0])
    return FakeSource({_BASE: headers, _BASE + table: data}), module, rows


async def test_every_row_is_found_and_what_lies_between_is_a_leaf() -> None:
    source, module, rows = _kernel()
    tables = UnwindTables(source)
    for begin, end in random.Random(2).sample(rows, 300) + rows[:20] + rows[-20:]:
        for rva in (begin, end - 1):
            found = await tables.function(module, _BASE + rva)
            assert found is not None and (found.begin, found.end) == (begin, end)
        if (end, end) not in rows and end % 16:
            assert await tables.function(module, _BASE + end) is None
    assert await tables.function(module, _BASE + 0x500) is None


async def test_thirty_functions_cost_less_than_ten_kilobytes() -> None:
    source, module, rows = _kernel()
    once = ReadOnce(source)
    tables = UnwindTables(once)
    for begin, _ in random.Random(3).sample(rows, 30):
        function = await tables.function(module, _BASE + begin)
        assert function is not None
        ((_, info),) = await tables.parts(module, function)
        assert info.codes[0].operand == 0x28
    assert once.bytes_read < 10_000


class _Pieces(FakeSource):
    """Only what a plan for a small dump chose to keep."""

    def __init__(self, source: FakeSource, ranges: list[tuple[int, int]]) -> None:
        super().__init__({})

        def piece(start: int, size: int) -> tuple[int, int, Callable[[int, int], bytes]]:
            return start, size, lambda offset, length: source.virtual.get(start + offset, length)

        self.virtual: FakeMemory | BlockMemory = BlockMemory(  # type: ignore[assignment]
            piece(start, size) for start, size in ranges
        )


async def test_the_pieces_of_our_small_dumps_are_enough() -> None:
    """Of a large table they hold the rows that a plain search comes by, and nothing else."""
    source, module, rows = _kernel()
    for begin, end in random.Random(4).sample(rows, 10):
        address = _BASE + begin + 4
        ranges = [(one.address, one.size) for one in await unwind_ranges(source, module, address)]
        assert len(ranges) > 10 and sum(size for _, size in ranges) < 0x1000
        tables = UnwindTables(_Pieces(source, ranges))
        function = await tables.function(module, address)
        assert function is not None and (function.begin, function.end) == (begin, end)
        assert len(await tables.parts(module, function)) == 1
        with pytest.raises(MemoryFault):
            await tables.function(module, _BASE + rows[_ROWS // 3][0])


async def test_chains_that_do_not_end_are_refused() -> None:
    module = fake_module("loop.sys", _BASE, 0x4000)
    chained = bytes([1 | 4 << 3, 0, 0, 0]) + struct.pack("<III", 0x1000, 0x1100, 0x3000)
    indirect = struct.pack("<III", 0x1000, 0x1100, 0x2001)
    for unwind, at in ((chained, 0x3000), (indirect, 0x2000)):
        table = struct.pack("<III", 0x1000, 0x1100, 0x3000 if at == 0x3000 else 0x2001)
        source = FakeSource({_BASE: _headers(0x2000, 12), _BASE + 0x2000: table, _BASE + at: unwind})
        tables = UnwindTables(source)
        function = await tables.function(module, _BASE + 0x1010)
        assert function is not None
        with pytest.raises(LayoutError, match="chained without end"):
            await tables.parts(module, function)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (b"ZM" + bytes(0x400), "IMAGE_DOS_HEADER"),
        (_headers(0x2000, 12).replace(b"PE\0\0", b"NE\0\0"), "IMAGE_NT_HEADERS64"),
        (_headers(0x3FF8, 12), "exception directory"),
        (_headers(0, 12), "exception directory"),
        (_headers(0x1000, 0xFFFFFFFF), "exception directory"),
    ],
)
async def test_headers_that_lie_are_refused_by_name(headers: bytes, problem: str) -> None:
    tables = UnwindTables(FakeSource({_BASE: headers}))
    for _ in range(2):
        with pytest.raises(LayoutError, match=problem):
            await tables.function(fake_module("liar.sys", _BASE, 0x4000), _BASE + 0x1000)


async def test_an_image_without_an_exception_directory_has_leaves_only() -> None:
    tables = UnwindTables(FakeSource({_BASE: _headers(0, 0)}))
    assert await tables.function(fake_module("leaf.sys", _BASE, 0x4000), _BASE + 0x1000) is None
