"""Two ends of KDNET for tests of what stands between: a key, datagrams that a target, or somebody else, would send."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from kdbridge.cipher import AesCbc
from protocol.kdnet import (
    Address,
    Channel,
    ControlKey,
    Datagram,
    Endpoint,
    KdnetLink,
    Sealer,
    TargetChannel,
    format_key,
    parse_key,
)
from protocol.kdnet.control import NOWHERE, Poke

__all__ = ["HOST", "KEY", "KEY_TEXT", "OTHER_KEY", "loopback", "poke", "sealed", "target_link"]

KEY_TEXT = "17890.af3489a.9345kjm.lio147"
KEY = parse_key(KEY_TEXT)
OTHER_KEY = parse_key("1.2.3.4")
HOST: Address = ("192.0.2.1", 50000)

assert format_key(KEY) == KEY_TEXT


def target_link(
    *,
    host: Address = HOST,
    own: Address = ("192.0.2.10", 50000),
    version: int = 5,
    key: ControlKey = KEY,
    random: Callable[[int], bytes] = os.urandom,
) -> KdnetLink:
    channel = TargetChannel(key, AesCbc(), random, own=Endpoint(own[0], own[1]), host=host, version=version)
    return KdnetLink(channel)


def poke(
    *,
    key: ControlKey = KEY,
    own: Address = ("192.0.2.10", 50000),
    bound: Address | None = None,
    count: int = 1,
    life: bytes = bytes(24),
    version: int = 5,
) -> bytes:
    """A genuine poke, made by hand."""
    nonce = count.to_bytes(8, "little") + life
    there = NOWHERE if bound is None else Endpoint(bound[0], bound[1])
    payload = Poke(nonce, Endpoint(own[0], own[1]), Endpoint(HOST[0], HOST[1]), there).encode()
    return Sealer(key, AesCbc()).seal(Datagram(version, Channel.CONTROL, False, 3 * count, payload), key.raw)


def sealed(payload: bytes, *, key: bytes, sequence: int = 1, from_host: bool = False, channel: int = 0) -> bytes:
    """A datagram whose tag is right, under any key for its contents."""
    return Sealer(KEY, AesCbc()).seal(Datagram(5, channel, from_host, sequence, payload), key)


def loopback() -> socket.socket:
    """A socket on this machine, for whoever sends something."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.settimeout(20)
    return bound
