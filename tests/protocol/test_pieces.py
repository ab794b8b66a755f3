"""Overlapping pieces, held against a dictionary of bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from protocol.pieces import Stretch, without_overlaps

_PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 25)), max_size=14)


@given(_PIECES)
def test_each_byte_is_of_the_first_piece_that_holds_it(pieces: list[tuple[int, int]]) -> None:
    expected = {
        at: number for number, (start, size) in reversed([*enumerate(pieces)]) for at in range(start, start + size)
    }
    stretches = list(without_overlaps(pieces))
    assert {at: one.piece for one in stretches for at in range(one.start, one.end)} == expected
    assert all(one.start < one.end for one in stretches)
    assert all(one.end <= other.start for one, other in itertools.pairwise(stretches))
    assert len(stretches) <= 2 * len(pieces)


def test_a_later_piece_shows_where_the_first_ends() -> None:
    assert list(without_overlaps([(4, 4), (0, 12), (6, 5)])) == [Stretch(0, 4, 1), Stretch(4, 8, 0), Stretch(8, 12, 1)]


def test_twenty_thousand_one_over_the_other_are_one() -> None:
    count = 20_000
    assert list(without_overlaps([(n, 2 * (count - n)) for n in range(count)])) == [Stretch(0, 2 * count, 0)]
    assert len(list(without_overlaps([(n, 2 * (count - n)) for n in reversed(range(count))]))) == 2 * count - 1
