"""Export tables in memory as symbols: real ones through pefile's reader, incomplete and damaged ones."""

from __future__ import annotations

import bisect
import random
import struct

import pefile
import pytest

from kdbridge.analysis.exports import Exports
from kdbridge.analysis.reading import ReadOnce
from protocol.address import PAGE_SIZE, VirtualAddress
from tests.kdbridge.analysis.made_up import MadeUp, module
from tests.real_images import RealImage, functions, images, names_of_exports

_BASE = 0xFFFFF800_10000000
_CHAINED = 4
"""UNW_FLAG_CHAININFO"""


def _exporting() -> list[RealImage]:
    return [one for one in images() if names_of_exports(one.file)]


def _beginnings(file: pefile.PE) -> dict[int, int]:
    """By the beginning of each row of .pdata: that of its function, through chains that pefile read."""
    rows = {one.struct.BeginAddress: one.unwindinfo for one in getattr(file, "DIRECTORY_ENTRY_EXCEPTION", [])}
    found = {}
    for begin in rows:
        at = begin
        while rows[at].Flags & _CHAINED:
            at = rows[at].FunctionEntry
        found[begin] = at
    return found


async def test_the_nearest_is_the_last_that_begins_before_unless_another_function_did_since() -> None:
    for image in _exporting():
        truth = names_of_exports(image.file)
        starts = sorted(truth)
        exports, at = Exports(MadeUp({_BASE: image.memory})), module("x.dll", _BASE, len(image.memory))
        rng = random.Random(image.name)
        places = [*starts, *(start + 1 for start in starts), *(rng.randrange(at.size) for _ in range(200))]
        sections = [(one.VirtualAddress, one.Misc_VirtualSize) for one in image.file.sections]
        rows, beginnings = functions(image.file), _beginnings(image.file)
        places += [begin + 1 for begin, _, part in rows if part]
        told = others = split = 0
        for place in places:
            index = bisect.bisect_right(starts, place) - 1
            section = next(((low, size) for low, size in sections if low <= place < low + size), None)
            found = await exports.nearest(at, place)
            if index < 0 or section is None or starts[index] < section[0]:
                assert found is None
                continue
            row = rows[max(bisect.bisect_right(rows, (place, 1 << 32, True)) - 1, 0)] if rows else (0, 0, False)
            begin, end, part = row
            right = nearest = starts[index]
            if begin <= place < end and nearest < begin:
                right = beginnings[begin]
                split += part and right != nearest
            if right > place or right not in truth:
                assert found is None
                others += 1
            else:
                assert found is not None
                assert found[1] == right and found[0] in truth[right]
                told += 1
        assert told >= 1.9 * len(starts) and (others or not rows)
        assert split or not any(part for _, _, part in rows), "code split off, behind another function's name"


