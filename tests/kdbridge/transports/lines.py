"""What the tests of several transports share: all byte values, a number of them read, a receive cancelled."""

from __future__ import annotations

import trio
import trio.testing

from kdbridge.transports import Transport

__all__ = ["EVERY_BYTE", "cancel_a_receive", "receive_exactly"]

EVERY_BYTE = bytes(range(256)) + b"\r\n\r\r\n\n\x11\x13\x03\x04\x1a\x7f\xff\xff\x00" + bytes(range(255, -1, -1))
"""Every value, and those in a row that terminals make something else of: line ends, flow control, interrupt, IAC."""


async def receive_exactly(transport: Transport, size: int) -> bytes:
    """As many bytes; more than that is an error of the test's."""
    data = b""
    with trio.fail_after(20):
        while len(data) < size:
            data += await transport.receive()
    assert len(data) == size
    return data


async def cancel_a_receive(transport: Transport) -> None:
    """Begin to receive, wait until it waits, and cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
