"""Short reads, failed reads with data, reads of nothing: reported as they are, never filled up (kd-protocol 9.3)."""

from __future__ import annotations

import pytest
import trio.testing

from kdbridge.errors import MemoryFault
from kdbridge.opening import open_target
from protocol.address import VirtualAddress
from protocol.manipulate import ApiNumber
from tests.fault_matrix.line import StruckLine
from tests.fault_matrix.talkers import Answering, Odd
from tests.small_machine import KERNEL, content

pytestmark = pytest.mark.slow

_AT, _SIZE = 0x5100, 0x200
_FAILED = 0xC0000001
_MEMORY = content()


def _first(count: int) -> bytes:
    return _MEMORY[_AT : _AT + count]


@pytest.mark.parametrize(
    ("odd", "data", "complete"),
    [
        (lambda at, size: (0, 0x80, _first(0x80)), _first(0x80), True),
        (lambda at, size: (0, size, _first(0x80)), _first(0x80), True),
        (lambda at, size: (0, 0x40, _first(size)), _first(0x40), True),
        (lambda at, size: (_FAILED, 0x80, _first(0x80)), _first(0x80), False),
        (lambda at, size: (_FAILED, size, _first(size)), _first(_SIZE - 1), False),
        (lambda at, size: (_FAILED, 0, b""), b"", False),
        (lambda at, size: (0, 0, b""), b"", False),
        (lambda at, size: (0, size, b""), b"", False),
    ],
    ids=["short", "shorter than it says", "says less", "failed with data", "failed with all", "failed", "zero", "none"],
)
async def test_a_read_is_reported_as_it_came(
    odd: Odd, data: bytes, complete: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_target("sim:odd", transport=StruckLine(Answering(odd))) as target:
        reply = await target.session.read_some(ApiNumber.READ_VIRTUAL_MEMORY, KERNEL + _AT, _SIZE)
    assert (reply.data, reply.complete) == (data, complete)


async def test_short_reads_are_put_together(autojump_clock: trio.testing.MockClock) -> None:
    line = StruckLine(Answering(lambda at, size: (0, min(size, 0x55), _MEMORY[at : at + min(size, 0x55)])))
    async with open_target("sim:odd", transport=line) as target:
        assert await target.virtual.read(VirtualAddress(KERNEL + _AT), _SIZE) == _first(_SIZE)


@pytest.mark.parametrize(("status", "claims"), [(_FAILED, 0x80), (0, 0)])
async def test_what_came_before_a_failure_is_counted(
    status: int, claims: int, autojump_clock: trio.testing.MockClock
) -> None:
    def odd(at: int, size: int) -> tuple[int, int, bytes]:
        return (0, 0x100, _MEMORY[at : at + 0x100]) if at == _AT else (status, claims, _MEMORY[at : at + claims])

    async with open_target("sim:odd", transport=StruckLine(Answering(odd))) as target:
        with pytest.raises(MemoryFault) as caught:
            await target.virtual.read(VirtualAddress(KERNEL + _AT), _SIZE)
    assert (caught.value.done, caught.value.address) == (0x100 + claims, KERNEL + _AT + 0x100 + claims)
