"""The rival on the network: the least that reads memory over KDNET, with the same cryptography. Blocking, no retries.

Each read is one request, its acknowledge, the reply, our acknowledge, each a datagram that is sealed or opened.
Whatever goes wrong makes it hang or crash: what an engine adds to this is what it costs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
import time

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["blocking_dump_net", "crypto_seconds"]

_HEADER = struct.Struct("<IHHII")
_DATA, _CONTROL = 0x30303030, 0x69696969
_READ_PHYSICAL = 0x313D
_LARGEST = 1096


class _Wire:
    """Sealing and opening datagrams under two keys (kdnet 2, 3)."""

    def __init__(self, control: bytes) -> None:
        self.control = control
        self.hmac_key = bytes(byte ^ 0xFF for byte in control)
        self.data = control
        self.version = 5
        self.sequence = 0

    def seal(self, channel: int, payload: bytes, sequence: int) -> bytes:
        head = b"MDBG" + bytes((self.version, channel))
        pad = -(8 + len(payload)) % 16
        plain = (sequence << 8 | 0x80 | pad).to_bytes(8, "big") + payload + bytes(pad)
        tag = hmac.digest(self.hmac_key, head + plain, "sha256")[:16]
        key = self.control if channel else self.data
        return head + Cipher(algorithms.AES(key), modes.CBC(tag)).encryptor().update(plain) + tag

    def open(self, raw: bytes) -> tuple[int, int, bytes]:
        key = self.control if raw[5] else self.data
        tag = raw[-16:]
        plain = Cipher(algorithms.AES(key), modes.CBC(tag)).decryptor().update(raw[6:-16])
        if not hmac.compare_digest(hmac.digest(self.hmac_key, raw[:6] + plain, "sha256")[:16], tag):
            return -1, 0, b""
        inner = int.from_bytes(plain[:8], "big")
        return raw[5], inner >> 8, plain[8 : len(plain) - (inner & 15)]

    def send(self, sock: socket.socket, payload: bytes) -> None:
        self.sequence += 1
        sock.send(self.seal(0, payload, self.sequence))


def blocking_dump_net(port: int, control: bytes, first_page: int, pages: int) -> tuple[float, bytes]:
    """Seconds to read so many pages from the target that pokes this port; and the last page."""
    wire = _Wire(control)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    while True:
        raw, peer = sock.recvfrom(65536)
        channel, sequence, poke = wire.open(raw) if raw[5] == 1 else (-1, 0, b"")
        if channel == 1 and poke[:2] == b"\x01\x01":
            break
    wire.version = raw[4]
    response = b"\x01\x02" + poke[2:34] + os.urandom(32) + bytes(256)
    sock.connect(peer)
    sock.send(wire.seal(1, response, sequence))
    wire.data = hashlib.sha256(control + response).digest()

    def packet() -> tuple[int, int, int, bytes]:
        while True:
            raw = sock.recv(65536)
            if raw[5] == 0:
                channel, _, payload = wire.open(raw)
                if channel == 0 and len(payload) >= 16:
                    leader, kind, _, ident, _ = _HEADER.unpack_from(payload)
                    return leader, kind, ident, payload[16:]

    sent = 0x80000000
    wire.send(sock, _HEADER.pack(_CONTROL, 6, 0, sent, 0))
    while True:
        leader, kind, ident, _ = packet()
        if leader == _DATA:
            wire.send(sock, _HEADER.pack(_CONTROL, 4, 0, ident, 0))
            if kind == 7:
                break
    start = time.perf_counter()
    address, end = first_page << 12, first_page + pages << 12
    last = bytearray()
    while address < end:
        count = min(_LARGEST, end - address)
        body = struct.pack("<IHHIIQII", _READ_PHYSICAL, 0, 0, 0, 0, address, count, 0).ljust(56, b"\0")
        wire.send(sock, _HEADER.pack(_DATA, 2, 56, sent, sum(body)) + body)
        while True:
            leader, kind, ident, payload = packet()
            if leader == _DATA and kind == 2 and payload[:4] == body[:4] and payload[16:24] == body[16:24]:
                wire.send(sock, _HEADER.pack(_CONTROL, 4, 0, ident, 0))
                break
        sent += 2
        address += len(payload) - 56
        last += payload[56:]
        del last[:-4096]
    seconds = time.perf_counter() - start
    sock.close()
    return seconds, bytes(last)


def crypto_seconds(reads: int) -> float:
    """Seconds that the cryptography of so many reads takes at our end: two datagrams sealed, two opened."""
    wire = _Wire(bytes(range(32)))
    ack, request = bytes(16), bytes(72)
    heard = [wire.seal(0, bytes(16), 1), wire.seal(0, bytes(16 + 56 + _LARGEST), 2)]
    start = time.perf_counter()
    for sequence in range(reads):
        wire.seal(0, ack, sequence)
        wire.seal(0, request, sequence)
        for raw in heard:
            wire.open(raw)
    return time.perf_counter() - start
