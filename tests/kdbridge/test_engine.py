"""The engine: one request at a time, pulled by its caller; what the line was like is counted."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kdbridge.engine import Engine
from protocol.connection import KdConnection
from protocol.conversation import FailureReason, KdEvent, Replied, RequestFailed, StateChanged
from protocol.errors import LocalProtocolError
from protocol.kdcom import KdcomLink
from protocol.link import Discard, Role
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from tests.kdbridge.in_memory import Client, InMemory, client_of
from tests.recording import split
from tests.small_machine import KERNEL, content, small_machine, stopped_target


def _read(at: int, size: int = 16) -> Manipulate:
    return Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL + at, transfer_count=size)


async def _attached() -> Client:
    client = client_of(stopped_target(small_machine()))
    await client.session.attach(wait=30)
    return client


async def test_a_request_is_answered_and_the_answer_is_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.line.sent.clear()
    outcome = await client.session.engine.request(_read(0x500), repeatable=True)
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[0x500:0x510]
    packets, _ = split(client.sent)
    assert [packet.packet_type for packet in packets] == [2, 4], "the request, and the acknowledge of its answer"
    with trio.move_on_after(60) as quiet:
        await client.line.receive()
    assert quiet.cancelled_caught or client.line.received[-1][1].startswith(b"iiii"), "nothing is repeated"


async def test_the_next_request_goes_out_with_the_acknowledge_in_one_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    engine = client.session.engine
    engine.ask(_read(0), repeatable=True)
    await engine.answer()
    client.line.sent.clear()
    engine.ask(_read(16), repeatable=True)
    await engine.answer()
    first = split(client.line.sent[0][1])[0]
    assert [packet.packet_type for packet in first] == [4, 2]


async def test_two_questions_at_once_are_a_mistake_of_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.session.engine.ask(_read(0), repeatable=True)
    with pytest.raises(LocalProtocolError, match="one question at a time"):
        client.session.engine.ask(_read(16), repeatable=True)


async def test_a_dead_line_fails_a_request_in_bounded_time(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.line.to_target = lambda chunk: []
    for repeatable in (True, False):
        started = trio.current_time()
        outcome = await client.session.engine.request(_read(0), repeatable=repeatable)
        assert isinstance(outcome, RequestFailed)
        assert trio.current_time() - started < 120
        if not repeatable:
            assert outcome.reason is FailureReason.NOT_ACKNOWLEDGED


async def test_bytes_are_counted_and_what_is_thrown_away_by_reason(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    engine = client.session.engine
    before = engine.bytes_received
    client.line.to_host = lambda chunk: [b"\x00\xff\x55", chunk]
    await engine.request(_read(0), repeatable=True)
    received = sum(len(data) for _, data in client.line.received)
    assert engine.bytes_received == received > before
    assert engine.bytes_sent == len(client.sent)
    assert engine.discards[Discard.NOISE] % 3 == 0 and engine.discards[Discard.NOISE] > 0
    assert bytes(engine.first_bytes[:4]) in (b"0000", b"iiii")
    assert engine.last_byte_at == trio.current_time()


async def test_the_sink_is_told_everything_but_answers(autojump_clock: trio.testing.MockClock) -> None:
    events: list[KdEvent] = []
    line = InMemory(stopped_target(small_machine()))
    engine = Engine(line, KdConnection(KdcomLink(Role.HOST)), events.append)
    engine.connection.send_reset(trio.current_time())
    while not isinstance(await engine.next_event(), StateChanged):
        pass
    outcome = await engine.request(_read(0), repeatable=True)
    assert isinstance(outcome, Replied)
    assert any(isinstance(event, StateChanged) for event in events)
    assert not any(isinstance(event, Replied) for event in events)


async def test_only_the_beginning_of_a_flood_is_kept_for_diagnosis(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(stopped_target(small_machine()))

    async def flood() -> bytes:
        await trio.sleep(0.01)
        return b"U" * 4096

    client.line.receive = flood  # type: ignore[method-assign]
    with trio.move_on_after(2):
        await client.session.engine.next_event()
        while True:
            await client.session.engine.next_event()
    assert len(client.session.engine.first_bytes) <= (1 << 14) + 4096
    assert client.session.engine.early.counted[False] <= (1 << 14) + 4096
    assert client.session.engine.bytes_received > 100_000


async def test_a_packet_that_stops_in_the_middle_is_given_up_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    cuts = iter([40])

    def cut(chunk: bytes) -> list[bytes]:
        size = next(cuts, None)
        return [chunk if size is None else chunk[: 16 + size]]

    client.line.to_host = lambda chunk: cut(chunk) if chunk.startswith(b"0000") else [chunk]
    started = trio.current_time()
    outcome = await client.session.engine.request(_read(0x100, 3000), repeatable=True)
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[0x100 : 0x100 + 3000]
    assert trio.current_time() - started < 2.5
    assert client.session.engine.discards[Discard.TRUNCATED] > 0


async def test_a_half_packet_while_nothing_is_asked_is_given_up_too(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    half = encode_data(3, 0x80800000, bytes(100))[:60]
    told = [half]

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        if told:
            return told.pop()
        await trio.sleep_forever()
        raise AssertionError

    client.line.receive = receive  # type: ignore[method-assign]
    client.line.sent.clear()
    with trio.move_on_after(3):
        while True:
            await client.session.engine.next_event()
    packets, _ = split(client.sent)
    assert [packet.packet_type for packet in packets] == [5], "it is asked for again"


async def test_each_damaged_packet_is_counted_once_and_the_next_read_asks_for_less(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    engine = client.session.engine
    bad = iter([True, True, True])

    def spoil(chunk: bytes) -> list[bytes]:
        if chunk.startswith(b"0000") and next(bad, False):
            return [chunk[:500] + bytes([chunk[500] ^ 1]) + chunk[501:]]
        return [chunk]

    assert engine.transfer_sizes == (3944, 3944) and engine.damaged == 0
    client.line.to_host = spoil
    outcome = await engine.request(_read(0x100, 3944), repeatable=True)
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[0x100 : 0x100 + 3944]
    assert (engine.damaged, engine.discards[Discard.BAD_CHECKSUM]) == (3, 3 * 4000)
    assert engine.transfer_sizes[0] < 2000
    assert engine.damaged == 3
    for _ in range(200):
        await engine.request(_read(0x100, 3944), repeatable=True)
    assert engine.transfer_sizes == (3944, 3944)


async def test_a_reply_too_long_for_the_line_is_given_up_and_asked_for_in_smaller_pieces(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()

    def damage(chunk: bytes) -> list[bytes]:
        """No packet of more than a thousand bytes comes whole."""
        return [chunk if len(chunk) < 1000 else chunk[:500] + bytes([chunk[500] ^ 1]) + chunk[501:]]

    client.line.to_host = damage
    started = trio.current_time()
    outcome = await client.session.engine.request(_read(0x100, 3000), repeatable=True)
    assert isinstance(outcome, Replied)
    wanted = outcome.request.memory_wanted
    assert 64 <= wanted < 1000
    assert outcome.reply.data == content()[0x100 : 0x100 + wanted]
    engine = client.session.engine
    assert engine.damaged % 8 == 0 and engine.discards[Discard.HOPELESS] == 56 * (engine.damaged // 8)
    assert engine.read_size.ceiling <= 1000
    # Without it, this is a minute of the same answer, and then another.
    assert trio.current_time() - started < 5.0
