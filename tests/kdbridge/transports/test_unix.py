"""Unix sockets: connecting and being connected to; the other side is a plain socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import open_transport
from tests.kdbridge.transports.lines import EVERY_BYTE, cancel_a_receive, receive_exactly


def _listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    return server


def _dial(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20)
    peer.connect(str(path))
    return peer


async def test_all_bytes_get_through_both_ways(tmp_path: Path) -> None:
    with _listening(tmp_path / "vm") as server:
        transport = await open_transport(f"unix:{tmp_path}/vm")
        peer, _ = server.accept()
    with peer:
        peer.sendall(EVERY_BYTE)
        assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
        await transport.send(EVERY_BYTE)
        assert peer.recv(len(EVERY_BYTE), socket.MSG_WAITALL) == EVERY_BYTE
    with pytest.raises(TransportLostError, match="the other side closed the socket"):
        await transport.receive()
    with pytest.raises(TransportLostError, match="the other side closed the socket"):
        await transport.send(b"x")
    await transport.aclose()


async def test_a_socket_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TransportOpenError, match="there is no such socket"):
        await open_transport(f"unix:{tmp_path}/vm")


async def test_a_socket_nobody_listens_on_is_an_error_that_says_so(tmp_path: Path) -> None:
    _listening(tmp_path / "vm").close()
    with pytest.raises(TransportOpenError, match="nobody listens on it"):
        await open_transport(f"unix:{tmp_path}/vm")


async def test_a_path_longer_than_the_system_bears_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(TransportOpenError, match="too long"):
        await open_transport(f"unix:{tmp_path}/{'x' * 200}")
    with pytest.raises(TransportOpenError, match=r"too long"):
        await open_transport(f"unix-listen:{tmp_path}/{'x' * 200}")


async def test_receiving_waits_for_the_first_who_connects(tmp_path: Path) -> None:
    transport = await open_transport(f"unix-listen:{tmp_path}/vm")
    assert any(str(tmp_path / "vm") in note for note in transport.notes)
    await cancel_a_receive(transport)
    with _dial(tmp_path / "vm") as peer:
        peer.sendall(EVERY_BYTE)
        assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
        await transport.send(b"answer")
        assert peer.recv(6, socket.MSG_WAITALL) == b"answer"
        await transport.aclose()
        assert peer.recv(1) == b""


async def test_the_socket_file_is_gone_when_the_listening_ends(tmp_path: Path) -> None:
    transport = await open_transport(f"unix-listen:{tmp_path}/vm")
    assert (tmp_path / "vm").is_socket()
    await transport.aclose()
    assert not (tmp_path / "vm").exists()


async def test_the_socket_file_of_somebody_else_stays_when_the_listening_ends(tmp_path: Path) -> None:
    transport = await open_transport(f"unix-listen:{tmp_path}/vm")
    (tmp_path / "vm").rename(tmp_path / "ours")
    with _listening(tmp_path / "vm"):
        await transport.aclose()
        assert (tmp_path / "vm").is_socket()


async def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    _listening(tmp_path / "vm").close()
    transport = await open_transport(f"unix-listen:{tmp_path}/vm")
    with _dial(tmp_path / "vm") as peer:
        peer.sendall(b"here")
        assert await receive_exactly(transport, 4) == b"here"
    await transport.aclose()


async def test_a_socket_that_somebody_listens_on_stays(tmp_path: Path) -> None:
    with _listening(tmp_path / "vm") as server:
        with pytest.raises(TransportOpenError, match="another program listens there"):
            await open_transport(f"unix-listen:{tmp_path}/vm")
        server.accept()[0].close()
        with _dial(tmp_path / "vm"):
            server.accept()[0].close()


async def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "vm").write_text("precious")
    with pytest.raises(TransportOpenError, match="no socket; it stays"):
        await open_transport(f"unix-listen:{tmp_path}/vm")
    assert (tmp_path / "vm").read_text() == "precious"
