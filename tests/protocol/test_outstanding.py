"""A packet on the way: after a second of quiet it is sent again, and bytes that come put that off only so long."""

from __future__ import annotations

from protocol.link import Role
from protocol.outstanding import Outstanding


def test_a_second_of_quiet_is_waited_for_and_ten_at_most() -> None:
    # kd-protocol 1.13: about a second.
    packet = Outstanding(2, b"", None, sent_at=100.0)
    for last_byte, due in ((-1.0, 101.0), (100.0, 101.0), (104.0, 105.0), (150.0, 110.0)):
        assert packet.due(Role.TARGET, 1.0, last_byte) == due


def test_a_host_waits_twice_as_long_for_its_second_try() -> None:
    second = Outstanding(2, b"", None, sent_at=100.0, tries_made=2)
    assert (second.due(Role.HOST, 1.0, 0.0), second.due(Role.TARGET, 1.0, 0.0)) == (102.0, 101.0)
    assert second.due(Role.HOST, 1.0, 500.0) == 120.0
    assert Outstanding(2, b"", None, sent_at=100.0, tries_made=3).due(Role.HOST, 1.0, 0.0) == 101.0
