"""Ports that only know how to block, played by a queue: each step happens when the test lets it."""

from __future__ import annotations

import queue
import threading

import pytest
import serial
import trio
import trio.testing

from kdbridge.errors import TransportLostError
from kdbridge.transports.threaded import ThreadedTransport, made_in_thread
from tests.kdbridge.transports.lines import cancel_a_receive, receive_exactly


class Port:
    """Reads what the test puts into `arriving`: bytes, b"" for a timeout, an error to raise."""

    def __init__(self, most: int = 1 << 20) -> None:
        self.arriving: queue.Queue[bytes | Exception] = queue.Queue()
        self.written = bytearray()
        self.closed = threading.Event()
        self._behind = b""
        self._most = most

    @property
    def in_waiting(self) -> int:
        return len(self._behind)

    def read(self, size: int = 1, /) -> bytes:
        if not self._behind:
            item = self.arriving.get(timeout=20)
            if isinstance(item, Exception):
                raise item
            self._behind = item
        data, self._behind = self._behind[:size], self._behind[size:]
        return data

    def write(self, data: bytes, /) -> int:
        self.written += data[: self._most]
        return min(len(data), self._most)

    def close(self) -> None:
        self.closed.set()


def _over(port: Port) -> ThreadedTransport:
    return ThreadedTransport("rfc2217:h:1", port, ("a note",), "the server went away")


async def test_what_has_come_is_received_at_once_and_timeouts_are_waited_over() -> None:
    port = Port()
    for item in (b"", b"", b"packet"):
        port.arriving.put(item)
    assert await _over(port).receive() == b"packet"


async def test_what_the_thread_of_a_cancelled_receive_reads_is_the_next_receives() -> None:
    port = Port()
    transport = _over(port)
    for number in range(10):
        await cancel_a_receive(transport)
        port.arriving.put(b"%d" % number)
        assert await receive_exactly(transport, 1) == b"%d" % number
    await transport.aclose()


async def test_receives_that_were_cancelled_in_a_row_keep_the_order() -> None:
    port = Port()
    transport = _over(port)
    for _ in range(5):
        await cancel_a_receive(transport)
    for item in (b"first ", b"second ", b"third"):
        port.arriving.put(item)
    assert await receive_exactly(transport, 18) == b"first second third"


async def test_a_port_that_takes_a_few_bytes_at_a_time_gets_all() -> None:
    port = Port(most=3)
    await _over(port).send(b"0123456789")
    assert port.written == b"0123456789"


@pytest.mark.parametrize("error", [serial.SerialException("connection failed"), OSError(5, "Input/output error")])
async def test_an_error_of_the_port_is_a_lost_transport(error: Exception) -> None:
    port = Port()
    port.arriving.put(error)
    with pytest.raises(TransportLostError, match=r"^rfc2217:h:1: the server went away \(.*(failed|error)\)$"):
        await _over(port).receive()


async def test_closing_closes_the_port_and_what_is_closed_says_so() -> None:
    port = Port()
    transport = _over(port)
    await transport.aclose()
    await transport.aclose()
    assert port.closed.is_set()
    with pytest.raises(TransportLostError, match="closed by this program"):
        await transport.receive()
    with pytest.raises(TransportLostError, match="closed by this program"):
        await transport.send(b"x")


async def test_closing_inside_a_cancelled_scope_closes_all_the_same() -> None:
    port = Port()
    with trio.CancelScope() as scope:
        scope.cancel()
        await _over(port).aclose()
    assert port.closed.is_set()


async def test_a_port_whose_opening_was_cancelled_is_closed_when_it_is_open() -> None:
    port, may_open = Port(), threading.Event()

    def make() -> Port:
        may_open.wait(20)
        return port

    async with trio.open_nursery() as nursery:
        nursery.start_soon(made_in_thread, make)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not port.closed.is_set()
    may_open.set()
    assert await trio.to_thread.run_sync(port.closed.wait, 20)