def _split_image() -> bytes:
    """Functions A [1000, 1100), whose name nobody exports, and B [3000, 3100). C [1800 …) has no unwind data.

    Split off are parts of B [2000, 2100), of A [3200, 3300) and, by an indirect row, again of B [3300, 3400).
    """
    memory = bytearray(0x8000)
    memory[:2], memory[0x3C:0x40] = b"MZ", (0x80).to_bytes(4, "little")
    struct.pack_into("<4sHHIIIHH", memory, 0x80, b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    struct.pack_into("<H", memory, 0x98, 0x20B)
    struct.pack_into("<I", memory, 0x98 + 56, len(memory))
    struct.pack_into("<III", memory, 0x98 + 108, 16, 0x5000, 0x100)
    struct.pack_into("<II", memory, 0x98 + 112 + 24, 0x6000, 72)
    section = (b".text", 0x4000, 0x1000, 0x4000, 0x1000, 0, 0, 0, 0, 0x60000020)
    struct.pack_into("<8sIIIIIIHHI", memory, 0x98 + 240, *section)
    of_a, of_b = (0x1000, 0x1100, 0x6100), (0x3000, 0x3100, 0x6100)
    rows = (*of_a, 0x2000, 0x2100, 0x6120, *of_b, 0x3200, 0x3300, 0x6110, 0x3300, 0x3400, 0x600C + 12 + 1)
    struct.pack_into("<15I", memory, 0x6000, *rows)
    memory[0x6100:0x6104] = bytes([1, 0, 0, 0])
    for at, primary in ((0x6110, of_a), (0x6120, of_b)):
        struct.pack_into("<4B3I", memory, at, 1 | _CHAINED << 3, 0, 0, 0, *primary)
    struct.pack_into("<6I", memory, 0x5010, 1, 2, 2, 0x5040, 0x5050, 0x5060)
    struct.pack_into("<II", memory, 0x5040, 0x3000, 0x1800)
    struct.pack_into("<IIHH", memory, 0x5050, 0x5070, 0x5072, 0, 1)
    memory[0x5060:0x5064] = struct.pack("<HH", 0, 1)
    memory[0x5070:0x5074] = b"B\0C\0"
    return bytes(memory)


@pytest.mark.parametrize(
    ("offset", "found"),
    [
        (0x1010, None),
        (0x1810, ("C", 0x1800)),
        (0x2010, None),  # B's, and B begins behind it; C, which is nearest, is not its name
        (0x3010, ("B", 0x3000)),
        (0x3210, None),  # A's
        (0x3310, ("B", 0x3000)),
    ],
)
async def test_code_that_was_split_off_has_no_foreign_name(offset: int, found: tuple[str, int] | None) -> None:
    image = _split_image()
    assert await Exports(MadeUp({_BASE: image})).nearest(module("x.sys", _BASE, len(image)), offset) == found


async def test_a_part_whose_function_cannot_be_told_has_no_name() -> None:
    image = bytearray(_split_image())
    image[0x6110] = 0xFF
    exports, at = Exports(MadeUp({_BASE: bytes(image)})), module("x.sys", _BASE, len(image))
    assert await exports.nearest(at, 0x3210) is None
    assert await exports.nearest(at, 0x3010) == ("B", 0x3000)


async def test_what_is_read_of_it() -> None:
    """Addresses, ordinals, and of names only those that are needed; nothing twice."""
    for image in _exporting():
        source = ReadOnce(MadeUp({_BASE: image.memory}))
        exports, at = Exports(source), module("x.dll", _BASE, len(image.memory))
        count = image.file.DIRECTORY_ENTRY_EXPORT.struct.NumberOfFunctions
        start = min(names_of_exports(image.file))
        assert source.bytes_read == 0
        await exports.nearest(at, start)
        read = source.bytes_read
        assert read < 6 * count + 0x600
        await exports.nearest(at, start + 1)
        assert source.bytes_read == read


async def test_whatever_page_is_gone_it_is_no_name_or_the_right_one() -> None:
    image = next(one for one in _exporting() if one.name == "simulated nt")
    truth, at = names_of_exports(image.file), module("x.dll", _BASE, len(image.memory))
    silent = 0
    for page in range(0, len(image.memory), PAGE_SIZE):
        pieces = {_BASE: image.memory[:page], _BASE + page + PAGE_SIZE: image.memory[page + PAGE_SIZE :]}
        exports = Exports(MadeUp({start: data for start, data in pieces.items() if data}))
        for start, named in truth.items():
            found = await exports.nearest(at, start)
            silent += found is None
            assert found is None or (found[0] in named and found[1] == start)
    assert silent


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_tables_raise_nothing(seed: int) -> None:
    rng = random.Random(seed)
    for image in _exporting():
        memory = bytearray(image.memory)
        place = image.file.OPTIONAL_HEADER.DATA_DIRECTORY[0]
        for _ in range(10):
            for _ in range(8):
                struct.pack_into(
                    "<I", memory, place.VirtualAddress + rng.randrange(40), rng.choice((0, 0xFFFF_FFFF, 0x10000, 70))
                )
                spot = place.VirtualAddress + 40 + rng.randrange(place.Size - 44)
                struct.pack_into("<I", memory, spot, rng.getrandbits(32))
            exports, at = Exports(MadeUp({_BASE: bytes(memory)})), module("x.dll", _BASE, len(memory))
            for _ in range(20):
                found = await exports.nearest(at, rng.randrange(at.size))
                assert found is None or (found[0].isprintable() and found[1] < at.size)


async def test_an_image_that_nobody_can_read_is_asked_once() -> None:
    class Counting(MadeUp):
        asked = 0

        async def read(self, address: VirtualAddress, size: int) -> bytes:
            Counting.asked += 1
            return await super().read(address, size)

    exports, at = Exports(Counting({})), module("x.sys", _BASE)
    assert await exports.nearest(at, 0x1000) is None
    asked = Counting.asked
    assert await exports.nearest(at, 0x2000) is None
    assert Counting.asked == asked <= 3


@pytest.mark.slow
async def test_of_many_large_images_the_oldest_is_forgotten() -> None:
    """Eight images with as many functions as there can be are kept; the ninth takes the first one's place."""
    count, size = 1 << 16, 0x80000
    memory = bytearray(size)
    memory[:2], memory[0x3C:0x40] = b"MZ", (0x80).to_bytes(4, "little")
    struct.pack_into("<4sHHIIIHH", memory, 0x80, b"PE\0\0", 0x8664, 0, 0, 0, 0, 240, 0x2022)
    struct.pack_into("<H", memory, 0x98, 0x20B)
    struct.pack_into("<I", memory, 0x98 + 56, size)
    struct.pack_into("<III", memory, 0x98 + 108, 16, 0x1000, 40)
    struct.pack_into("<6I", memory, 0x1010, 1, count, 0, 0x2000, 0, 0)
    struct.pack_into(f"<{count}I", memory, 0x2000, *range(0x2000, 0x2000 + count))
    source = MadeUp({_BASE + n * size: bytes(memory) for n in range(9)})
    exports = Exports(source)
    modules = [module(f"{n}.sys", _BASE + n * size, size) for n in range(9)]
    for one in modules:
        assert await exports.nearest(one, 0x2005) == ("Ordinal6", 0x2005)
    source._blocks.clear()
    assert [(await exports.nearest(one, 0x2005)) is None for one in modules] == [True] + [False] * 8
