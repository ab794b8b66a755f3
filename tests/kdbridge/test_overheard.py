"""The record of a line: what came before anything was sent, what came after, and no more memory than it may take."""

from __future__ import annotations

from kdbridge.overheard import MOST_KEPT, Overheard


def test_what_came_before_and_after_the_first_word_is_told_apart() -> None:
    heard = Overheard()
    for at, sent, data in ((0.1, False, b"one"), (0.2, False, b"two"), (0.5, True, b"us"), (0.7, False, b"three")):
        heard.add(at, sent, data)
    assert (heard.unasked, heard.in_answer, heard.sent) == (b"onetwo", b"three", b"us")
    assert heard.received == b"onetwothree"
    heard.seconds = 2.0
    assert heard.quiet == 2.0 - 0.7


def test_nothing_sent_means_that_all_came_unasked() -> None:
    heard = Overheard()
    heard.add(0.1, False, b"all of it")
    assert (heard.unasked, heard.in_answer) == (b"all of it", b"")


def test_a_flood_is_counted_and_not_kept() -> None:
    heard = Overheard()
    for _ in range(5):
        heard.add(1.0, False, bytes(MOST_KEPT // 2))
    assert heard.counted[False] == 5 * (MOST_KEPT // 2)
    assert len(heard.received) == MOST_KEPT
    heard.add(2.0, True, b"still noted")
    assert heard.sent == b"still noted"
