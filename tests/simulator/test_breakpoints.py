"""The table of breakpoints against a bytearray: what lies under each comes back, in whatever order they go."""

from __future__ import annotations

import random

from simulator.breakpoints import MOST_BREAKPOINTS, Breakpoints


class Memory:
    """Bytes, some of which are not there."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(random.Random(7).randbytes(size))
        self.absent: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        return b"" if address in self.absent else bytes(self.bytes[address : address + size])

    def write(self, address: int, data: bytes) -> int:
        if address in self.absent:
            return 0
        self.bytes[address : address + len(data)] = data
        return len(data)


def test_handles_are_1_to_32_and_the_lowest_free_one_is_taken() -> None:
    memory = Memory(64)
    table = Breakpoints(memory.read, memory.write)
    assert [table.insert(at) for at in range(MOST_BREAKPOINTS)] == list(range(1, 33))
    assert table.insert(40) == 0
    assert table.remove(7) and table.insert(40) == 7
    assert not table.remove(0) and not table.remove(33)


def test_memory_is_whole_again_after_any_order() -> None:
    seed = 11
    rng = random.Random(seed)
    memory = Memory(64)
    original = bytes(memory.bytes)
    table = Breakpoints(memory.read, memory.write)
    living: dict[int, int] = {}
    for step in range(2000):
        if rng.randrange(2) and living:
            handle = rng.choice(list(living))
            assert table.remove(handle), (seed, step)
            del living[handle]
        else:
            address = rng.randrange(64)
            handle = table.insert(address)
            assert (handle != 0) == (address not in living.values() and len(living) < 32), (seed, step)
            if handle:
                living[handle] = address
        expected = bytes(0xCC if at in living.values() else byte for at, byte in enumerate(original))
        assert memory.bytes == expected, (seed, step)


def test_the_window_is_sixteen_bytes_and_its_handles_die() -> None:
    memory = Memory(64)
    original = bytes(memory.bytes)
    table = Breakpoints(memory.read, memory.write)
    handles = {at: table.insert(at) for at in (9, 10, 25, 26)}
    table.remove_window(10, 16)
    assert memory.bytes == original[:9] + b"\xcc" + original[10:26] + b"\xcc" + original[27:]
    assert [table.remove(handles[at]) for at in (9, 10, 25, 26)] == [True, False, False, True]
    assert memory.bytes == original


def test_one_whose_page_is_absent_waits_for_it() -> None:
    memory = Memory(8)
    original = bytes(memory.bytes)
    memory.absent.add(3)
    table = Breakpoints(memory.read, memory.write)
    handle = table.insert(3)
    assert handle == 1
    table.insert_owed()
    memory.absent.clear()
    assert memory.bytes == original
    table.insert_owed()
    assert memory.bytes[3] == 0xCC
    assert table.remove(handle) and memory.bytes == original


def test_one_whose_page_has_gone_is_removed_all_the_same() -> None:
    memory = Memory(8)
    table = Breakpoints(memory.read, memory.write)
    handle = table.insert(3)
    memory.absent.add(3)
    assert table.remove(handle) and table.insert(3) == handle
