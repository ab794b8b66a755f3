"""One UDP socket: bound where it was asked, told where it is, deaf to garbage, and never the end of a session."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kdbridge.errors import TransportLostError, TransportOpenError, UsageError
from kdbridge.transports import DatagramTransport
from kdbridge.transports.address import parse_target
from kdbridge.transports.net import NetTransport, open_net
from protocol.kdnet import Address, KdnetLink
from protocol.link import Discard
from tests.kdbridge.transports.network import KEY_TEXT, loopback, poke, target_link

_V6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


_made: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _leave_nothing_open() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


async def _open(form: str = "net:port=0,key=KEY") -> NetTransport:
    way = await open_net(parse_target(form.replace("KEY", KEY_TEXT)))
    _made.append(way._socket)
    return way


def _port(way: NetTransport) -> int:
    return way.address[1]


class _Target:
    """A target on a real socket, which says nothing by itself but what its link says."""

    def __init__(self, way: NetTransport, family: int = socket.AF_INET) -> None:
        here = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((here, 0))
        self.socket.settimeout(20)
        _made.append(self.socket)
        self.to = (here, _port(way))
        own: Address = (here, self.socket.getsockname()[1])
        self.link: KdnetLink = target_link(host=self.to, own=own)

    def say(self) -> None:
        for datagram, _ in self.link.datagrams_to_send():
            self.socket.sendto(datagram, self.to)

    def hear(self) -> None:
        datagram, source = self.socket.recvfrom(65535)
        self.link.receive_datagram(datagram, source, 0.0)

    async def join(self, way: NetTransport) -> None:
        """Poke, be answered, say the first word."""
        self.link.handle_timeout(0.0)
        self.say()
        with trio.move_on_after(0.05):
            await way.receive()
        self.hear()
        self.say()
        with trio.fail_after(20):
            assert await way.receive() == b""
        assert way.link.peer is not None


async def test_it_is_a_datagram_transport() -> None:
    way = await _open()
    assert isinstance(way, DatagramTransport)
    await way.aclose()


async def test_its_url_tells_the_port_that_it_got_and_no_key() -> None:
    way = await _open()
    assert way.url == f"net://:{_port(way)}?key=…" and _port(way) > 0
    assert way.notes[0].startswith("waits at ") and f":{_port(way)} (UDP)" in way.notes[0]
    await way.aclose()


async def test_it_listens_where_it_was_told() -> None:
    way = await _open("net:port=0,key=KEY,bind=127.0.0.1")
    assert way.address[0] == "127.0.0.1"
    assert way.url == f"net://127.0.0.1:{_port(way)}?key=…"
    assert way.notes == (f"waits at 127.0.0.1:{_port(way)} (UDP)",)
    await way.aclose()


@pytest.mark.parametrize("family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=_V6)])
async def test_a_target_is_answered_over_ipv4_and_ipv6(family: int) -> None:
    way = await _open()
    target = _Target(way, family)
    await target.join(way)
    # An IPv4 address is seen as such, though the socket is one for both.
    assert way.link.peer is not None
    assert way.link.peer[:2] == target.socket.getsockname()[:2]
    assert way.explain() is None
    await way.aclose()


async def test_what_is_sent_goes_to_the_target_datagram_by_datagram() -> None:
    way = await _open()
    target = _Target(way)
    await way.send(b"nobody is there yet")
    await target.join(way)
    with trio.move_on_after(0.05):
        await way.receive()
    target.hear()  # the greeting, RESEND
    for data in (b"one", b"two" * 300):
        await way.send(data)
        assert target.socket.recvfrom(65535)[0] == data
    await way.aclose()


async def test_a_cancelled_receive_loses_nothing() -> None:
    way = await _open()
    target = _Target(way)
    await target.join(way)
    for number in range(20):
        with trio.CancelScope() as scope:
            scope.cancel()
            await way.receive()
        target.link.send_packet(7, bytes([number]) * 240, 0.0)
        target.say()
        for wait in (0.0, 0.0, 20.0):
            with trio.move_on_after(wait) as scope:
                assert await way.receive() == b""
                break
        else:
            pytest.fail("it never came")
        event = way.link.next_event()
        while event is not None and getattr(event, "payload", None) != bytes([number]) * 240:
            event = way.link.next_event()
        assert event is not None
        while not target.link.idle:
            target.hear()
    await way.aclose()


async def test_what_is_there_already_is_had_without_going_to_sleep() -> None:
    way = await _open()
    target = _Target(way)
    await target.join(way)
    assert way.receive_within(0.0) is None
    target.link.send_packet(7, bytes(240), 0.0)
    target.say()
    assert way.receive_within(20.0) == b""
    assert way.receive_within(0.0) is None, "told once"
    with loopback() as somebody:
        for _ in range(100):
            somebody.sendto(b"MDBG\x05\x00" + bytes(32), ("127.0.0.1", _port(way)))
        assert way.receive_within(0.01) is None, "garbage is no news, and is not waited through for ever"
    await way.aclose()
    with pytest.raises(TransportLostError, match="was closed by this program"):
        way.receive_within(0.0)


async def test_garbage_wakes_nobody_and_is_counted() -> None:
    way = await _open()
    with loopback() as somebody:
        for datagram in (b"noise", b"", b"MDBG", bytes(2000), b"M" * 60000):
            somebody.sendto(datagram, ("127.0.0.1", _port(way)))
        with trio.move_on_after(0.2) as scope:
            await way.receive()
        assert scope.cancelled_caught
    assert way.link.facts.discarded == {Discard.NOT_KDNET: 4, Discard.BAD_DATAGRAM: 1}
    assert way.received == 0
    text = way.explain(5.0)
    assert text is not None and "not of KDNET" in text
    await way.aclose()


async def test_a_flood_does_not_keep_others_from_their_turn() -> None:
    way = await _open()
    noise = [b"noise" * 10] * 50

    def flood(size: int) -> tuple[bytes, Address]:
        if not noise:
            raise BlockingIOError
        return noise[0], ("127.0.0.1", 9)

    class Flooded:
        family = socket.AF_INET

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        recvfrom = staticmethod(flood)

    real = way._socket
    way._socket = Flooded()  # type: ignore[assignment]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with trio.move_on_after(0.3) as scope:
            await way.receive()
        nursery.cancel_scope.cancel()
    assert scope.cancelled_caught and turns > 20
    assert way.link.facts.datagrams > 500
    assert len(way.link.facts.sources[Discard.NOT_KDNET]) == 1
    way._socket = real
    await way.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
async def test_in_a_session_the_system_itself_keeps_garbage_out() -> None:
    way = await _open()
    target = _Target(way)
    await target.join(way)
    before, ignored = way.link.facts.datagrams, way.ignored
    with loopback() as somebody:
        for _ in range(1000):
            somebody.sendto(b"noise" * 100, ("127.0.0.1", _port(way)))
        target.link.send_packet(7, bytes(240), 0.0)
        target.say()
        with trio.fail_after(20):
            await way.receive()
    assert way.link.facts.datagrams == before + 1, "none of the thousand stood before it"
    assert way.ignored == ignored + 1000
    await way.aclose()


async def test_what_cannot_be_sent_is_lost_and_told() -> None:
    way = await _open("net:port=0,key=KEY,bind=127.0.0.1")
    target = _Target(way)
    await target.join(way)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def sendto(self, data: bytes, to: Address) -> None:
            raise OSError(101, "Network is unreachable")

    real = way._socket
    way._socket = Broken()  # type: ignore[assignment]
    await way.send(b"x")
    peer = target.socket.getsockname()
    assert way.loss() == f"Nothing can be sent to 127.0.0.1:{peer[1]}: Network is unreachable."
    way._socket = real
    await way.send(b"x")
    assert way.loss() == "", "it is over as soon as one gets out"
    await way.aclose()


async def test_every_datagram_can_be_watched_as_it_is_on_the_wire() -> None:
    way = await _open()
    seen: list[tuple[bool, bytes, Address]] = []
    way.watch = lambda sent, datagram, peer: seen.append((sent, datagram, peer))
    target = _Target(way)
    await target.join(way)
    assert [(sent, len(datagram)) for sent, datagram, _ in seen] == [(False, 374), (True, 358), (False, 54), (True, 54)]
    assert {peer for _, _, peer in seen} == {target.socket.getsockname()}
    await way.aclose()


async def test_a_named_target_is_asked_to_poke() -> None:
    with loopback() as pc:
        way = await _open(f"net:port=0,key=KEY,target=localhost:{pc.getsockname()[1]},bind=127.0.0.1")
        with trio.move_on_after(1.2):
            await way.receive()
        asked = [pc.recvfrom(65535) for _ in range(3)]
        assert {len(datagram) for datagram, _ in asked} == {38}
        assert {source for _, source in asked} == {way.address}
        text = way.explain(1.0)
        assert text is not None and f"127.0.0.1:{pc.getsockname()[1]}, which was asked twice a second" in text
        await way.aclose()


async def test_a_port_that_is_taken_and_an_address_of_somebody_else() -> None:
    with loopback() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportOpenError, match="another program has that UDP port") as raised:
            await _open(f"net:port={port},key=KEY,bind=127.0.0.1")
    assert KEY_TEXT not in str(raised.value) and f"net://127.0.0.1:{port}?key=…" in str(raised.value)
    with pytest.raises(TransportOpenError, match="this machine has no such address"):
        await _open("net:port=0,key=KEY,bind=203.0.113.77")


async def test_a_target_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*words: object, **more: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("trio.socket.getaddrinfo", unknown)
    with pytest.raises(TransportOpenError, match=r"the target nobody\.example is not known"):
        await _open("net:port=0,key=KEY,target=nobody.example")


async def test_no_key_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDBRIDGE_KEY", raising=False)
    with pytest.raises(UsageError, match="there is no key"):
        await open_net(parse_target("net:port=0"))


async def test_the_key_may_be_in_the_environment_or_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KDBRIDGE_KEY", KEY_TEXT)
    path = tmp_path / "key"
    path.write_text(KEY_TEXT)
    path.chmod(0o644)
    for form, notes in (("net:port=0", 1), (f"net:port=0,keyfile={path}", 2)):
        way = await _open(form)
        assert len(way.notes) == notes
        await _Target(way).join(way)
        await way.aclose()


async def test_closed_it_says_so() -> None:
    way = await _open()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(TransportLostError, match="was closed by this program"):
                await way.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await way.aclose()
    with pytest.raises(TransportLostError, match="was closed by this program"):
        await way.receive()


async def test_a_poke_is_answered_to_where_it_came_from() -> None:
    way = await _open()
    with loopback() as pc:
        pc.sendto(poke(own=("192.0.2.10", 50000)), ("127.0.0.1", _port(way)))
        with trio.move_on_after(0.2):
            await way.receive()
        response, source = pc.recvfrom(65535)
        assert len(response) == 358 and source[1] == _port(way)
    await way.aclose()
