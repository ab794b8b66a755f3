"""Asking twice: what two answers agree on counts, where the line is known to damage packets or a user says so."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from kdbridge.asking_twice import AskingTwice
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.conversation import Replied
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import HEADER, PACKET_LEADER, PacketType
from tests.kdbridge.in_memory import Client, client_of
from tests.small_machine import KERNEL, content, small_machine, stopped_target


def _reply(data: bytes, **more: int) -> Manipulate:
    return Manipulate(ApiNumber.READ_VIRTUAL_MEMORY, data=data, **more)  # type: ignore[arg-type]


class _Answers:
    """An engine that answers in this order, whatever it is asked."""

    def __init__(self, *answers: Manipulate, damaged: int = 0) -> None:
        self.answers = answers
        self.asked = 0
        self.damaged = damaged

    async def request(self, request: Manipulate, *, repeatable: bool) -> Replied:
        self.asked += 1
        return Replied(request, self.answers[self.asked - 1])


def _twice(engine: _Answers) -> AskingTwice:
    return AskingTwice(engine, lambda outcome: outcome.reply)  # type: ignore[arg-type, union-attr]


async def _asked(*answers: Manipulate, repeatable: bool = True) -> tuple[Manipulate, int]:
    """What comes of these answers, and how many of them were asked for."""
    engine = _Answers(*answers)
    twice = _twice(engine)
    twice.always = True
    return await twice.ask(_reply(b""), repeatable=repeatable), engine.asked


async def test_two_answers_that_are_alike_are_enough() -> None:
    right, wrong, other = _reply(b"right"), _reply(b"wrong"), _reply(b"other")
    assert await _asked(right, right, wrong) == (right, 2)
    assert await _asked(wrong, right, right) == (right, 3)
    assert await _asked(wrong, right, other, right) == (right, 4)


async def test_only_the_processor_of_an_answer_may_be_another() -> None:
    assert (await _asked(_reply(b"x", processor=3), _reply(b"x", processor=9)))[1] == 2
    refused = _reply(b"x", status=0xC0000001)
    assert (await _asked(refused, _reply(b"x"), refused))[1] == 3


async def test_what_is_never_the_same_is_not_asked_for_for_ever() -> None:
    answers = [_reply(bytes([count])) for count in range(100)]
    assert await _asked(*answers) == (answers[7], 8)


async def test_what_changes_something_is_asked_once() -> None:
    assert await _asked(_reply(b"done"), _reply(b"again"), repeatable=False) == (_reply(b"done"), 1)


@pytest.mark.parametrize(
    ("damaged", "always", "never", "asked"),
    [(0, False, False, 1), (2, False, False, 1), (3, False, False, 2), (0, True, False, 2), (9, False, True, 1)],
)
async def test_it_is_done_where_the_line_damaged_packets_unless_a_user_says_otherwise(
    damaged: int, always: bool, never: bool, asked: int
) -> None:
    engine = _Answers(*[_reply(b"same")] * 3, damaged=damaged)
    twice = _twice(engine)
    twice.always, twice.never = always, never
    await twice.ask(_reply(b""), repeatable=True)
    assert engine.asked == asked


def _bend(client: Client, rng: random.Random, share: float) -> list[int]:
    """A line on which this share of the replies with data changes in two bytes and keeps its sum. Where it changed."""
    bent: list[int] = []

    def to_host(chunk: bytes) -> list[bytes]:
        data = bytearray(chunk)
        is_reply = chunk[:4] == PACKET_LEADER and HEADER.unpack_from(chunk)[1] == PacketType.STATE_MANIPULATE
        if is_reply and len(chunk) > 80 and rng.random() < share:
            one, other = rng.sample(range(72, len(chunk) - 1), 2)
            if data[one] < 255 and data[other] > 0:
                data[one] += 1
                data[other] -= 1
                bent.append(one)
        return [bytes(data)]

    client.line.to_host = to_host
    return bent


@pytest.mark.parametrize("careful", [False, True])
async def test_a_line_that_keeps_the_sum_deceives_who_asks_once(
    careful: bool, autojump_clock: trio.testing.MockClock
) -> None:
    client = client_of(stopped_target(small_machine()))
    await client.session.attach(wait=30)
    bent = _bend(client, random.Random("bent"), 0.3)
    client.session.twice.always = careful
    memory = content()
    wrong = 0
    for at in range(0, 32 * PAGE_SIZE, 1024):
        reply = await client.session.read_some(ApiNumber.READ_VIRTUAL_MEMORY, VirtualAddress(KERNEL + at), 1024)
        wrong += reply.data != memory[at : at + 1024]
    assert len(bent) > 20, "the line bent too little"
    assert wrong == (0 if careful else len(bent))
    assert client.session.engine.damaged == 0, "nothing of it was seen by the checksum"


async def test_a_long_read_that_became_a_shorter_one_is_compared_with_as_short_a_one() -> None:
    asked: list[int] = []

    class Shortens:
        damaged = 3

        async def request(self, request: Manipulate, *, repeatable: bool) -> Replied:
            request = request.less(100) if request.divisible else request
            asked.append(request.memory_wanted)
            return Replied(request, request.reply(0, data=b"x" * request.memory_wanted))

    read = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0x1000, transfer_count=3000)
    reply = await _twice(Shortens()).ask(read, repeatable=True)  # type: ignore[arg-type]
    assert (asked, reply.data) == ([100, 100], b"x" * 100)
