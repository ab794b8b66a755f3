"""Export tables in memory as symbols: real ones through pefile's reader, incomplete and damaged ones."""

from __future__ import annotations

import bisect
import random
import struct

import pytest

from kdbridge.analysis.exports import Exports
from kdbridge.analysis.reading import ReadOnce
from protocol.address import PAGE_SIZE, VirtualAddress
from tests.kdbridge.analysis.made_up import MadeUp, module
from tests.real_images import RealImage, functions, images, names_of_exports

_BASE = 0xFFFFF800_10000000


def _exporting() -> list[RealImage]:
    return [one for one in images() if names_of_exports(one.file)]


async def test_the_nearest_is_the_last_that_begins_before_unless_another_function_did_since() -> None:
    for image in _exporting():
        truth = names_of_exports(image.file)
        starts = sorted(truth)
        exports, at = Exports(MadeUp({_BASE: image.memory})), module("x.dll", _BASE, len(image.memory))
        rng = random.Random(image.name)
        places = [*starts, *(start + 1 for start in starts), *(rng.randrange(at.size) for _ in range(200))]
        sections = [(one.VirtualAddress, one.Misc_VirtualSize) for one in image.file.sections]
        rows = functions(image.file)
        told = others = 0
        for place in places:
            index = bisect.bisect_right(starts, place) - 1
            section = next(((low, size) for low, size in sections if low <= place < low + size), None)
            found = await exports.nearest(at, place)
            if index < 0 or section is None or starts[index] < section[0]:
                assert found is None
                continue
            row = rows[max(bisect.bisect_right(rows, (place, 1 << 32, True)) - 1, 0)] if rows else (0, 0, False)
            begin, end, part = row
            if begin <= place < end and not part and starts[index] < begin:
                assert found is None
                others += 1
            elif found is not None or not begin <= place < end or not part:
                assert found is not None
                assert found[1] == starts[index] and found[0] in truth[starts[index]]
                told += 1
        assert told >= 1.9 * len(starts) and (others or not rows)


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
