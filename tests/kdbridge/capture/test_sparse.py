"""Pieces of memory, held against a plain dictionary of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbridge.capture.sparse import SparseBytes

_ADDRESSES = st.integers(0, 3 * 4096) | st.integers(2**64 - 8192, 2**64 - 1)
_PIECES = st.lists(st.tuples(_ADDRESSES, st.binary(max_size=40) | st.binary(min_size=4090, max_size=9000)), max_size=8)


@pytest.mark.slow
@given(_PIECES, _ADDRESSES, st.integers(0, 10_000))
def test_what_is_known_up_to_the_first_hole_and_the_first_wins(
    pieces: list[tuple[int, bytes]], address: int, size: int
) -> None:
    memory, plain = SparseBytes(), dict[int, int]()
    for at, data in pieces:
        memory.put(at, data)
        for index, byte in enumerate(data, at):
            plain.setdefault(index, byte)
    expected = bytearray()
    while len(expected) < size and address + len(expected) in plain:
        expected.append(plain[address + len(expected)])
    assert memory.get(address, size) == expected
