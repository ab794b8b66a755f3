"""Memory in pieces, held against a dictionary of bytes: what is there, whose it is, and the first byte that is not."""

from __future__ import annotations

import random

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.blocks import BlockMemory
from protocol.address import VirtualAddress

_HIGH = 0xFFFFF804_12000000


def _memory(*blocks: tuple[int, bytes]) -> BlockMemory:
    def give(data: bytes, offset: int, size: int) -> bytes:
        assert offset >= 0 and 0 < size <= len(data) - offset, "asked beyond the block"
        return data[offset : offset + size]

    return BlockMemory((at, len(data), lambda o, s, data=data: give(data, o, s)) for at, data in blocks)  # type: ignore[misc]


async def _fault(memory: BlockMemory, address: int, size: int) -> tuple[int, int]:
    with pytest.raises(MemoryFault) as caught:
        await memory.read(VirtualAddress(address), size)
    assert caught.value.virtual and caught.value.size == size
    return caught.value.address, caught.value.done


async def test_blocks_that_touch_are_read_as_one() -> None:
    memory = _memory((_HIGH + 4, b"efgh"), (_HIGH, b"abcd"), (_HIGH + 8, b"ij"))
    assert await memory.read(VirtualAddress(_HIGH + 2), 7) == b"cdefghi"
    assert list(memory.ranges()) == [(_HIGH, 10)]


async def test_the_first_byte_that_is_not_there_is_named() -> None:
    memory = _memory((_HIGH, b"abcd"), (_HIGH + 6, b"ghij"))
    assert await _fault(memory, _HIGH - 1, 3) == (_HIGH - 1, 0)
    assert await _fault(memory, _HIGH + 1, 8) == (_HIGH + 4, 3)
    assert await _fault(memory, _HIGH + 5, 1) == (_HIGH + 5, 0)
    assert await _fault(memory, _HIGH + 9, 2) == (_HIGH + 10, 1)
    assert list(memory.ranges()) == [(_HIGH, 4), (_HIGH + 6, 4)]


async def test_of_two_that_hold_a_byte_the_one_given_first_is_read() -> None:
    memory = _memory((4, b"wxyz"), (0, b"abcdefghijkl"), (6, b"....."), (20, b""))
    assert await memory.read(VirtualAddress(0), 12) == b"abcdwxyzijkl"
    assert list(memory.ranges()) == [(0, 12)]


async def test_nothing_is_in_no_blocks() -> None:
    assert list(_memory().ranges()) == []
    assert await _fault(_memory(), 0, 1) == (0, 0)
    assert await _memory().read(VirtualAddress(5), 0) == b""


async def test_the_last_bytes_of_the_address_space_can_be_read() -> None:
    memory = _memory(((1 << 64) - 4, b"last"))
    assert await memory.read(VirtualAddress((1 << 64) - 2), 2) == b"st"
    assert await _fault(memory, (1 << 64) - 2, 4) == (1 << 64, 2)


@pytest.mark.parametrize("seed", range(40))
async def test_any_blocks_give_what_a_dictionary_of_bytes_gives(seed: int) -> None:
    rng = random.Random(seed)
    blocks = [(rng.randrange(60), rng.randbytes(rng.choice((0, 1, 3, 8, 20)))) for _ in range(rng.randrange(1, 16))]
    known = {at + step: byte for at, data in reversed(blocks) for step, byte in enumerate(data)}
    memory = _memory(*blocks)
    assert {at for start, size in memory.ranges() for at in range(start, start + size)} == set(known), seed
    for start in range(90):
        for size in (1, 2, 7, 40):
            there = next((step for step in range(size) if start + step not in known), size)
            if there < size:
                assert await _fault(memory, start, size) == (start + there, there), seed
            else:
                expected = bytes(known[at] for at in range(start, start + size))
                assert await memory.read(VirtualAddress(start), size) == expected, seed


async def test_many_blocks_one_over_the_other_are_no_burden() -> None:
    # Each ends one byte before the one that begins before it: 20,000 begin before the first has ended.
    count = 20_000
    asked: list[int] = []

    def give(offset: int, size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    memory = BlockMemory((number, 2 * (count - number), give) for number in range(count))
    assert await memory.read(VirtualAddress(0), 2 * count) == bytes(2 * count)
    assert len(asked) == 1, "the first covers all"
    assert list(memory.ranges()) == [(0, 2 * count)]
