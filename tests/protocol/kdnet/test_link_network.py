"""Both ends over a network that loses, repeats, delays and overtakes, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.conversation import FailureReason, Replied, RequestFailed, StateChanged, Told
from protocol.link import LinkRestarted
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import PacketType
from simulator.target import Activity
from tests.protocol.kdnet.ends import HOST_AT, TARGET_AT, Network
from tests.small_machine import KERNEL, SIZE, content

_LONGEST = 60.0
"""Seconds until a question has an answer, whatever the network does here."""


def _read(address: int, size: int) -> Manipulate:
    return Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=address, transfer_count=size)


def _outcome(network: Network) -> Replied | Told | RequestFailed | None:
    found = [event for event in network.events if isinstance(event, (Replied, Told, RequestFailed))]
    assert len(found) <= 1, "one question, one outcome"
    return found[0] if found else None


def _ask(network: Network, request: Manipulate, *, repeatable: bool = True) -> Replied | Told | RequestFailed:
    network.events.clear()
    network.host.ask(request, network.now, repeatable=repeatable)
    assert network.run(_LONGEST, lambda: _outcome(network) is not None), f"seed {network.seed}: no outcome"
    outcome = _outcome(network)
    assert outcome is not None
    return outcome


def _stopped(network: Network) -> bool:
    return any(isinstance(event, StateChanged) for event in network.events)


def _attached(network: Network) -> Network:
    """As a debugger attaches: it listens, and when nothing comes it asks a stopped target to repeat itself."""
    for _ in range(20):
        if network.run(3.0, lambda: _stopped(network)):
            return network
        network.host.send_reset(network.now)
    raise AssertionError(f"seed {network.seed}: no contact")


@pytest.mark.parametrize("seed", range(8))
def test_a_lossy_network_is_read_through(seed: int) -> None:
    """5 % lost, 5 % twice, 20 ms of jitter each way, so that every third pair changes places."""
    network = _attached(Network(seed, loss=0.05, duplication=0.05, delay=0.001, jitter=0.02))
    memory = content()
    began = network.now
    for at in range(0, 0x8000, 0x400):
        outcome = _ask(network, _read(KERNEL + at, 0x400))
        assert isinstance(outcome, Replied) and outcome.reply.data == memory[at : at + 0x400], f"seed {seed}"
    facts = network.host_link.facts
    assert facts.restarts == 0
    assert network.now - began < 32 * 0.5, "a lost datagram costs half a second, not more"


def test_a_clean_network_needs_four_datagrams_a_request() -> None:
    network = _attached(Network(1, delay=0.001))
    network.run(1.0)
    network.log.clear()
    for at in range(0, 0x4000, 0x400):
        assert isinstance(_ask(network, _read(KERNEL + at, 0x400)), Replied)
    network.run(0.1)
    assert len(network.log) == 4 * 16
    assert network.host_link.facts.discarded == {} and network.target_link.facts.discarded == {}


def test_a_debugger_that_comes_late_finds_a_stopped_target_within_a_poke() -> None:
    network = Network(3)
    # Nobody listened for an hour.
    while network.now < 3600.0:
        network.now = max(network.now, network.target.next_timeout() or 0.0)
        network.target.handle_timeout(network.now)
        network.target_link.datagrams_to_send()
    began = network.now
    _attached(network)
    assert network.now - began <= 3.0
    outcome = _ask(network, _read(KERNEL, 16))
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[:16]


def test_a_debugger_takes_over_from_one_that_is_gone() -> None:
    network = _attached(Network(4))
    for at in range(0, 0x1000, 0x100):
        _ask(network, _read(KERNEL + at, 16))
    network.run(1.0)
    successor = Network(5)
    successor.target_link, successor.target, successor.now = network.target_link, network.target, network.now
    assert successor.run(3.0, lambda: _stopped(successor)), "the greeting makes it say why it stopped"
    agreed = [successor.host.synchronized]
    successor.host.send_reset(successor.now)
    successor.run(1.0)
    agreed.append(successor.host.synchronized)
    assert agreed == [False, True], "the target's ids go on from where they were"
    outcome = _ask(successor, _read(KERNEL + 0x500, 16))
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[0x500:0x510]


def test_a_running_target_stops_at_a_break_in_over_the_network() -> None:
    network = _attached(Network(6))
    go = Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400)
    assert isinstance(_ask(network, go, repeatable=False), Told)
    network.run(20.0)
    activity: Activity = network.target.activity
    assert activity is Activity.RUNNING
    network.events.clear()
    network.host.send_reset(network.now)
    network.run(2.0)
    assert network.events == [], "a running target throws a RESET away"
    began = network.now
    network.host.send_break_in(network.now)
    assert network.run(5.0, lambda: _stopped(network))
    assert network.now - began < 0.1


def test_a_reply_that_is_lost_for_good_is_asked_for_again_though_pokes_keep_coming() -> None:
    network = _attached(Network(7))
    # The target takes its reply for delivered: nobody ever sends it again.
    send = network.target_link.send_packet

    def swallow(packet_type: int, payload: bytes, now: float, *, tries: int | None = None) -> None:
        send(packet_type, payload, now, tries=tries)
        if packet_type == PacketType.STATE_MANIPULATE:
            setattr(network.target_link, "send_packet", send)  # noqa: B010
            network.target_link.data_to_send()
            network.target_link._sending.acknowledged()
            network.target.activity = Activity.WAITING

    setattr(network.target_link, "send_packet", swallow)  # noqa: B010
    began = network.now
    outcome = _ask(network, _read(KERNEL + 0x600, 16))
    assert isinstance(outcome, Replied) and outcome.reply.data == content()[0x600:0x610]
    assert 5.0 <= network.now - began < 8.0


def test_a_restart_in_mid_dump_is_reported_and_nothing_is_mixed() -> None:
    network = _attached(Network(8))
    old, new = content(1), content(77)
    assert isinstance(_ask(network, _read(KERNEL + 0x1000, 0x200)), Replied)
    network.events.clear()
    network.host.ask(_read(KERNEL + 0x9000, 0x200), network.now, repeatable=True)
    network.restart_target(seed=77)
    assert network.run(_LONGEST, lambda: _outcome(network) is not None)
    network.run(2.0)
    kinds = [type(event) for event in network.events if isinstance(event, (LinkRestarted, StateChanged, RequestFailed))]
    assert kinds == [LinkRestarted, RequestFailed, StateChanged], "never the reply of another memory"
    outcome = _ask(network, _read(KERNEL + 0x9000, 0x200))
    assert isinstance(outcome, Replied) and outcome.reply.data == new[0x9000:0x9200] != old[0x9000:0x9200]


def test_what_is_not_to_be_asked_twice_fails_over_a_restart() -> None:
    network = _attached(Network(9))
    write = Manipulate.request(ApiNumber.WRITE_VIRTUAL_MEMORY, address=KERNEL + 0x9000, transfer_count=4, data=b"once")
    network.events.clear()
    network.host.ask(write, network.now, repeatable=False)
    network.host.data_to_send()
    network.restart_target(seed=77)
    assert network.run(_LONGEST, lambda: _outcome(network) is not None)
    outcome = _outcome(network)
    assert isinstance(outcome, RequestFailed) and outcome.reason is FailureReason.RESTARTED
    assert network.target.machine.read_virtual(KERNEL + 0x9000, 4) == content(77)[0x9000:0x9004]


class BothEnds(RuleBasedStateMachine):
    """Anything may happen on the network; what is read is the memory of the life that answers."""

    network: Network

    @initialize(
        seed=st.integers(0, 1 << 32),
        loss=st.sampled_from([0.0, 0.05, 0.2]),
        duplication=st.sampled_from([0.0, 0.1, 0.5]),
        jitter=st.sampled_from([0.0, 0.02, 0.3]),
    )
    def connect(self, seed: int, loss: float, duplication: float, jitter: float) -> None:
        self.network = Network(seed, loss=loss, duplication=duplication, delay=0.001, jitter=jitter)
        self.memory = bytearray(content())
        self.lives = 1
        _attached(self.network)

    @rule(page=st.integers(0, SIZE // 0x1000 - 1), size=st.sampled_from([1, 16, 0x400]))
    def read(self, page: int, size: int) -> None:
        outcome = _ask(self.network, _read(KERNEL + page * 0x1000, size))
        if isinstance(outcome, RequestFailed):
            # Only a network that eats every fifth datagram may wear out twenty-odd tries, and it may.
            assert self.network.loss >= 0.2
            return
        assert isinstance(outcome, Replied)
        assert outcome.reply.data == self.memory[page * 0x1000 : page * 0x1000 + size]

    @rule(page=st.integers(8, SIZE // 0x1000 - 1), data=st.binary(min_size=4, max_size=4))
    def write(self, page: int, data: bytes) -> None:
        request = Manipulate.request(
            ApiNumber.WRITE_VIRTUAL_MEMORY, address=KERNEL + page * 0x1000, transfer_count=len(data), data=data
        )
        outcome = _ask(self.network, request, repeatable=False)
        place = slice(page * 0x1000, page * 0x1000 + len(data))
        if isinstance(outcome, Replied):
            self.memory[place] = data
        else:
            # It is not known whether it was carried out, or will be when it arrives: look afterwards.
            self.network.run(2.0)
            now = self.network.target.machine.read_virtual(KERNEL + page * 0x1000, len(data))
            assert now in (data, bytes(self.memory[place]))
            self.memory[place] = now

    @rule(seconds=st.sampled_from([0.01, 0.6, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.network.run(seconds)

    @rule()
    def reset(self) -> None:
        self.network.host.send_reset(self.network.now)

    @rule(port=st.integers(1024, 65535))
    def move(self, port: int) -> None:
        """The target's datagrams come from another port from now on."""
        self.network.target_at = (TARGET_AT[0], port)

    @precondition(lambda self: self.lives < 4)
    @rule(seed=st.integers(2, 50))
    def restart(self, seed: int) -> None:
        network = self.network
        network.events.clear()
        restarts = network.host_link.facts.restarts
        network.restart_target(seed)
        self.memory = bytearray(content(seed))
        self.lives += 1
        assert network.run(_LONGEST, lambda: network.host_link.facts.restarts > restarts)
        assert LinkRestarted(solicited=False) in network.events
        # What it says then is why it stopped.
        del network.events[: network.events.index(LinkRestarted(solicited=False))]
        _attached(network)

    @invariant()
    def both_ends_stay_small(self) -> None:
        if not hasattr(self, "network"):
            return
        for link in (self.network.host_link, self.network.target_link):
            assert len(link._events) < 64 and len(link._polled) <= 64 and len(link._outbox) < 64
        host: Any = self.network.host_link._channel
        assert len(host._offers) <= 5 and len(host._lives) <= 16
        assert self.network.host_link.facts.restarts < self.lives
        assert self.network.target_link.peer in (None, HOST_AT)


TestBothEnds = BothEnds.TestCase
TestBothEnds.settings = settings(max_examples=40, stateful_step_count=20)
