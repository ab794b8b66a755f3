"""What is said while nothing usable comes: each cause by its own sentence, from what really came."""

from __future__ import annotations

import os

import pytest

from kdbridge.transports.net_end import HostEnd
from kdbridge.transports.net_waiting import Place, explain_waiting, show_address
from protocol.kdnet import Address
from protocol.kdnet.control import Endpoint, Response
from tests.kdbridge.transports.network import HOST, KEY, OTHER_KEY, poke, sealed

_PC: Address = ("192.0.2.10", 50000)
_PLACE = ("192.0.2.1", "fd00::2")


def _end(target: Address | None = None) -> HostEnd:
    return HostEnd(KEY, Place(50000, _PLACE, show_address(target) if target else ""), target)


def _said(*heard: tuple[bytes, Address], wait: float | None = None, end: HostEnd | None = None) -> str:
    end = end or _end()
    for now, (datagram, source) in enumerate(heard):
        end.receive(datagram, source, float(now))
    text = end.explain(wait)
    assert text is not None and "\n" not in text
    return text


_CAUSES = (
    "A firewall on this machine drops what comes to that port, or the target was told another address or port (there, "
    "bcdedit /dbgsettings should show hostip:192.0.2.1 port:50000, or another address of this machine), or it is not "
    "at a stop and has no network: it is off, it was not restarted since, or its network card is none that KDNET "
    "drives."
)


def test_nothing_at_all() -> None:
    assert _said(wait=12.5) == (
        "not a single datagram came within 12.5 seconds; listening at 192.0.2.1:50000 and [fd00::2]:50000 (UDP). "
        + _CAUSES
    )
    assert _said().startswith("not a single datagram came so far; listening at 192.0.2.1:50000")


def test_nothing_though_the_target_was_asked() -> None:
    text = _said(wait=30, end=_end(_PC))
    assert text.startswith(
        "not a single datagram came within 30 seconds from 192.0.2.10:50000, which was asked twice a second from port "
        "50000; listening at "
    )
    assert text.endswith(_CAUSES)


def test_datagrams_of_another_program() -> None:
    heard = [(b"GET / HTTP/1.1\r\n\r\n", ("198.51.100.4", 1234)), (b"\0" * 38, ("198.51.100.4", 1234))]
    assert _said(*heard, wait=5) == (
        "datagrams (2) came from 198.51.100.4:1234 that are not of KDNET (they do not begin with MDBG): another "
        "program sends to this port."
    )
    assert "(2)" not in _said(*heard)


def test_datagrams_that_are_cut() -> None:
    assert _said((poke()[:-7], _PC), wait=5) == (
        "datagrams (1) came from 192.0.2.10:50000 that begin as KDNET's do and have a size that none has: they are cut "
        "on the way, or another program makes them."
    )


def test_a_target_with_another_key() -> None:
    assert _said((poke(key=OTHER_KEY), _PC), wait=5) == (
        "KDNET datagrams (1) came from 192.0.2.10:50000 that do not authenticate: that target has another key than the "
        "one given here (there, bcdedit /dbgsettings shows it)."
    )


def test_a_target_that_another_debugger_owns() -> None:
    heard = [(poke(bound=("192.0.2.77", 50001), count=n), _PC) for n in (1, 2)]
    assert _said(*heard, wait=5) == (
        "the target at 192.0.2.10:50000 pokes with this key (2 times), but another debugger, at 192.0.2.77:50001, owns "
        "it, and it takes no answer of ours: end that debugger."
    )


def test_a_target_that_hears_no_answer() -> None:
    assert _said((poke(), _PC), wait=5) == (
        "the target at 192.0.2.10:50000 pokes with this key (1 times), and takes no answer of ours: what is sent to it "
        "does not arrive. A firewall or a router stands between, or two machines answer it."
    )


@pytest.mark.parametrize("own", [("169.254.7.8", 50000), ("fe80::7", 50000)])
def test_a_target_without_a_dhcp_lease(own: Address) -> None:
    text = _said((poke(own=own), own), wait=5)
    assert text.endswith(
        f"the target calls itself {own[0]}: no DHCP server gave it an address, and with that one it reaches its own "
        "cable only. Give it one, or this machine an address of that kind on the same cable."
    )


def test_data_of_a_session_that_is_gone() -> None:
    assert _said((sealed(bytes(40), key=os.urandom(32)), _PC), wait=5) == (
        "data (1) came from 192.0.2.10:50000, under a key that was agreed with a debugger that is gone: the target "
        "will poke within 3 seconds, and be answered."
    )


def test_a_version_that_nobody_knows() -> None:
    assert "it speaks KDNET version 9, of which nothing is known; it is answered all the same." in _said(
        (poke(version=9), _PC)
    )


def test_a_debuggers_own_datagrams() -> None:
    response = sealed(Response(bytes(32), bytes(32)).encode(), key=KEY.raw, from_host=True, channel=1)
    assert _said((response, _PC), wait=5).startswith(
        "datagrams (1) of a debugger's came from 192.0.2.10:50000: another debugger was told this machine's address"
    )


def test_what_cannot_be_sent_is_told() -> None:
    end = _end()
    end.place.unsent["192.0.2.10:50000"] = "Network is unreachable"
    assert _said((poke(), _PC), end=end).endswith("nothing can be sent to 192.0.2.10:50000: Network is unreachable.")


def test_several_causes_are_told_of_all_genuine_targets_first() -> None:
    text = _said((b"noise", ("198.51.100.4", 1)), (poke(key=OTHER_KEY), ("192.0.2.11", 50000)), (poke(), _PC), wait=5)
    places = [text.index(part) for part in ("192.0.2.10:50000 pokes", "192.0.2.11:50000 that do not", "198.51.100.4:1")]
    assert places == sorted(places)


def test_only_some_of_many_addresses_are_shown() -> None:
    text = _said(*((b"noise", (f"198.51.100.{n}", 1)) for n in range(200)), wait=5)
    assert "(200)" in text and "and 13 more" in text and len(text) < 400


def test_without_an_end_the_text_changes_only_with_its_reason() -> None:
    end = _end()
    texts = {_said((poke(key=OTHER_KEY), _PC), (b"noise", ("198.51.100.4", 1)), end=end) for _ in range(20)}
    assert len(texts) == 1


def test_a_session_needs_no_explanation() -> None:
    end = _end()
    assert explain_waiting(end.place, end.link.facts, None)
    end.receive(poke(), _PC, 0.0)
    assert end.explain() is not None, "an answer alone is no session"


def test_addresses_are_shown_as_they_are_written() -> None:
    assert show_address(("fe80::1%eth0", 5, 0, 2)) == "[fe80::1%eth0]:5"
    assert show_address(HOST) == "192.0.2.1:50000"
    assert Endpoint("192.0.2.1", 50000) == Endpoint(*HOST[:2])
