"""A bad network by its seed, and a machine that pokes over it."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean

import pytest

from protocol.connection import KdConnection
from protocol.conversation import OrphanReply, Replied, RequestFailed, StateChanged, Told
from protocol.kdnet import Address, Endpoint, HostChannel, KdnetLink, TargetChannel
from protocol.manipulate import ApiNumber, Manipulate
from simulator.cipher import AesCbc
from simulator.errors import SimulationError
from simulator.net import DatagramWire, Faults, NetworkedTarget, parse_faults
from simulator.scenarios import ScenarioOptions, start
from simulator.target import Activity
from tests.protocol.kdnet.ends import KEY, seeded

_HOST: Address = ("192.0.2.1", 50000)
_PC: Address = ("192.0.2.10", 50000)


# ---- faults ----------------------------------------------------------------------------------------------------------


def _carried(faults: Faults, count: int = 4000, way: int = 0) -> list[tuple[float, int]]:
    """What came out of those that were sent one a second: when after it was sent, and which."""
    wire = DatagramWire(faults, way)
    out = []
    for number in range(count):
        wire.send(number.to_bytes(4, "big"), _PC, float(number))
    while (at := wire.next_arrival()) is not None:
        for datagram, peer in wire.arrived(at):
            assert peer == _PC
            number = int.from_bytes(datagram, "big")
            out.append((at - number, number))
    return out


def test_without_faults_all_comes_at_once_in_order() -> None:
    assert _carried(Faults(), 100) == [(0.0, number) for number in range(100)]


def test_so_many_are_lost_and_repeated_as_were_asked_for() -> None:
    numbers = [number for _, number in _carried(Faults(loss=0.05))]
    assert len(numbers) == len(set(numbers)) and len(numbers) / 4000 == pytest.approx(0.95, abs=0.015)
    numbers = [number for _, number in _carried(Faults(dup=0.05))]
    assert len(set(numbers)) == 4000 and len(numbers) / 4000 == pytest.approx(1.05, abs=0.015)


def test_delay_and_jitter_are_as_long_as_was_asked_for() -> None:
    took = [after for after, _ in _carried(Faults(delay=0.02, jitter=0.04))]
    assert min(took) >= 0.02 and max(took) <= 0.06001
    assert mean(took) == pytest.approx(0.04, abs=0.002)


def test_some_are_overtaken() -> None:
    wire = DatagramWire(Faults(reorder=0.25))
    for number in range(400):
        wire.send(number.to_bytes(4, "big"), _PC, number / 1000)
    order = [int.from_bytes(datagram, "big") for datagram, _ in wire.arrived(10.0)]
    late = sum(later < earlier for earlier, later in pairwise(order))
    assert sorted(order) == list(range(400)) and late > 40


def test_one_seed_is_one_network_and_the_two_ways_differ() -> None:
    bad = Faults(loss=0.3, jitter=1.0, seed=7)
    assert _carried(bad) == _carried(bad)
    assert _carried(bad) != _carried(bad, way=1)
    assert _carried(bad) != _carried(Faults(loss=0.3, jitter=1.0, seed=8))


def test_what_is_written_is_read() -> None:
    assert parse_faults("loss=0.05,dup=0.05,reorder=0.1,delay=0.02,seed=7") == Faults(0.05, 0.05, 0.1, 0.02, 0.0, 7)
    assert parse_faults("jitter=1.5") == Faults(jitter=1.5)
    assert parse_faults("seed=3") == Faults(seed=3)


@pytest.mark.parametrize(
    "text",
    ["", "loss", "loss=", "loss=x", "loss=1.1", "loss=-0.1", "loss=nan", "loss=inf", "los=0.1", "loss=0.1,loss=0.1",
     "seed=1.5", "delay=11", "loss=\u0660", "loss=1_0"],
)  # fmt: skip
def test_what_is_no_fault_is_said(text: str) -> None:
    with pytest.raises(SimulationError):
        parse_faults(text)


# ---- a machine -------------------------------------------------------------------------------------------------------


class _Both:
    """A debugger and a machine on one network, in virtual time."""

    def __init__(self, scenario: str, version: int = 5, faults: Faults | None = None) -> None:
        self.running = start(scenario, ScenarioOptions(memory_size=16 << 20, processors=1))
        own = Endpoint(_PC[0], _PC[1])
        channel = TargetChannel(KEY, AesCbc(), seeded(2), own=own, host=_HOST, version=version)
        self.net = NetworkedTarget(
            self.running.target, KdnetLink(channel), self.running.scenario.begin, faults or Faults()
        )
        self.link = KdnetLink(HostChannel(KEY, AesCbc(), seeded(1)))
        self.host = KdConnection(self.link, restart_is_new_life=True)
        self.now = 0.0
        self.heard: list[tuple[float, int]] = []
        """When a datagram came to the debugger, and of which channel."""
        self.events: list[object] = []

    def run(self, seconds: float, *wanted: type) -> object | None:
        """Let time pass until such an event comes."""
        end = self.now + seconds
        for _ in range(200_000):
            for datagram, destination in self.net.datagrams_to_send(self.now):
                assert destination == _HOST
                self.heard.append((self.now, datagram[5]))
                if self.link.receive_datagram(datagram, _PC, self.now):
                    self.host.receive_data(b"", self.now)
            for datagram, destination in self.link.datagrams_to_send():
                assert destination == _PC
                self.net.receive(datagram, _HOST, self.now)
            while (event := self.host.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, wanted):
                    return event
            times = [t for t in (self.net.next_timeout(), self.host.next_timeout()) if t is not None]
            step = max(self.now, min(times, default=end))
            if step > end:
                self.now = end
                return None
            self.now = step
            due = self.host.next_timeout()
            if due is not None and due <= self.now:
                self.host.handle_timeout(self.now)
        raise AssertionError("time does not pass")

    def ask(self, request: Manipulate) -> object | None:
        self.host.ask(request, self.now, repeatable=False)
        return self.run(60, Replied, RequestFailed, Told)

    def pokes(self) -> list[float]:
        return [at for at, channel in self.heard if channel == 1]


def _read(at: int, size: int) -> Manipulate:
    return Manipulate.request(ApiNumber.READ_PHYSICAL_MEMORY, address=at, transfer_count=size)


@pytest.mark.parametrize(("version", "most"), [(2, 1232), (4, 1232), (5, 1096)])
def test_a_reply_is_cut_where_its_packet_ends(version: int, most: int) -> None:
    both = _Both("bugcheck", version)
    assert isinstance(both.run(10, StateChanged), StateChanged)
    at = both.running.kernel.image.runs[0].base_page << 12
    at = max(at, 0x100000)
    outcome = both.ask(_read(at, 3000))
    assert isinstance(outcome, Replied) and outcome.reply.status == 0, "a success, and short (kdnet 6)"
    assert outcome.reply.data == both.running.kernel.image.read_some(at, most)


def test_a_bulk_read_is_answered_by_many_replies_and_nobody_acknowledges_them() -> None:
    # As Microsoft's engine reads for .dump: tests/end_to_end/test_referee_net.py asks it.
    both = _Both("bugcheck", version=4)
    both.run(10, StateChanged)
    size = 10_000
    first = both.ask(Manipulate.request(ApiNumber.READ_PHYSICAL_BULK, address=0x100000, transfer_count=size))
    assert isinstance(first, Replied) and first.reply.status == 0
    both.run(1)
    replies = [first.reply, *(event.reply for event in both.events if isinstance(event, OrphanReply))]
    at = [reply.fields()["address"] for reply in replies]
    assert at == list(range(0x100000, 0x100000 + size, 1232))
    image = both.running.kernel.image
    assert b"".join(reply.data for reply in replies) == image.read_some(0x100000, size)
    assert isinstance(both.ask(_read(0x100000, 8)), Replied), "the next request is taken at once"


def test_targets_before_version_4_know_of_no_bulk_read() -> None:
    both = _Both("bugcheck", version=2)
    both.run(10, StateChanged)
    refused = both.ask(Manipulate.request(ApiNumber.READ_PHYSICAL_BULK, address=0x100000, transfer_count=8))
    assert isinstance(refused, Replied) and refused.reply.status == 0xC0000001 and not refused.reply.data


def test_it_pokes_every_three_seconds_stopped_or_not() -> None:
    for scenario in ("bugcheck", "running"):
        both = _Both(scenario)
        both.run(60)
        pokes = both.pokes()
        assert pokes == pytest.approx([3.0 * n for n in range(21)]), scenario


def test_where_a_scenario_begins_is_where_it_begins_here_too() -> None:
    both = _Both("abandoned-reply")
    both.run(10, StateChanged)
    assert both.running.target.lives == 1
    kinds = [type(event).__name__ for event in both.events]
    assert "OrphanReply" in kinds, "the answer that the debugger before had asked for"
    silent = _Both("silent")
    assert isinstance(silent.run(10, StateChanged), StateChanged), "the greeting alone makes it say why it stopped"


def test_a_reboot_is_acknowledged_and_then_there_is_another_life() -> None:
    both = _Both("bugcheck")
    both.run(10, StateChanged)
    before = both.now
    told = both.ask(Manipulate.request(ApiNumber.REBOOT))
    assert isinstance(told, Told) and both.now - before < 1
    assert both.running.target.activity is Activity.QUIET
    heard = len(both.heard)
    both.run(1.9)
    assert len(both.heard) == heard, "nobody drives the network card while firmware runs"
    assert isinstance(both.run(30, StateChanged), StateChanged)
    assert both.running.target.lives == 2 and both.host.life == 2
    outcome = both.ask(_read(0x100000, 3000))
    assert isinstance(outcome, Replied) and len(outcome.reply.data) == 1096, "its packets are no longer than before"


def test_a_bad_network_changes_no_byte() -> None:
    both = _Both("bugcheck", faults=Faults(loss=0.05, dup=0.05, reorder=0.1, jitter=0.02, seed=3))
    assert isinstance(both.run(60, StateChanged), StateChanged)
    image = both.running.kernel.image
    for number in range(40):
        at = 0x100000 + 1096 * number
        outcome = None
        for _ in range(5):
            outcome = both.ask(_read(at, 1096))
            if isinstance(outcome, Replied):
                break
        assert isinstance(outcome, Replied) and outcome.reply.data == image.read(at, 1096)
    assert both.net.to_host.lost and both.net.to_target.lost and both.net.to_host.repeated
