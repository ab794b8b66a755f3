"""Asking for damaged packets: at once, then slower, so that it ends on a line that damages every packet."""

from __future__ import annotations

from protocol.kdcom import KdcomLink
from protocol.link import Role
from protocol.resends import Resends

RESEND = bytes.fromhex("69696969050000000000000000000000")
"""kd-protocol 1.16."""
DAMAGED = bytes.fromhex("3030303007000400000880800500000001020304AA")
"""A state change of four bytes which add up to ten, not five."""


def damaged_packets(link: KdcomLink, count: int, now: float) -> int:
    asked = 0
    for _ in range(count):
        link.receive_data(DAMAGED, now)
        while link.next_event() is not None:
            pass
        asked += link.data_to_send().count(RESEND)
    return asked


def test_a_damaged_packet_is_asked_for_again() -> None:
    assert damaged_packets(KdcomLink(Role.HOST), 1, 0.0) == 1


def test_a_line_that_damages_every_packet_is_not_asked_for_ever() -> None:
    """On a line without a speed of its own, both ends would talk for ever in one moment."""
    assert damaged_packets(KdcomLink(Role.HOST), 1000, 0.0) == 16


def test_later_it_is_asked_again() -> None:
    link = KdcomLink(Role.HOST)
    damaged_packets(link, 1000, 0.0)
    assert [damaged_packets(link, 10, now) for now in (0.2, 1.0, 1.1, 2.0)] == [0, 1, 0, 1]


def test_a_good_packet_settles_it() -> None:
    link = KdcomLink(Role.HOST)
    damaged_packets(link, 1000, 0.0)
    link.receive_data(DAMAGED.replace(b"\x05\0\0\0\x01", b"\x0a\0\0\0\x01"), 0.0)
    assert damaged_packets(link, 1000, 0.0) == 16


def test_a_target_always_asks() -> None:
    """As real ones do (kd-protocol 1.7)."""
    resends = Resends(Role.TARGET)
    assert all(resends.ask(0.0) == [RESEND] for _ in range(1000))
