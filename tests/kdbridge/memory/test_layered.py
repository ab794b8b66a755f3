"""Two memories as one: what either has can be read, in one read across both."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdbridge.errors import MemoryFault
from kdbridge.memory.blocks import BlockMemory
from kdbridge.memory.layered import LayeredMemory
from protocol.address import VirtualAddress


def _memory(*pieces: tuple[int, bytes]) -> BlockMemory:
    def give(data: bytes) -> Callable[[int, int], bytes]:
        return lambda offset, size: data[offset : offset + size]

    return BlockMemory((address, len(data), give(data)) for address, data in pieces)


async def test_a_read_goes_from_one_to_the_other_and_back() -> None:
    memory = LayeredMemory(_memory((0x10, b"aaaa"), (0x20, b"cccc")), _memory((0x10, b"????"), (0x14, b"b" * 12)))
    assert await memory.read(VirtualAddress(0x11), 0x12) == b"aaa" + b"b" * 12 + b"ccc"


async def test_the_first_byte_that_none_has_is_named() -> None:
    memory = LayeredMemory(_memory((0x10, b"aaaa")), _memory((0x14, b"bb")))
    with pytest.raises(MemoryFault) as fault:
        await memory.read(VirtualAddress(0x12), 8)
    assert (fault.value.address, fault.value.done) == (0x16, 4)
