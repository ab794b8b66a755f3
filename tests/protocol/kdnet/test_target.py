"""The target's end of the datagrams: it pokes for ever and takes the key of whoever answers (kdnet 4, 14)."""

from __future__ import annotations

from typing import Any

from protocol.kdnet import Address, Channel, Datagram, Endpoint, Sealer, TargetChannel, parse_key
from protocol.kdnet.control import NOWHERE, Poke, Response, data_key, decode_poke
from protocol.kdnet.session import Renewal
from protocol.link import Discard
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import HOST_AT, KEY, TARGET_AT, seeded, state
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame

_SEALER = Sealer(KEY, Aes())


def _target(version: int = 5) -> TargetChannel:
    own = Endpoint(TARGET_AT[0], TARGET_AT[1])
    return TargetChannel(KEY, Aes(), seeded(3), own=own, host=HOST_AT, version=version)


def _poke(target: TargetChannel, now: float) -> tuple[Datagram, Poke]:
    target.handle_timeout(now)
    ((raw, destination),) = target.take_control()
    assert destination == HOST_AT and len(raw) == 374
    opened = _SEALER.open(raw, _SEALER.control_key)
    assert opened is not None and not opened.from_host
    return opened, decode_poke(opened.payload)


def _answer(poke: Poke, host_key: int = 1, sequence: int = 3) -> tuple[bytes, bytes]:
    """A response to this poke, and the data key it makes."""
    payload = Response(poke.client_key, bytes([host_key]) * 32).encode()
    said = Datagram(5, Channel.CONTROL, True, sequence, payload)
    return _SEALER.seal(said, _SEALER.control_key), data_key(_SEALER.control_key, payload)


def _data(key: bytes, sequence: int, *, from_host: bool = True) -> bytes:
    return _SEALER.seal(Datagram(5, Channel.DATA, from_host, sequence, b"b"), key)


def test_its_pokes_are_those_of_the_real_target_byte_for_byte(frames: list[Frame]) -> None:
    client_key = bytes.fromhex(frames[0].said["client_key"])
    target = TargetChannel(
        parse_key(KEY_TEXT),
        Aes(),
        lambda size: client_key[:size],
        own=Endpoint("192.168.2.72", 51111),
        host=("192.168.2.1", 51111),
        version=4,
    )
    now = 0.0
    for number, frame in enumerate(each for each in frames if each.kind == "poke"):
        target.handle_timeout(now)
        assert target.take_control() == [(frame.datagram, ("192.168.2.1", 51111))]
        if number == 0:
            target.receive(frames[1].datagram, frames[1].source, now)
        now = target.next_timeout()


def test_it_pokes_every_three_seconds_for_ever() -> None:
    target = _target()
    times = []
    now = 0.0
    for _ in range(100):
        now = max(now, target.next_timeout())
        times.append(now)
        opened, poke = _poke(target, now)
        assert opened.sequence == 3 * len(times), "3, 6, 9 …"
        assert poke.count == decode_poke(opened.payload).count
        if len(times) == 50:
            target.receive(_answer(poke)[0], HOST_AT, now)
    assert times == [3.0 * number for number in range(100)], "with a debugger as without"
    target.handle_timeout(now + 1.0)
    assert target.take_control() == []


def test_after_a_pause_it_pokes_once() -> None:
    target = _target()
    _poke(target, 0.0)
    _poke(target, 60.0)
    target.handle_timeout(60.0)
    assert target.take_control() == []


def test_its_poke_says_who_has_it() -> None:
    target = _target()
    _, first = _poke(target, 0.0)
    assert first.bound == NOWHERE
    assert first.own == Endpoint("192.0.2.10", 50000) and first.configured == Endpoint("192.0.2.1", 50000)
    assert (target.peer, target.seal(b"x")) == (None, None)
    host_now: Address = ("192.0.2.44", 51000)
    target.receive(_answer(first)[0], host_now, 0.1)
    assert (target.peer, target.take_renewal()) == (host_now, Renewal.FIRST)
    _, second = _poke(target, 3.0)
    assert second.bound == Endpoint("192.0.2.44", 51000)
    assert (second.count, second.life) == (first.count + 1, first.life)


def test_a_made_poke_comes_out_of_its_parts(summary: dict[str, Any]) -> None:
    vectors = {each["name"]: each for each in summary["synthetic_vectors"]["datagrams"]}
    target = TargetChannel(KEY, Aes(), lambda size: bytes(range(size)), own=Endpoint("192.0.2.10", 50000), host=HOST_AT)
    target.handle_timeout(0.0)
    assert target.take_control()[0][0].hex() == vectors["poke, no data channel yet"]["datagram_hex"]
    target.receive(bytes.fromhex(vectors["host response to that poke"]["datagram_hex"]), HOST_AT, 0.1)
    check = vectors["target connection check (UNUSED, host IPv4 192.0.2.1)"]
    said = target.seal(target.connection_check())
    assert said is not None and said.hex() == check["datagram_hex"]
    # The host's datagrams of the same session: RESEND, break-in, acknowledge, RESET, in this order.
    names = ["host RESEND id 0", "host break-in byte", "host ACK of id 0", "host RESET 0x80000000"]
    for name in names:
        raw = bytes.fromhex(vectors[name]["datagram_hex"])
        assert target.receive(raw, HOST_AT, 0.2) == bytes.fromhex(vectors[name]["payload_hex"])


