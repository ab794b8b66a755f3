"""TCP: connecting and being connected to; the other side is a plain socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import Transport, open_transport, parse_target
from tests.kdbridge.transports.lines import EVERY_BYTE, cancel_a_receive, receive_exactly


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


async def _connected(server: socket.socket) -> tuple[Transport, socket.socket]:
    transport = await open_transport(f"tcp:127.0.0.1:{server.getsockname()[1]}")
    peer, _ = server.accept()
    peer.settimeout(20)
    return transport, peer


def _dial(transport: Transport) -> socket.socket:
    address = parse_target(transport.url)
    peer = socket.create_connection((address.host, address.port), timeout=20)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def _read(peer: socket.socket, size: int) -> bytes:
    return peer.recv(size, socket.MSG_WAITALL)


async def test_all_bytes_get_through_both_ways(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    with peer:
        peer.sendall(EVERY_BYTE)
        assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
        await transport.send(EVERY_BYTE)
        assert _read(peer, len(EVERY_BYTE)) == EVERY_BYTE
        await transport.aclose()
        assert peer.recv(1) == b""


async def test_a_receive_that_was_cancelled_has_taken_nothing(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    with peer:
        for round_ in range(5):
            await cancel_a_receive(transport)
            peer.sendall(bytes([round_]))
            assert await receive_exactly(transport, 1) == bytes([round_])
    await transport.aclose()


async def test_a_peer_that_hangs_up_is_an_error_that_says_so(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    peer.sendall(b"last words")
    peer.close()
    assert await receive_exactly(transport, 10) == b"last words"
    with pytest.raises(TransportLostError, match="the other side ended the connection"):
        await transport.receive()
    await transport.aclose()


async def test_writing_to_a_peer_that_vanished_is_an_error_that_says_so(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    # Linger 0: the peer's system answers with a reset.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    peer.close()
    with pytest.raises(TransportLostError, match="the other side ended the connection"):
        await transport.send(b"x")
    await transport.aclose()


async def test_closing_twice_is_no_error_and_what_is_closed_says_so(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    with peer:
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(TransportLostError, match="closed by this program"):
            await transport.receive()
        with pytest.raises(TransportLostError, match="closed by this program"):
            await transport.send(b"x")


async def test_a_send_that_nobody_reads_can_be_cancelled(server: socket.socket) -> None:
    transport, peer = await _connected(server)
    with peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send, bytes(1 << 26))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
    await transport.aclose()


async def test_a_port_nobody_listens_on_is_an_error_that_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransportOpenError, match="nobody listens there"):
            await open_transport(f"tcp:127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize("name", ["a" * 70, "a..b"])
async def test_what_cannot_be_a_hosts_name_is_an_error_that_says_so(name: str) -> None:
    with pytest.raises(TransportOpenError, match="cannot be the name of a host"):
        await open_transport(f"tcp:{name}:5003")


async def test_listening_takes_a_free_port_and_says_which() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    assert parse_target(transport.url).port != 0
    assert any(transport.url in note for note in transport.notes)
    with _dial(transport):
        pass
    await transport.aclose()


async def test_receiving_waits_for_the_first_who_connects() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    await cancel_a_receive(transport)
    with _dial(transport) as peer:
        peer.sendall(EVERY_BYTE)
        assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
        await transport.send(EVERY_BYTE)
        assert _read(peer, len(EVERY_BYTE)) == EVERY_BYTE
        assert f"connected: 127.0.0.1 port {peer.getsockname()[1]}" in transport.notes
        await transport.aclose()
        assert peer.recv(1) == b""


async def test_sending_waits_for_the_first_who_connects() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, b"hello")
        await trio.testing.wait_all_tasks_blocked()
        peer = _dial(transport)
    with peer:
        assert _read(peer, 5) == b"hello"
    await transport.aclose()


async def test_nobody_else_gets_in_beside_the_first() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    with _dial(transport) as first:
        first.sendall(b"x")
        assert await receive_exactly(transport, 1) == b"x"
        with pytest.raises(ConnectionRefusedError):
            _dial(transport)
    await transport.aclose()


async def test_a_peer_that_came_and_went_is_an_error_that_says_so() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    with _dial(transport):
        pass
    with pytest.raises(TransportLostError, match="the other side ended the connection"):
        await transport.receive()
    await transport.aclose()


async def test_closing_what_waits_ends_the_listening() -> None:
    transport = await open_transport("tcp-listen:127.0.0.1:0")
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConnectionRefusedError):
        _dial(transport)
    with pytest.raises(TransportLostError, match="closed by this program"):
        await transport.receive()


async def test_a_port_that_is_taken_is_an_error_that_says_so(server: socket.socket) -> None:
    with pytest.raises(TransportOpenError, match="another program listens there"):
        await open_transport(f"tcp-listen:127.0.0.1:{server.getsockname()[1]}")


async def test_ipv6_is_listened_on_and_connected_to() -> None:
    try:
        listening = await open_transport("tcp-listen:[::1]:0")
    except TransportOpenError as error:
        pytest.skip(str(error))
    calling = await open_transport(listening.url.replace("tcp-listen", "tcp"))
    await calling.send(b"over six")
    assert await receive_exactly(listening, 8) == b"over six"
    await calling.aclose()
    await listening.aclose()
