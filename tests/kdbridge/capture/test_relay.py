"""What stands between: bytes and datagrams go through as they are, to whom they were meant for."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from kdbridge.capture.relay import bind_datagrams, relay_datagrams, relay_line
from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import Transport
from kdbridge.transports.address import parse_target
from kdbridge.transports.tap import Tap
from protocol.kdnet import Address


class End:
    """One side of a line whose other end is the test."""

    url = "test:"
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.to_relay, self._incoming = trio.open_memory_channel[bytes](100)
        self.written = bytearray()
        self.closed = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise TransportLostError("closed")
        self.written += data

    async def receive(self) -> bytes:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            raise TransportLostError("test: hung up") from None

    async def aclose(self) -> None:
        self.closed = True


class Awaited(End):
    """A side at which nobody is at first."""

    notes: tuple[str, ...] = ("somebody came",)

    def __init__(self) -> None:
        super().__init__()
        self.here = trio.Event()

    async def wait(self) -> None:
        await self.here.wait()


@dataclass
class Seen:
    stream: list[tuple[bool, bytes]] = field(default_factory=list)
    datagrams: list[tuple[Address, Address, bytes]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def tap(self) -> Tap:
        return Tap(lambda *seen: self.stream.append(seen), lambda *seen: self.datagrams.append(seen))


async def test_bytes_go_both_ways_until_the_target_is_gone() -> None:
    debugger, target, seen = End(), End(), Seen()
    with trio.fail_after(5):
        async with _running(lambda: relay_line(debugger, target, seen.tap, seen.told.append)) as failures:
            await debugger.to_relay.send(b"question")
            await trio.testing.wait_all_tasks_blocked()
            await target.to_relay.send(b"answer")
            await trio.testing.wait_all_tasks_blocked()
            assert (bytes(target.written), bytes(debugger.written)) == (b"question", b"answer")
            target.to_relay.close()
    assert [str(failure) for failure in failures] == ["test: hung up"]
    assert seen.stream == [(True, b"question"), (False, b"answer")]
    assert debugger.closed


async def test_one_debugger_after_another_and_what_comes_between_goes_nowhere() -> None:
    first, second, target, seen = Awaited(), Awaited(), End(), Seen()

    async def again(before: Transport) -> Transport:
        assert before is first
        return second

    with trio.fail_after(5):
        async with _running(lambda: relay_line(first, target, seen.tap, seen.told.append, again)):
            await target.to_relay.send(b"nobody hears this")
            await trio.testing.wait_all_tasks_blocked()
            first.here.set()
            await trio.testing.wait_all_tasks_blocked()
            await target.to_relay.send(b"one")
            await trio.testing.wait_all_tasks_blocked()
            first.to_relay.close()
            await trio.testing.wait_all_tasks_blocked()
            await target.to_relay.send(b"nor this")
            second.here.set()
            await trio.testing.wait_all_tasks_blocked()
            await target.to_relay.send(b"two")
            await trio.testing.wait_all_tasks_blocked()
            target.to_relay.close()
    assert (bytes(first.written), bytes(second.written)) == (b"one", b"two")
    assert [data for _, data in seen.stream] == [b"nobody hears this", b"one", b"nor this", b"two"]
    assert seen.told == ["somebody came", "the debugger hung up; the next one is waited for", "somebody came"]


async def test_where_nobody_else_can_come_it_ends_with_the_debugger() -> None:
    debugger, target, seen = End(), End(), Seen()
    debugger.to_relay.close()
    with pytest.raises(TransportLostError, match="hung up"):
        await relay_line(debugger, target, seen.tap, seen.told.append)


@contextlib.asynccontextmanager
async def _running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[list[TransportLostError]]:
    """It works while the block runs; how it ended is known behind the block."""
    failures: list[TransportLostError] = []

    async def worked() -> None:
        try:
            await work()
        except TransportLostError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worked)
        await trio.testing.wait_all_tasks_blocked()
        yield failures
    assert failures


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.settimeout(5)
    return bound


async def test_each_target_has_a_port_of_its_own_towards_the_debugger_and_gets_what_is_for_it() -> None:
    seen = Seen()
    listening = await bind_datagrams(parse_target("net:port=0"))
    port = listening.getsockname()[1]
    with _bound() as debugger, _bound() as one, _bound() as other, _bound() as stranger:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay_datagrams, listening, debugger.getsockname(), seen.tap, seen.told.append)
            names: dict[bytes, Address] = {}
            for target, data in ((one, b"one"), (other, b"other"), (one, b"one")):
                target.sendto(data, ("127.0.0.1", port))
                got, source = await trio.to_thread.run_sync(debugger.recvfrom, 100)
                assert got == data and names.setdefault(data, source) == source
            assert names[b"one"] != names[b"other"]
            stranger.sendto(b"forged", names[b"one"])
            debugger.sendto(b"to other", names[b"other"])
            debugger.sendto(b"", names[b"one"])
            debugger.sendto(b"to one", names[b"one"])
            assert await trio.to_thread.run_sync(other.recvfrom, 100) == (b"to other", ("127.0.0.1", port))
            assert [(await trio.to_thread.run_sync(one.recvfrom, 100))[0] for _ in range(2)] == [b"", b"to one"]
            nursery.cancel_scope.cancel()
        place = debugger.getsockname()
        assert (one.getsockname(), place, b"one") in seen.datagrams
        assert (place, other.getsockname(), b"to other") in seen.datagrams
        assert not any(data == b"forged" for *_, data in seen.datagrams)
        assert len(seen.told) == 2
    assert listening.fileno() < 0


async def test_a_port_that_is_taken_is_named() -> None:
    with _bound() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportOpenError, match="cannot listen there: Address already in use"):
            await bind_datagrams(parse_target(f"net:port={port},bind=127.0.0.1"))
