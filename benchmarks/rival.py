"""The rival: the least that reads memory over KDCOM. Blocking, no retries, no checks of anything, no progress.

Each read is one request, its acknowledge, the reply, our acknowledge. Whatever goes wrong makes it hang or crash:
what an engine adds to this is what it costs.
"""

from __future__ import annotations

import os
import socket
import struct
import termios
import time
import tty
from collections.abc import Callable

_HEADER = struct.Struct("<IHHII")
_DATA, _CONTROL = 0x30303030, 0x69696969
_READ_PHYSICAL = 0x313D
_LARGEST = 3944


def _open(url: str) -> tuple[Callable[[int], bytes], Callable[[bytes], object], Callable[[], None]]:
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
        return sock.recv, sock.sendall, sock.close
    fd = os.open(rest.partition("?")[0], os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    termios.tcflush(fd, termios.TCIFLUSH)
    return lambda size: os.read(fd, size), lambda data: os.write(fd, data), lambda: os.close(fd)


class _Line:
    def __init__(self, url: str) -> None:
        self.recv, self.send, self.close = _open(url)
        self.buffer = bytearray()

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.buffer += self.recv(65536)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def packet(self) -> tuple[int, int, int, bytes]:
        """(leader, type, id, payload) of the next packet."""
        while True:
            head = self.take(16)
            while head[:4] not in (b"0000", b"iiii"):
                head = head[1:] + self.take(1)
            leader, kind, size, ident, _ = _HEADER.unpack(head)
            payload = b""
            if leader == _DATA:
                payload = self.take(size)
                self.take(1)
            return leader, kind, ident, payload


def blocking_dump(url: str, first_page: int, pages: int) -> tuple[float, bytes]:
    """Seconds to read so many pages; and the last page."""
    line = _Line(url)
    line.send(_HEADER.pack(_CONTROL, 6, 0, 0, 0))
    sent = 0x80800000
    while True:
        leader, kind, ident, _ = line.packet()
        if leader == _DATA and kind == 7:
            line.send(_HEADER.pack(_CONTROL, 4, 0, ident & ~0x800, 0))
            break
    start = time.perf_counter()
    address, end = first_page << 12, first_page + pages << 12
    last = bytearray()
    while address < end:
        count = min(_LARGEST, end - address)
        body = struct.pack("<IHHIIQII", _READ_PHYSICAL, 0, 0, 0, 0, address, count, 0).ljust(56, b"\0")
        line.send(_HEADER.pack(_DATA, 2, 56, sent, sum(body)) + body + b"\xaa")
        while True:
            leader, kind, ident, payload = line.packet()
            if leader == _DATA and kind == 2 and payload[:4] == body[:4] and payload[16:24] == body[16:24]:
                line.send(_HEADER.pack(_CONTROL, 4, 0, ident, 0))
                break
        sent ^= 1
        address += len(payload) - 56
        last += payload[56:]
        del last[:-4096]
    seconds = time.perf_counter() - start
    line.close()
    return seconds, bytes(last)
