"""Byte streams for property tests: packets, pieces of packets, and what only looks like one."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import strategies as st

from protocol.packet import encode_control, encode_data

__all__ = ["IDS", "A", "chunked", "streams"]

A = 0x80800000

IDS = st.sampled_from([A, A | 1, A | 0x800, A | 0x801, 0, 5, 0xDEADBEEF])
_TYPES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xFFFF])
_PAYLOADS = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes(56), b"0" * 60, b"i" * 60, b"b" * 64, bytes(4000), b"\xaa" * 4160]),
)
_PACKETS = st.builds(encode_data, _TYPES, IDS, _PAYLOADS)
_CONTROLS = st.builds(encode_control, st.sampled_from([4, 5, 6]), IDS)
_HEADERS = st.builds(
    lambda leader, kind, count, packet_id, total: leader + struct.pack("<HHII", kind, count, packet_id, total),
    st.sampled_from([b"0000", b"iiii"]),
    _TYPES,
    st.sampled_from([0, 1, 55, 56, 4000, 4001, 4160, 4161, 0xFFFF]),
    IDS,
    st.integers(0, 0xFFFFFFFF),
)
_CUT = st.builds(lambda wire, at: wire[: at % (len(wire) + 1)], _PACKETS, st.integers(0, 100))
_FLIPPED = st.builds(
    lambda wire, at, bits: wire[: at % len(wire)] + bytes([wire[at % len(wire)] ^ bits]) + wire[at % len(wire) + 1 :],
    _PACKETS,
    st.integers(0, 10_000),
    st.integers(1, 255),
)
_SCRAPS = st.sampled_from(
    [b"0", b"i", b"b", b"00", b"iii", b"0000", b"iiii", b"0i", b"\xaa", b"\0", b"text\r\n", b"bb"]
)

streams: st.SearchStrategy[bytes] = st.lists(
    st.one_of(_PACKETS, _CONTROLS, _HEADERS, _CUT, _FLIPPED, _SCRAPS, st.binary(max_size=20)), max_size=8
).map(b"".join)
"""Any of them, in any order."""


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces, cut at these places (taken modulo its length)."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(places)]