def test_a_response_to_either_of_the_last_two_pokes_is_taken() -> None:
    for answered, taken in ((0, False), (1, True), (2, True)):
        target = _target()
        pokes = [_poke(target, at)[1] for at in (0.0, 3.0, 6.0)]
        target.receive(_answer(pokes[answered])[0], HOST_AT, 6.1)
        assert (target.peer is not None) is taken
        assert target.facts.discarded == ({} if taken else {Discard.STALE_RESPONSE: 1})


def test_a_new_key_begins_to_count_anew() -> None:
    target = _target()
    _, poke = _poke(target, 0.0)
    response, key = _answer(poke)
    target.receive(response, HOST_AT, 0.1)
    assert target.receive(_data(key, 500), HOST_AT, 0.2) == b"b"
    _, poke = _poke(target, 3.0)
    response, again = _answer(poke, 2)
    target.receive(response, HOST_AT, 3.1)
    assert target.receive(_data(again, 1), HOST_AT, 3.2) == b"b", "the receive sequence is zero again"
    assert target.receive(_data(key, 501), HOST_AT, 3.3) is None
    assert target.facts.discarded == {Discard.OLD_SESSION: 1}


def test_a_response_played_back_changes_nothing() -> None:
    target = _target()
    _, first = _poke(target, 0.0)
    _, second = _poke(target, 3.0)
    old, _ = _answer(first, 1)
    one, _ = _answer(second, 2)
    two, key = _answer(second, 3)
    for response in (old, one, two):
        target.receive(response, HOST_AT, 3.1)
    assert target.facts.sessions == 3, "in this order each was an answer to one of the last two"
    assert target.receive(_data(key, 7), HOST_AT, 3.2) == b"b"
    target.take_renewal()
    before = state(target)
    for _ in range(10):
        for response in (old, one, two):
            target.receive(response, ("198.51.100.7", 1), 3.3)
    assert state(target) == before
    assert target.facts.discarded == {Discard.REPLAYED: 30}


def test_an_answer_to_a_poke_before_the_answered_one_is_too_late() -> None:
    target = _target()
    _, first = _poke(target, 0.0)
    _, second = _poke(target, 3.0)
    target.receive(_answer(second)[0], HOST_AT, 3.1)
    target.receive(_answer(first, 9)[0], HOST_AT, 3.2)
    assert target.facts.sessions == 1 and target.facts.discarded == {Discard.STALE_RESPONSE: 1}


def test_a_new_life_pokes_at_once_and_knows_no_debugger() -> None:
    target = _target()
    _, poke = _poke(target, 0.0)
    response, key = _answer(poke)
    target.receive(response, HOST_AT, 0.1)
    target.restart()
    assert target.peer is None
    opened, again = _poke(target, 0.2)
    assert opened.sequence == 3 and again.bound == NOWHERE
    assert again.life != poke.life
    target.receive(response, HOST_AT, 0.3)
    target.receive(_data(key, 5), HOST_AT, 0.3)
    assert target.peer is None
    assert target.facts.discarded == {Discard.STALE_RESPONSE: 1, Discard.OLD_SESSION: 1}


def test_what_is_not_for_it_is_named() -> None:
    target = _target()
    _, poke = _poke(target, 0.0)
    response, key = _answer(poke)
    target.receive(_data(key, 1), HOST_AT, 0.0)
    target.receive(response, HOST_AT, 0.1)
    target.receive(_data(bytes(32), 1), HOST_AT, 0.1)
    target.receive(_data(key, 1, from_host=False), HOST_AT, 0.1)
    target.receive(b"hello", HOST_AT, 0.1)
    nonsense = Datagram(5, Channel.CONTROL, True, 3, b"\x01\x07" + bytes(320))
    target.receive(_SEALER.seal(nonsense, _SEALER.control_key), HOST_AT, 0.1)
    mine = Datagram(5, Channel.CONTROL, False, 3, poke.encode())
    target.receive(_SEALER.seal(mine, _SEALER.control_key), HOST_AT, 0.1)
    stranger = Sealer(parse_key("1.2.3.4"), Aes())
    target.receive(stranger.seal(mine, stranger.control_key), HOST_AT, 0.1)
    assert target.facts.discarded == {
        Discard.NO_SESSION: 1,
        Discard.NOT_AUTHENTIC: 2,
        Discard.REFLECTED: 2,
        Discard.NOT_KDNET: 1,
        Discard.MALFORMED_MESSAGE: 1,
    }


def test_it_may_be_solicited_but_not_hurried() -> None:
    target = _target()
    _poke(target, 0.0)
    empty = Datagram(5, Channel.CONTROL, True, 1, b"")
    raw = _SEALER.seal(empty, _SEALER.control_key)
    target.receive(raw, HOST_AT, 0.1)
    target.handle_timeout(0.1)
    assert target.take_control() == []
    target.receive(raw, HOST_AT, 1.0)
    assert target.next_timeout() <= 1.0
    opened, _ = _poke(target, 1.0)
    assert opened.sequence == 6
    assert target.next_timeout() == 4.0
