"""What is counted of the network, and that it never grows without end."""

from __future__ import annotations

from protocol.kdnet import Endpoint, KdnetFacts
from protocol.kdnet.control import NOWHERE, Poke
from protocol.kdnet.facts import MOST_SOURCES
from protocol.link import Discard, Discarded

_HOST = Endpoint("192.0.2.1", 50000)
_OWN = Endpoint("192.0.2.10", 50000)


def _poke(own: Endpoint = _OWN, bound: Endpoint = NOWHERE) -> Poke:
    return Poke(bytes(32), own, _HOST, bound)


def test_a_discard_is_counted_by_reason_and_address() -> None:
    facts = KdnetFacts()
    for port in (1, 1, 2):
        facts.discard(Discard.NOT_KDNET, b"hello", ("192.0.2.9", port))
    facts.discard(Discard.NOT_AUTHENTIC, b"MDBG", ("192.0.2.9", 3))
    assert facts.discarded == {Discard.NOT_KDNET: 3, Discard.NOT_AUTHENTIC: 1}
    assert facts.sources[Discard.NOT_KDNET] == {("192.0.2.9", 1): 2, ("192.0.2.9", 2): 1}


def test_of_each_reason_one_event_waits() -> None:
    facts = KdnetFacts()
    for number in range(1000):
        facts.discard(Discard.NOT_KDNET, b"%4d" % number)
        facts.discard(Discard.REPLAYED, bytes(100))
    assert facts.take_discarded() == Discarded(Discard.NOT_KDNET, 4000, b"   0")
    assert facts.take_discarded() == Discarded(Discard.REPLAYED, 100_000, bytes(64))
    assert facts.take_discarded() is None


def test_a_flood_from_everywhere_is_remembered_in_part() -> None:
    facts = KdnetFacts()
    for _ in range(3):
        facts.discard(Discard.NOT_AUTHENTIC, b"MDBG", ("192.0.2.9", 50000))
    for port in range(5000):
        facts.discard(Discard.NOT_AUTHENTIC, b"MDBG", ("198.51.100.1", port))
        facts.saw_poke(("198.51.100.1", port), _poke(), 5, float(port))
    assert len(facts.sources[Discard.NOT_AUTHENTIC]) == MOST_SOURCES
    assert facts.sources[Discard.NOT_AUTHENTIC][("192.0.2.9", 50000)] == 3, "who was heard often stays"
    assert len(facts.poked_by) == MOST_SOURCES and facts.pokes == 5000
    assert facts.discarded[Discard.NOT_AUTHENTIC] == 5003


def test_pokes_are_known_by_whom() -> None:
    facts = KdnetFacts()
    for at in (1.0, 4.0, 7.0):
        facts.saw_poke(("192.0.2.10", 50000), _poke(), 5, at)
    (seen,) = facts.poked_by.values()
    assert (seen.count, seen.first_at, seen.last_at, seen.version) == (3, 1.0, 7.0, 5)
    assert not seen.owned_elsewhere and not seen.is_link_local


def test_another_debugger_s_target_is_known() -> None:
    facts = KdnetFacts()
    facts.saw_poke(("192.0.2.10", 50000), _poke(bound=_HOST), 5, 0.0)
    assert facts.owned_elsewhere == [], "it is where the target was told to look: ours, or one before us"
    facts.saw_poke(("192.0.2.11", 50000), _poke(bound=Endpoint("192.0.2.77", 50001)), 5, 0.0)
    assert [seen.source for seen in facts.owned_elsewhere] == [("192.0.2.11", 50000)]


def test_whoever_got_no_lease_is_known() -> None:
    facts = KdnetFacts()
    facts.saw_poke(("192.0.2.10", 50000), _poke(), 5, 0.0)
    assert facts.link_local == []
    facts.saw_poke(("169.254.3.4", 50000), _poke(Endpoint("169.254.3.4", 50000)), 5, 0.0)
    facts.saw_poke(("fe80::7", 50000, 0, 2), _poke(), 5, 0.0)
    assert [seen.source[0] for seen in facts.link_local] == ["169.254.3.4", "fe80::7"]


def test_an_unknown_version_is_known() -> None:
    facts = KdnetFacts()
    for version in (2, 4, 5, 9):
        facts.saw_poke(("192.0.2.10", 50000), _poke(), version, 0.0)
    assert facts.unknown_versions == {9}
