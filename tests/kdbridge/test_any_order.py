"""Requests are answered whatever the order of prints, repeats, resets and late replies."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, cast

import pytest
import trio
import trio.testing

from kdbridge.errors import MemoryFault, TargetLostError
from kdbridge.live import LiveVirtualMemory
from protocol.address import VirtualAddress
from tests.kdbridge.chatty import Chatty
from tests.kdbridge.in_memory import Client, client_of
from tests.raw import change_bytes
from tests.small_machine import KERNEL, SIZE, content

_MEMORY = content(7)
_READS = 25


async def _client(seed: int, how_often: float) -> tuple[Chatty, Client]:
    chatty = Chatty(_MEMORY, seed, how_often)
    client = client_of(cast("Any", chatty))
    await client.session.attach(wait=300)
    return chatty, client


@pytest.mark.parametrize("how_often", [0.0, 0.2, 0.5, 0.8])
async def test_what_is_read_is_what_is_there_whatever_the_target_says_in_between(
    how_often: float, autojump_clock: trio.testing.MockClock
) -> None:
    came: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for seed in range(6):
        chatty, client = await _client(seed, how_often)
        memory = LiveVirtualMemory(client.session)
        rng = random.Random(seed)
        for _ in range(_READS):
            at = rng.randrange(SIZE - 0x4000)
            size = rng.choice([1, 8, 0x100, 0x1000, 0x2345])
            try:
                data = await memory.read(VirtualAddress(KERNEL + at), size)
            except TargetLostError as error:
                came[str(error)[:80]] += 1
                continue
            assert data == _MEMORY[at : at + size], f"seed {seed}, {how_often}: {size:#x} bytes at {at:#x}"
            came["data"] += 1
        told += chatty.told
    # One that interrupts itself more often than it answers may be given up, in one sentence that says so.
    assert came["data"] >= 6 * _READS * (1 if how_often <= 0.5 else 0.25), came
    if how_often:
        assert {"print", "state change", "late reply", "reset", "duplicate"} <= set(told), told


async def test_a_refusal_in_between_stays_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    for seed in range(6):
        _, client = await _client(seed, 0.6)
        memory = LiveVirtualMemory(client.session)
        with pytest.raises(MemoryFault) as caught:
            await memory.read(VirtualAddress(KERNEL + SIZE - 0x100), 0x200)
        assert (caught.value.address, caught.value.done) == (KERNEL + SIZE, 0x100), f"seed {seed}"
        assert await memory.read(VirtualAddress(KERNEL), 64) == _MEMORY[:64], f"seed {seed}"


async def test_a_target_that_stopped_anew_elsewhere_is_told_and_nothing_is_mixed_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chatty, client = await _client(1, 0.0)
    memory = LiveVirtualMemory(client.session)
    await memory.read(VirtualAddress(KERNEL), 64)
    chatty.say(7, change_bytes(KERNEL + 0x7777), trio.current_time())
    with pytest.raises(TargetLostError, match="stopped anew at another place"):
        await memory.read(VirtualAddress(KERNEL), 64)
