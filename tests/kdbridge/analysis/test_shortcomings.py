"""What is missing is told once, with the pages that it lacked; what ends an analysis is not hidden among it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.shortcomings import Shortcomings
from kdbridge.errors import MemoryFault, TransportLostError
from protocol.address import PAGE_SIZE, VirtualAddress
from tests.kdbridge.analysis.made_up import MadeUp

_AT = 0xFFFFF800_00010000


async def test_a_part_that_fails_tells_what_it_lacked() -> None:
    source = ReadOnce(MadeUp({_AT: bytes(0x10)}))
    shortcomings = Shortcomings(source)

    async def reads(*places: int) -> str:
        for place in places[:-1]:
            with suppress(MemoryFault):
                await source.virtual.read(VirtualAddress(place), 8)
        return (await source.virtual.read(VirtualAddress(places[-1]), 8)).hex()

    assert await shortcomings.part("early", reads(_AT + 0x5000)) is None
    assert await shortcomings.part("late", reads(_AT + PAGE_SIZE, _AT + 2 * PAGE_SIZE, _AT + 9 * PAGE_SIZE)) is None
    early, late = shortcomings.found
    assert (early.what, early.ranges) == ("early", ((_AT + 0x5000, PAGE_SIZE),))
    assert late.ranges == ((_AT + PAGE_SIZE, 2 * PAGE_SIZE), (_AT + 9 * PAGE_SIZE, PAGE_SIZE))
    assert "nothing is there" in late.why


async def test_a_part_that_works_leaves_nothing_behind() -> None:
    shortcomings = Shortcomings(ReadOnce(MadeUp({})))

    async def works() -> int:
        return 7

    assert await shortcomings.part("it", works()) == 7
    assert shortcomings.found == ()


async def test_what_was_said_is_not_said_again() -> None:
    shortcomings = Shortcomings(ReadOnce(MadeUp({})))
    shortcomings.add("a stack", "it ends", ((1, 2),))
    shortcomings.add("a stack", "it ends")
    assert [one.ranges for one in shortcomings.found] == [((1, 2),)]


async def test_a_line_that_breaks_ends_everything() -> None:
    shortcomings = Shortcomings(ReadOnce(MadeUp({})))

    async def breaks() -> None:
        raise TransportLostError("the cable is out")

    with pytest.raises(TransportLostError):
        await shortcomings.part("it", breaks())
