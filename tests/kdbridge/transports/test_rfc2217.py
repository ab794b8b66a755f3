"""RFC 2217 against a server out of pyserial's own parts, whose port is a pseudo terminal that the test holds."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest
import serial
import serial.rfc2217

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports import Transport, open_transport
from tests.kdbridge.transports.lines import EVERY_BYTE, cancel_a_receive, receive_exactly

# pyserial 3.5 names its thread in a way that Python has given up.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")


class _Port(serial.Serial):
    """A pseudo terminal has no DTR, RTS and their like: they are only remembered."""

    def _update_dtr_state(self) -> None: ...
    def _update_rts_state(self) -> None: ...

    cts = dsr = ri = cd = False


class Server:
    """One client at a time, a thread for each direction."""

    def __init__(self) -> None:
        self.far, self._near = os.openpty()
        self.port = _Port(os.ttyname(self._near), 300, timeout=0.05)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(20)
        self.address = f"rfc2217:127.0.0.1:{self._listening.getsockname()[1]}"
        self._client: socket.socket | None = None
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def write(self, data: bytes) -> None:
        """For pyserial's PortManager: its answers."""
        assert self._client is not None
        self._client.sendall(data)

    def hang_up(self) -> None:
        """End the connection, and the threads."""
        self._ending.set()
        for end in (self._client, self._listening):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.hang_up()
        self.port.close()
        os.close(self._near)
        os.close(self.far)

    def _serve(self) -> None:
        try:
            self._client, _ = self._listening.accept()
            manager = serial.rfc2217.PortManager(self.port, self)  # type: ignore[arg-type]
            back = threading.Thread(target=self._carry_back, args=(manager,))
            back.start()
            self._threads.append(back)
            while data := self._client.recv(4096):
                self.port.write(b"".join(manager.filter(data)))
        except OSError:
            pass
        self._ending.set()

    def _carry_back(self, manager: serial.rfc2217.PortManager) -> None:
        try:
            while not self._ending.is_set():
                if data := self.port.read(max(1, self.port.in_waiting)):
                    self.write(b"".join(manager.escape(data)))
        except OSError:
            pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def _read(server: Server, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(server.far, size - len(data))
    return data


async def _opened(server: Server, options: str = "") -> Transport:
    return await open_transport(server.address + options)


async def test_all_bytes_get_through_both_ways_and_the_far_port_is_set(server: Server) -> None:
    transport = await _opened(server, "?baud=57600&dtr=0")
    assert (server.port.baudrate, server.port.bytesize, server.port.parity, server.port.stopbits) == (57600, 8, "N", 1)
    assert (server.port.rtscts, server.port.xonxoff) == (False, False)
    assert (server.port.dtr, server.port.rts) == (False, True)
    os.write(server.far, EVERY_BYTE)
    assert await receive_exactly(transport, len(EVERY_BYTE)) == EVERY_BYTE
    await transport.send(EVERY_BYTE)
    assert _read(server, len(EVERY_BYTE)) == EVERY_BYTE
    await transport.aclose()


async def test_a_receive_that_was_cancelled_has_taken_nothing(server: Server) -> None:
    transport = await _opened(server)
    for number in range(5):
        await cancel_a_receive(transport)
        os.write(server.far, bytes([number]))
        assert await receive_exactly(transport, 1) == bytes([number])
    await transport.aclose()


async def test_a_server_that_ends_is_an_error_that_says_so(server: Server) -> None:
    transport = await _opened(server)
    server.hang_up()
    with pytest.raises(TransportLostError, match="the connection to the port's server ended"):
        await transport.receive()
    await transport.aclose()


async def test_a_server_that_is_not_there_is_an_error_that_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(
            TransportOpenError, match=r"no server for serial ports answers there \(Connection refused\)"
        ):
            await open_transport(f"rfc2217:127.0.0.1:{unused.getsockname()[1]}")


async def test_who_speaks_no_rfc_2217_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = serial.rfc2217.Timeout  # type: ignore[attr-defined]
    monkeypatch.setattr(serial.rfc2217, "Timeout", lambda seconds: whole(seconds and min(seconds, 0.01)))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(TransportOpenError, match="write tcp: instead"),
    ):
        await open_transport(f"rfc2217:127.0.0.1:{silent.getsockname()[1]}")
