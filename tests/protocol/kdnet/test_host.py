"""The debugger's end of the datagrams: which poke is answered, what changes a session (kdnet 4.5 to 4.7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.kdnet import Address, Channel, Datagram, Endpoint, HostChannel, Sealer, parse_key
from protocol.kdnet.control import NOWHERE, Poke, data_key, decode_response
from protocol.kdnet.session import Renewal
from protocol.link import Discard
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import HOST_AT, KEY, TARGET_AT, seeded, state

_BOUND = Endpoint(HOST_AT[0], HOST_AT[1])
_ELSEWHERE: Address = ("198.51.100.7", 50000)


class _Machine:
    """A target by hand: its pokes and data, whatever a channel thinks of them."""

    def __init__(self, life: int = 1, at: Address = TARGET_AT, version: int = 5) -> None:
        self.sealer = Sealer(KEY, Aes())
        self.life = bytes([life]) * 24
        self.at = at
        self.version = version
        self.count = 0
        self.bound = NOWHERE
        self.key = b""
        self.sent = 0

    def poke(self, *, count: int | None = None, bound: Endpoint | None = None) -> bytes:
        if count is None:
            count = self.count
            self.count += 1
        client_key = count.to_bytes(8, "little") + self.life
        own = Endpoint(self.at[0], self.at[1])
        poke = Poke(client_key, own, _BOUND, self.bound if bound is None else bound)
        said = Datagram(self.version, Channel.CONTROL, False, 3 * count + 3, poke.encode())
        return self.sealer.seal(said, self.sealer.control_key)

    def accept(self, response: bytes) -> None:
        """Take the key of a response, as a target does."""
        opened = self.sealer.open(response, self.sealer.control_key)
        assert opened is not None and opened.from_host
        assert opened.version == self.version
        decode_response(opened.payload)
        self.key = data_key(self.sealer.control_key, opened.payload)
        self.bound = _BOUND
        self.sent = 0

    def data(self, payload: bytes = bytes(12)) -> bytes:
        self.sent += 1
        return self.sealer.seal(Datagram(self.version, Channel.DATA, False, self.sent, payload), self.key)


def _host(cipher: Aes | None = None) -> HostChannel:
    return HostChannel(KEY, cipher or Aes(), seeded(7))


def _answers(host: HostChannel) -> list[bytes]:
    return [datagram for datagram, _ in host.take_control()]


def _joined(machine: _Machine, now: float = 0.0) -> HostChannel:
    host = _host()
    host.receive(machine.poke(), machine.at, now)
    (response,) = _answers(host)
    machine.accept(response)
    assert host.receive(machine.data(), machine.at, now) == bytes(12)
    assert host.take_renewal() is Renewal.FIRST
    return host


@pytest.mark.parametrize("version", [2, 4, 5, 9])
def test_a_poke_is_answered_to_where_it_came_from_with_its_own_number_and_version(version: int) -> None:
    machine = _Machine(version=version)
    host = _host()
    assert host.receive(machine.poke(), machine.at, 0.0) is None
    ((response, destination),) = host.take_control()
    assert destination == machine.at and len(response) == 358
    opened = machine.sealer.open(response, machine.sealer.control_key)
    assert opened is not None
    assert (opened.version, opened.channel, opened.from_host, opened.sequence) == (version, 1, True, 3)
    assert decode_response(opened.payload).client_key == bytes(8) + machine.life
    assert host.facts.unknown_versions == ({9} if version == 9 else set())


def test_a_session_begins_when_its_key_is_used_not_when_it_is_offered() -> None:
    machine = _Machine()
    host = _host()
    host.receive(machine.poke(), machine.at, 0.0)
    assert host.peer is None and host.seal(b"b") is None
    machine.accept(_answers(host)[0])
    host.receive(machine.data(), machine.at, 0.1)
    assert (host.peer, host.version) == (machine.at, 5)


def test_without_a_session_a_poke_is_answered_whoever_has_the_target() -> None:
    for bound in (NOWHERE, _BOUND, Endpoint("192.0.2.99", 50000)):
        host = _host()
        host.receive(_Machine().poke(bound=bound), TARGET_AT, 0.0)
        assert len(_answers(host)) == 1, bound


def test_when_the_response_got_lost_the_next_poke_is_answered_and_either_key_will_do() -> None:
    for accepted in (0, 1):
        machine = _Machine()
        host = _host()
        responses = []
        for at in (0.0, 3.0):
            host.receive(machine.poke(), machine.at, at)
            responses += _answers(host)
        machine.accept(responses[accepted])
        assert host.receive(machine.data(), machine.at, 3.1) == bytes(12)


def test_a_copy_of_a_poke_is_not_answered_twice() -> None:
    host = _host()
    poke = _Machine().poke()
    for at in (0.0, 0.02, 0.5):
        host.receive(poke, TARGET_AT, at)
    assert len(_answers(host)) == 1
    assert host.facts.discarded == {Discard.REPLAYED: 2}


def test_keep_alives_are_not_answered() -> None:
    machine = _Machine()
    host = _joined(machine)
    for number in range(1, 427):
        host.receive(machine.poke(), machine.at, 3.0167 * number)
    assert _answers(host) == []
    assert host.facts.keep_alives == 426
    # And the session has outlived 21 minutes of them.
    assert host.receive(machine.data(), machine.at, 1288.0) == bytes(12)


def test_bound_port_0_in_mid_session_is_a_restart() -> None:
    machine = _Machine()
    host = _joined(machine)
    again = _Machine(life=2, version=4)
    host.receive(again.poke(), again.at, 5.0)
    again.accept(_answers(host)[0])
    # Until the new life speaks the old session stands.
    assert host.take_renewal() is None
    assert host.receive(machine.data(), machine.at, 5.0) == bytes(12)
    assert host.receive(again.data(), again.at, 5.1) == bytes(12)
    assert host.take_renewal() is Renewal.RESTARTED
    assert (host.facts.restarts, host.facts.sessions, host.version) == (1, 2, 4)
    # What the old life still had under way counts no more.
    assert host.receive(machine.data(), machine.at, 5.2) is None
    assert host.facts.discarded == {Discard.OLD_SESSION: 1}


def test_a_restarted_target_may_come_from_another_port() -> None:
    machine = _Machine()
    host = _joined(machine)
    again = _Machine(life=2, at=(TARGET_AT[0], 61000))
    host.receive(again.poke(), again.at, 5.0)
    ((response, destination),) = host.take_control()
    assert destination == (TARGET_AT[0], 61000)
    again.accept(response)
    host.receive(again.data(), again.at, 5.1)
    assert host.peer == (TARGET_AT[0], 61000) and host.take_renewal() is Renewal.RESTARTED


def test_another_machine_with_the_same_key_is_left_alone() -> None:
    machine = _Machine()
    host = _joined(machine)
    other = _Machine(life=9, at=_ELSEWHERE)
    for at in (1.0, 4.0, 7.0):
        host.receive(other.poke(), other.at, at)
        host.receive(machine.poke(), machine.at, at)
    assert _answers(host) == []
    assert host.facts.sources[Discard.OTHER_MACHINE] == {_ELSEWHERE: 3}
    assert host.facts.poked_by[_ELSEWHERE].count == 3


def test_of_two_machines_answered_at_once_the_first_to_speak_is_ours() -> None:
    one, two = _Machine(life=1), _Machine(life=2, at=_ELSEWHERE)
    host = _host()
    for machine in (one, two):
        host.receive(machine.poke(), machine.at, 0.0)
        machine.accept(_answers(host)[0])
    assert host.receive(two.data(), two.at, 0.1) == bytes(12)
    assert host.receive(one.data(), one.at, 0.1) is None
    assert host.peer == two.at
    assert host.facts.discarded == {Discard.OTHER_MACHINE: 1}


def test_a_machine_at_another_address_is_believed_when_ours_was_silent_for_long() -> None:
    machine = _Machine()
    host = _joined(machine)
    other = _Machine(life=9, at=_ELSEWHERE)
    host.receive(other.poke(), other.at, 59.0)
    assert _answers(host) == []
    host.receive(other.poke(), other.at, 61.0)
    other.accept(_answers(host)[0])
    host.receive(other.data(), other.at, 61.1)
    assert host.peer == _ELSEWHERE and host.take_renewal() is Renewal.RESTARTED, "never as if nothing had happened"


def test_a_session_follows_its_target_to_another_address() -> None:
    machine = _Machine()
    host = _joined(machine)
    moved: Address = ("192.0.2.11", 50000)
    assert host.receive(machine.data(), moved, 1.0) == bytes(12)
    assert (host.peer, host.facts.moves) == (moved, 1)
    # A stopped target only pokes: that tells as well.
    further: Address = ("192.0.2.12", 50000)
    host.receive(machine.poke(), further, 3.0)
    assert (host.peer, host.facts.moves, host.facts.keep_alives) == (further, 2, 1)


def test_a_machine_set_back_to_a_snapshot_is_heard_again() -> None:
    machine = _Machine()
    pokes = [machine.poke() for _ in range(3)]
    host = _host()
    host.receive(pokes[0], TARGET_AT, 0.0)
    machine.accept(_answers(host)[0])
    host.receive(machine.data(), TARGET_AT, 0.1)
    host.take_renewal()
    # It goes back to where it had no debugger, and pokes the same pokes.
    for at in (3.0, 6.0, 9.0):
        host.receive(pokes[0], TARGET_AT, at)
    assert _answers(host) == []
    host.receive(pokes[1], TARGET_AT, 12.0)
    machine.accept(_answers(host)[0])
    host.receive(machine.data(), TARGET_AT, 12.1)
    assert host.take_renewal() is Renewal.RESTARTED


def test_two_keys_for_one_life_are_no_restart() -> None:
    machine = _Machine()
    host = _host()
    responses = []
    for at in (0.0, 3.0):
        host.receive(machine.poke(), machine.at, at)
        responses += _answers(host)
    machine.accept(responses[0])
    host.receive(machine.data(), machine.at, 3.1)
    assert host.take_renewal() is Renewal.FIRST
    machine.accept(responses[1])
    assert host.receive(machine.data(), machine.at, 3.2) == bytes(12)
    assert host.take_renewal() is Renewal.REKEYED
    assert host.facts.restarts == 0


def test_a_poke_played_back_in_mid_session_is_dropped() -> None:
    machine = _Machine()
    recorded = [machine.poke() for _ in range(3)]
    host = _host()
    for at, poke in enumerate(recorded):
        host.receive(poke, machine.at, 3.0 * at)
    machine.accept(_answers(host)[-1])
    host.receive(machine.data(), machine.at, 6.1)
    before = state(host)
    for _ in range(100):
        for poke in recorded:
            host.receive(poke, machine.at, 6.2)
    assert state(host) == before
    assert host.facts.discarded == {Discard.REPLAYED: 300}


def test_a_poke_of_a_former_year_costs_an_answer_and_not_the_session() -> None:
    machine = _Machine()
    host = _joined(machine)
    for life in range(20, 60):
        host.receive(_Machine(life=life).poke(), TARGET_AT, 1.0)
    assert len(_answers(host)) == 40
    assert host.receive(machine.data(), machine.at, 1.1) == bytes(12)
    assert host.take_renewal() is None and host.facts.restarts == 0


def test_what_is_remembered_is_bounded() -> None:
    machine = _Machine()
    host = _joined(machine)
    for life in range(2, 200):
        host.receive(_Machine(life=life).poke(), TARGET_AT, 1.0)
    assert len(host._lives) == 16 and len(host._offers) == 4


def test_data_before_a_session_is_named_so_and_costs_no_cryptography() -> None:
    machine = _Machine()
    machine.key = bytes(32)
    cipher = Aes()
    host = _host(cipher)
    host.receive(machine.data(), machine.at, 0.0)
    assert host.facts.discarded == {Discard.NO_SESSION: 1}
    assert host.facts.sources[Discard.NO_SESSION] == {machine.at: 1}
    assert cipher.decrypted == 0


def test_another_key_is_named_so() -> None:
    machine = _Machine()
    machine.sealer = Sealer(parse_key("1.2.3.4"), Aes())
    host = _host()
    host.receive(machine.poke(), machine.at, 0.0)
    assert _answers(host) == []
    assert host.facts.discarded == {Discard.NOT_AUTHENTIC: 1}
    assert host.facts.sources[Discard.NOT_AUTHENTIC] == {machine.at: 1}


def test_our_own_datagrams_come_back_in_vain() -> None:
    machine = _Machine()
    host = _host()
    host.receive(machine.poke(), machine.at, 0.0)
    (response,) = _answers(host)
    host.receive(response, machine.at, 0.0)
    machine.accept(response)
    host.receive(machine.data(), machine.at, 0.1)
    ours = host.seal(b"b")
    assert ours is not None
    host.receive(ours, machine.at, 0.2)
    assert host.facts.discarded == {Discard.REFLECTED: 2}


def test_a_genuine_message_that_makes_no_sense_is_named_so() -> None:
    machine = _Machine()
    host = _host()
    for payload in (b"", b"\x01\x03" + bytes(342), b"\x01\x01" + bytes(50)):
        said = Datagram(5, Channel.CONTROL, False, 3, payload)
        host.receive(machine.sealer.seal(said, machine.sealer.control_key), machine.at, 0.0)
    assert host.facts.discarded == {Discard.MALFORMED_MESSAGE: 3} and _answers(host) == []


def test_garbage_costs_little_and_never_more() -> None:
    machine = _Machine()
    cipher = Aes()
    host = _host(cipher)
    for at in (0.0, 3.0, 6.0, 9.0, 12.0):
        host.receive(machine.poke(), machine.at, at)
    machine.accept(_answers(host)[0])
    before = cipher.decrypted
    forged = b"MDBG\x05\x00" + bytes(32)
    for _ in range(100):
        host.receive(forged, _ELSEWHERE, 12.0)
    assert cipher.decrypted - before <= 100 * 4
    before = cipher.decrypted
    for raw in (b"", b"hello", b"MDBG", bytes(70000), b"MDBG\x05\x07" + bytes(32), b"MDBG" + bytes(65000)):
        host.receive(raw, _ELSEWHERE, 12.0)
    assert cipher.decrypted == before, "what cannot be a datagram is not decrypted"


def test_soliciting_is_an_empty_control_message() -> None:
    host = _host()
    host.solicit(TARGET_AT)
    # The reference's vector: host, channel 1, sequence 1, empty (kdnet 15).
    vector = "4d4442470501d420912ba546192a14ef3ec26428eb67b4f43b40264798c00aa9a048c3e093be"
    assert host.take_control() == [(bytes.fromhex(vector), TARGET_AT)]


def test_another_debugger_s_target_is_told_of() -> None:
    host = _host()
    host.receive(_Machine().poke(bound=Endpoint("192.0.2.99", 50000)), TARGET_AT, 0.0)
    (seen,) = host.facts.owned_elsewhere
    assert seen.poke.bound == Endpoint("192.0.2.99", 50000)
    assert replace(seen, count=0).source == TARGET_AT


def test_nothing_is_due_at_a_debugger() -> None:
    host = _joined(_Machine())
    host.handle_timeout(1000.0)
    assert host.next_timeout() is None and host.take_control() == []


def test_another_life_is_a_restart_though_both_were_answered_before_there_was_a_session() -> None:
    loader, kernel = _Machine(life=1), _Machine(life=2)
    host = _host()
    for machine in (loader, kernel):
        host.receive(machine.poke(), machine.at, 0.0)
        machine.accept(_answers(host)[0])
    renewals = []
    for machine in (loader, kernel):
        assert host.receive(machine.data(), machine.at, 0.1) == bytes(12)
        renewals.append(host.take_renewal())
    assert renewals == [Renewal.FIRST, Renewal.RESTARTED]
