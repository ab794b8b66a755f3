"""Targets that answer in odd ways, or say something before an answer: small stubs over `tests.kdbridge.chatty`."""

from __future__ import annotations

import struct
from collections.abc import Callable

from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_SUCCESS
from tests.kdbridge.chatty import Chatty
from tests.small_machine import KERNEL, content

__all__ = ["Answering", "Odd", "Talking", "print_payload", "stale_version"]


def print_payload(text: bytes) -> bytes:
    """DbgKdPrintString (kd-protocol 4.1)."""
    return struct.pack("<IHHII", 0x3230, 6, 0, len(text), 0) + text


def stale_version() -> bytes:
    return Manipulate.request(ApiNumber.GET_VERSION).reply(STATUS_SUCCESS).encode()


class Talking(Chatty):
    """A stopped target that says these packets between the acknowledge of each request and its reply."""

    def __init__(self, *packets: tuple[int, bytes]) -> None:
        super().__init__(content(), 1, 0.0)
        self.packets = packets
        self.said = 0

    def _answer(self, request: bytes, now: float) -> None:
        for packet_type, payload in self.packets:
            self.say(packet_type, payload, now)
            self.said += 1
        super()._answer(request, now)


Odd = Callable[[int, int], tuple[int, int, bytes]]
"""Address and size of a read to status, bytes that it claims, and the bytes that are there."""


class Answering(Chatty):
    """A stopped target that answers reads as it is told to."""

    def __init__(self, odd: Odd) -> None:
        super().__init__(content(), 1, 0.0)
        self.odd = odd

    def _answer(self, request: bytes, now: float) -> None:
        (api,) = struct.unpack_from("<I", request)
        if api != 0x3130:
            super()._answer(request, now)
            return
        address, size = struct.unpack_from("<QI", request, 16)
        status, claimed, data = self.odd(address - KERNEL, size)
        reply = bytearray(request[:56])
        struct.pack_into("<I", reply, 8, status)
        struct.pack_into("<I", reply, 28, claimed)
        self.say(2, bytes(reply) + data, now)
