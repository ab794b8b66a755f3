"""The packet on its way: ids are used once, tries are counted (kdnet 5, 5.2; kd-protocol 1.8)."""

from __future__ import annotations

import pytest

from protocol.errors import LocalProtocolError
from protocol.kdnet.outgoing import Outgoing
from protocol.link import LinkTimers

_TIMERS = LinkTimers(acknowledge=0.5, tries=20, first_tries=5)


def _outgoing(first: int = 0) -> Outgoing:
    return Outgoing(_TIMERS, first)


def _id(packet: bytes | None) -> int:
    assert packet is not None
    return int.from_bytes(packet[8:12], "little")


def test_a_packet_keeps_its_id_until_it_arrived() -> None:
    out = _outgoing(0x80000000)
    assert _id(out.begin(2, b"one", 0.0, None)) == 0x80000000
    out.sent()
    assert _id(out.again(0.5)) == 0x80000000
    out.acknowledged()
    assert _id(out.begin(2, b"two", 1.0, None)) == 0x80000002


def test_an_id_that_was_sent_names_nothing_else() -> None:
    out = _outgoing()
    out.begin(2, b"one", 0.0, None)
    out.sent()
    assert out.drop() == 1
    assert _id(out.begin(2, b"two", 0.0, None)) == 2, "the peer may have packet 0"


def test_an_id_that_was_never_sent_is_free() -> None:
    out = _outgoing()
    out.begin(2, b"one", 0.0, None)
    out.drop()
    assert _id(out.begin(2, b"two", 0.0, None)) == 0


def test_one_packet_at_a_time() -> None:
    out = _outgoing()
    out.begin(2, b"one", 0.0, None)
    with pytest.raises(LocalProtocolError, match="stop-and-wait"):
        out.begin(2, b"two", 0.0, None)


@pytest.mark.parametrize(("contact", "tries", "rounds"), [(False, None, 5), (True, None, 20), (True, 3, 3)])
def test_tries_run_out(contact: bool, tries: int | None, rounds: int) -> None:
    out = _outgoing()
    out.contact = contact
    out.begin(2, b"", 0.0, tries)
    assert [out.overdue() for _ in range(rounds)] == [False] * (rounds - 1) + [True]
    assert out.drop() == rounds


def test_zero_tries_are_endless() -> None:
    out = _outgoing()
    out.begin(2, b"", 0.0, 0)
    assert not any(out.overdue() for _ in range(1000))


def test_it_is_due_half_a_second_after_it_was_sent() -> None:
    out = _outgoing()
    due = [out.due]
    out.begin(2, b"", 10.0, None)
    due.append(out.due)
    out.again(12.0)
    due.append(out.due)
    out.acknowledged()
    due.append(out.due)
    assert due == [None, 10.5, 12.5, None]


def test_a_peer_may_not_ask_for_ever() -> None:
    out = _outgoing()
    out.begin(2, b"", 0.0, 0)
    assert [out.asked_again() for _ in range(51)] == [True] * 50 + [False]


def test_without_a_packet_there_is_nothing_to_do() -> None:
    out = _outgoing()
    assert out.idle and out.again(0.0) is None and out.drop() == 0 and not out.overdue() and out.asked_again()
