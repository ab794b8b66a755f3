"""How much is asked for at once: what the link carries, what a reply proved, what a short reply says."""

from __future__ import annotations

from kdbridge.transfer import TransferSize, memory_reply
from protocol.manipulate import ApiNumber, Manipulate


def test_a_link_that_knows_its_size_is_used_to_the_full() -> None:
    size = TransferSize(lambda: (3944, 3944))
    assert (size.now, size.most) == (3944, 3944)


def test_more_is_asked_for_once_a_reply_carried_it() -> None:
    size = TransferSize(lambda: (1096, 1232))
    assert (size.now, size.most) == (1096, 1232)
    size.came(1095)
    assert size.now == 1096
    size.came(1232)
    assert size.now == 1232
    size.came(4000)
    assert size.now == 1232, "never more than the link may carry"


def test_the_link_may_learn_its_size_later() -> None:
    carried = [(1096, 1096)]
    size = TransferSize(lambda: carried[0])
    size.came(1232)
    assert size.now == 1096
    carried[0] = (1096, 1232)
    assert size.now == 1232


def test_two_short_replies_of_one_size_are_the_targets_limit() -> None:
    size = TransferSize(lambda: (1096, 1232))
    size.came_short(1000)
    assert size.now == 1096, "one may be the end of what can be read"
    size.came_short(1000)
    assert (size.now, size.most) == (1000, 1000)


def test_short_replies_of_different_sizes_or_tiny_ones_say_nothing() -> None:
    size = TransferSize(lambda: (1096, 1096))
    for short in (1000, 900, 1000, 900, 16, 16, 16):
        size.came_short(short)
    assert size.now == 1096


def test_a_user_may_ask_for_less() -> None:
    size = TransferSize(lambda: (3944, 3944))
    size.limit(100)
    assert (size.now, size.most) == (100, 100)


def test_a_reply_brings_no_more_than_was_asked_said_or_sent() -> None:
    request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0x1000, transfer_count=8)
    for said, expected in ((8, 8), (5, 5), (100, 8)):
        assert len(memory_reply(request.reply(0, data=b"abcdefghij", actual_bytes=said), 8).data) == expected
    refused = memory_reply(request.reply(0xC0000001, data=b"abcdefgh", actual_bytes=8), 8)
    assert (refused.data, refused.complete) == (b"abcdefg", False)
