"""Garbage kept out of the socket by the system itself, where it can (Linux): what cannot be KDNET costs us nothing.

A flood of it would else fill the socket's queue, and our own datagrams would wait behind it or find no room.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Sequence

from protocol.kdnet.datagram import LARGEST_DATAGRAM, MAGIC, SMALLEST_DATAGRAM

__all__ = ["dropped_by_system", "keep_out_garbage"]

_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55
_MEMINFO = struct.Struct("9I")
_DROPS = 8

# Classic BPF: instructions of an operation, two jumps and a number, over the UDP header and what is behind it.
_LOAD_WORD, _LOAD_LENGTH, _AND, _SUBTRACT = 0x20, 0x80, 0x54, 0x14
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x15, 0x25, 0x35, 0x06
_UDP = 8
_OVERHEAD = SMALLEST_DATAGRAM - 16


def _program() -> bytes:
    magic = int.from_bytes(MAGIC, "big")
    steps: Sequence[tuple[int, int, int, int]] = (
        (_LOAD_LENGTH, 0, 0, 0),
        (_IF_AT_LEAST, 0, 7, _UDP + SMALLEST_DATAGRAM),
        (_IF_GREATER, 6, 0, _UDP + LARGEST_DATAGRAM),
        (_SUBTRACT, 0, 0, _UDP + _OVERHEAD),
        (_AND, 0, 0, 15),
        (_IF_EQUAL, 0, 3, 0),
        (_LOAD_WORD, 0, 0, _UDP),
        (_IF_EQUAL, 0, 1, magic),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def keep_out_garbage(bound: socket.socket) -> bool:
    """From now on, only what begins with MDBG and has a size that KDNET has gets into this socket's queue.

    False: this system cannot do that; then each is looked at here.
    """
    if sys.platform != "linux":
        return False
    program = _program()
    buffer = ctypes.create_string_buffer(program, len(program))
    try:
        bound.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
        )
    except OSError:
        return False
    return True


def dropped_by_system(bound: socket.socket) -> int:
    """How many datagrams the system kept out, or had no room for; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    try:
        counts = _MEMINFO.unpack(bound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    drops: int = counts[_DROPS]
    return drops
