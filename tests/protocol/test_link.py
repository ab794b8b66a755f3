"""The vocabulary of links: budgets of the reference, and how a serial line comes to throw bytes away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.kdcom import KdcomLink
from protocol.link import Discard, Discarded, Link, LinkTimers, Role
from protocol.packet import HEADER, encode_control, encode_data
from tests.raw import A, attached, change_bytes, events_of, kd_events_of
from tests.wire import target_link


def _heard(role: Role, *wire: bytes) -> list[object]:
    link = KdcomLink(role)
    for chunk in wire:
        link.receive_data(chunk, 0.0)
    return [*events_of(link)]


def _stopped_in_the_middle() -> list[object]:
    link = KdcomLink(Role.HOST)
    link.receive_data(encode_data(7, A, change_bytes())[:20], 0.0)
    link.handle_timeout(1.0)
    return [*events_of(link)]


def _polled() -> list[object]:
    link = target_link()
    link.set_polling(True, 0.0)
    link.receive_data(b"x", 0.0)
    assert not link.poll()
    return [*events_of(link)]


def _request_for_an_acknowledge() -> list[object]:
    link = target_link()
    link.send_packet(7, change_bytes(), 0.0, tries=0)
    link.receive_data(encode_data(2, A, bytes(56)), 0.0)
    return [*events_of(link)]


def _told(payload: bytes, kind: int = 2) -> list[object]:
    host = attached()
    host.receive_data(encode_data(kind, A | 1, payload), 0.0)
    return [*kd_events_of(host)]


_CASES: dict[Discard, Callable[[], list[object]]] = {
    Discard.NOISE: lambda: _heard(Role.HOST, b"login: "),
    Discard.BAD_TYPE: lambda: _heard(Role.HOST, HEADER.pack(0x30303030, 99, 56, A, 0)),
    Discard.BAD_SIZE: lambda: _heard(Role.HOST, HEADER.pack(0x30303030, 2, 5000, A, 0)),
    Discard.BAD_ID: lambda: _heard(Role.HOST, encode_data(2, 5, bytes(56))),
    Discard.BAD_TRAILER: lambda: _heard(Role.HOST, encode_data(2, A, bytes(56))[:-1] + b"?"),
    Discard.BAD_CHECKSUM: lambda: _heard(Role.HOST, HEADER.pack(0x30303030, 2, 1, A, 7) + b"x\xaa"),
    Discard.TRUNCATED: _stopped_in_the_middle,
    Discard.DUPLICATE: lambda: _heard(Role.HOST, encode_data(2, A, bytes(56)) * 2),
    Discard.STRAY_ACKNOWLEDGE: lambda: _heard(Role.HOST, encode_control(4, A)),
    Discard.UNWANTED_TYPE: lambda: _heard(Role.TARGET, encode_data(3, A, bytes(56))),
    Discard.SKIPPED_BODY: _request_for_an_acknowledge,
    Discard.POLLED: _polled,
    Discard.MALFORMED_MESSAGE: lambda: _told(b"short"),
    Discard.STALE_REPLY: lambda: _told(bytes.fromhex("30310000") + bytes(52)),
}


@pytest.mark.parametrize("reason", _CASES)
def test_every_reason_of_a_kdcom_line_comes_about(reason: Discard) -> None:
    found = [event for event in _CASES[reason]() if isinstance(event, Discarded)]
    assert reason in {event.reason for event in found}
    assert all(len(event.sample) <= min(event.count, 64) for event in found)
    assert len(reason.value.split()) > 3, "said in words"


def test_budgets_of_the_reference() -> None:
    # kd-protocol 1.8 and 1.13: 5 tries until the first contact, 20 after; about a second of silence.
    for link, tries in ((KdcomLink(Role.TARGET), 20), (KdcomLink(Role.HOST), 5)):
        assert link.timers == LinkTimers(byte=1.0, acknowledge=1.0, tries=tries, first_tries=5)


def test_a_kdcom_line_is_a_link() -> None:
    link: Link = KdcomLink(Role.HOST)
    assert (link.role, link.idle, link.synchronized) == (Role.HOST, True, False)
    assert (link.next_event(), link.data_to_send(), link.next_timeout()) == (None, [], None)
    missing = [name for name in vars(Link) if not name.startswith("_") and not hasattr(link, name)]
    assert missing == []
