"""The host's end: what it sends by itself, what it tells, and how much it looks at."""

from __future__ import annotations

import os

import pytest

from kdbridge.cipher import AesCbc
from kdbridge.transports.net_end import HostEnd
from kdbridge.transports.net_waiting import Place
from protocol.kdnet import Address, KdnetLink, Sealer
from tests.kdbridge.transports.network import HOST, KEY, poke, sealed, target_link

_PC: Address = ("192.0.2.10", 50000)


def _end(target: Address | None = None) -> tuple[HostEnd, list[str]]:
    end = HostEnd(KEY, Place(50000, ("192.0.2.1",)), target)
    told: list[str] = []
    end.tell = told.append
    return end, told


def _talk(end: HostEnd, target: KdnetLink, now: float, source: Address = _PC) -> None:
    """Until both are silent."""
    for _ in range(100):
        out, back = end.link.datagrams_to_send(), target.datagrams_to_send()
        if not out and not back:
            return
        for datagram, _ in out:
            target.receive_datagram(datagram, HOST, now)
        for datagram, _ in back:
            end.receive(datagram, source, now)
    raise AssertionError("they never stop")


def _joined(version: int = 5) -> tuple[HostEnd, list[str], KdnetLink]:
    end, told = _end()
    target = target_link(version=version)
    target.handle_timeout(0.0)
    _talk(end, target, 0.0)
    assert end.link.peer == _PC
    return end, told, target


def test_a_session_ends_the_explaining() -> None:
    end, told, _ = _joined()
    assert end.explain() is None and end.explain(5.0) is None
    assert told == [] and end.loss() == ""


@pytest.mark.parametrize(("version", "most"), [(2, 1232), (4, 1232), (5, 1096), (9, 1096)])
def test_how_much_is_asked_for_at_once_depends_on_the_version(version: int, most: int) -> None:
    # The largest data parts that targets of these versions were seen to send (kdnet 6).
    end, _ = _end()
    assert end.transfer_sizes == (1096, 1096)
    assert _joined(version)[0].transfer_sizes == (1096, most)


def test_only_datagrams_that_move_the_conversation_count() -> None:
    end, _, target = _joined()
    before = end.received
    end.receive(b"noise", _PC, 1.0)
    end.receive(poke(), ("192.0.2.99", 5), 1.0)
    assert end.received == before > 0
    target.send_packet(7, bytes(240), 1.0)
    ((datagram, _),) = target.datagrams_to_send()
    end.receive(datagram, _PC, 1.0)
    assert end.received == before + len(datagram)


def test_a_target_that_was_named_is_asked_twice_a_second_until_it_comes() -> None:
    end, _ = _end(_PC)
    asked: list[float] = []
    for tenth in range(31):
        now = tenth / 10
        again = end.solicit(now)
        for datagram, destination in end.link.datagrams_to_send():
            opened = Sealer(KEY, AesCbc()).open(datagram, KEY.raw)
            assert opened is not None and (opened.payload, opened.from_host) == (b"", True)
            assert len(datagram) == 38 and destination == _PC
            asked.append(now)
        assert again is not None and now < again <= now + 0.5
    assert asked == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    target = target_link()
    target.handle_timeout(3.0)
    _talk(end, target, 3.0)
    assert end.solicit(4.0) is None and end.link.datagrams_to_send() == []


def test_a_restart_a_move_and_a_stranger_are_told_once() -> None:
    end, told, target = _joined()
    target.send_packet(7, bytes(240), 1.0)
    _talk(end, target, 1.0, ("192.0.2.10", 50999))
    assert told == ["the target goes on from another address: 192.0.2.10:50999"]
    for count in (1, 2, 3):
        end.receive(poke(count=count, life=os.urandom(24)), ("192.0.2.66", 50000), 2.0)
    assert told[1:] == ["another machine with the same key pokes from 192.0.2.66:50000; it is left alone"]
    target.give_up()
    target.handle_timeout(20.0)
    _talk(end, target, 20.0)
    assert told[2:] == ["the target at 192.0.2.10:50000 restarted"]


def test_a_version_that_nobody_knows_is_told() -> None:
    end, told = _end()
    end.receive(poke(version=9), _PC, 0.0)
    assert told == ["192.0.2.10:50000 speaks KDNET version 9, of which nothing is known; it is answered all the same"]


def test_another_debugger_that_took_the_target_is_named() -> None:
    end, _, _ = _joined()
    end.receive(poke(bound=("192.0.2.77", 50001), count=5), _PC, 1.0)
    assert end.loss() == "Another debugger, at 192.0.2.77:50001, has taken it."
    end.place.unsent["192.0.2.10:50000"] = "Network is unreachable"
    assert end.loss() == "Nothing can be sent to 192.0.2.10:50000: Network is unreachable."


def test_a_flood_from_elsewhere_is_hardly_looked_at_and_the_target_always() -> None:
    end, _, target = _joined()
    forged = [sealed(bytes(1100), key=os.urandom(32)) for _ in range(10)]
    examined = end.link.facts.datagrams
    for n in range(10_000):
        end.receive(forged[n % 10], ("203.0.113.5", 1000 + n % 5000), 1.0 + n / 10_000)
    examined = end.link.facts.datagrams - examined
    assert 100 <= examined <= 200, "at most a hundred at once, and a hundred a second"
    assert end.unexamined == 10_000 - examined
    before = end.received
    target.send_packet(7, bytes(240), 2.0)
    _talk(end, target, 2.0)
    assert end.received > before
    # When the flood is over, whoever pokes from elsewhere is heard again.
    heard = end.link.facts.pokes
    end.receive(poke(life=os.urandom(24)), ("192.0.2.66", 50000), 60.0)
    assert end.link.facts.pokes == heard + 1


def test_before_there_is_a_session_everything_is_looked_at() -> None:
    end, _ = _end()
    for n in range(1000):
        end.receive(b"noise", ("203.0.113.5", n), 1.0)
    assert end.unexamined == 0 and end.link.facts.datagrams == 1000
    assert len(end.link.facts.sources) == 1, "and little is remembered"
    assert all(len(sources) <= 16 for sources in end.link.facts.sources.values())
