"""A paced line: a byte takes ten bits, and a target that writes neither reads nor counts time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from simulator.faults import LineFaults
from simulator.scenarios import ScenarioOptions, start
from simulator.target import KdTarget, Print, Stop
from simulator.wire import Pacer, Wire
from tests.raw import A, ack
from tests.recording import split
from tests.small_machine import small_machine
from tests.wire import target_link


def test_a_byte_takes_ten_bits() -> None:
    """349 ms for a full packet at 115200 (T16)."""
    pacer = Pacer(115200)
    pacer.send(bytes(4017), 5.0)
    arrivals: list[float] = []
    got = b""
    while (at := pacer.next_arrival()) is not None:
        arrivals.append(at)
        got += pacer.arrived(at)
    assert got == bytes(4017)
    assert arrivals[-1] - 5.0 == pytest.approx(0.349, abs=0.001)
    assert max(b - a for a, b in pairwise(arrivals)) <= 0.0041


def test_what_is_sent_meanwhile_waits_for_the_line() -> None:
    pacer = Pacer(9600)
    pacer.send(b"x" * 960, 0.0)
    pacer.send(b"y", 0.5)
    assert pacer.arrived(0.999).count(b"x") < 960
    assert pacer.arrived(1.0001).count(b"y") == 0
    assert pacer.arrived(1.002) == b"y"


def test_without_a_speed_nothing_takes_time() -> None:
    pacer = Pacer(None)
    pacer.send(b"now", 1.0)
    assert pacer.next_arrival() == 1.0
    assert pacer.arrived(1.0) == b"now" and pacer.next_arrival() is None


@dataclass
class Beeper:
    """Says ten bytes once a second, and notes when it hears and when its timer runs."""

    due: float = 0.0
    heard: list[tuple[float, bytes]] = field(default_factory=list)
    rung: list[float] = field(default_factory=list)
    _out: list[bytes] = field(default_factory=list)

    def receive_data(self, chunk: bytes, now: float) -> None:
        self.heard.append((now, chunk))

    def data_to_send(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def next_timeout(self) -> float | None:
        return self.due

    def handle_timeout(self, now: float) -> None:
        self.rung.append(now)
        self.due = now + 1.0
        self._out.append(b"0123456789")


def _run(wire: Wire, until: float) -> bytes:
    return b"".join(part for _, part in _arrivals(wire, until))


def _arrivals(wire: Wire, until: float) -> list[tuple[float, bytes]]:
    got: list[tuple[float, bytes]] = []
    now = 0.0
    while now <= until:
        ready = wire.receive(now)
        if ready:
            got.append((now, ready))
        due = wire.next_time(now)
        assert due is not None and due > now - 1e-9
        now = max(due, now + 1e-9)
    return got


def test_a_target_s_time_stands_still_while_it_writes() -> None:
    """Ten bytes at 50 baud take two seconds: so its timer of one second rings every three."""
    beeper = Beeper()
    got = _run(Wire(beeper, 50), 11.9)
    assert got == b"0123456789" * 4
    assert beeper.rung == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-6)


def test_what_comes_while_it_writes_is_read_behind_it() -> None:
    beeper = Beeper(due=0.0)
    wire = Wire(beeper, 50)
    assert wire.receive(0.0) == b""
    wire.send(b"!", 0.1)
    now = 0.1
    while not beeper.heard:
        now = wire.next_time(now) or 0.0
        wire.receive(now)
    assert now == pytest.approx(2.0, abs=0.01)
    assert beeper.heard == [(pytest.approx(0.0, abs=1e-6), b"!")], "and by its own clock no time has passed"


@pytest.mark.parametrize("baud", [300, 9600, 115200, None])
def test_no_packet_is_repeated_because_the_line_is_slow(baud: int | None) -> None:
    """257 bytes take 8.6 s at 300 baud, and the acknowledge of 16 bytes half a second: a target waits for that."""
    target = KdTarget(small_machine(), target_link(), script=deque([Print(bytes(500)), Stop()]))
    wire = Wire(target, baud)
    got, now = b"", 0.0
    acknowledged = 0
    for _ in range(10_000):
        got += wire.receive(now)
        size = 16 + int.from_bytes(got[acknowledged + 6 : acknowledged + 8], "little") + 1
        if len(got) >= acknowledged + size:
            (packet,), _ = split(got[acknowledged : acknowledged + size])
            wire.send(ack(packet.packet_id & ~0x800), now)
            acknowledged += size
        due = wire.next_time(now)
        if due is None:
            break
        now = max(due, now)
    assert [(packet.packet_type, packet.packet_id) for packet in split(got)[0]] == [(3, A | 0x800), (7, A | 1)]


# ---- a bad line ------------------------------------------------------------------------------------------------------


def test_faults_that_do_nothing_change_nothing() -> None:
    assert _arrivals(Wire(Beeper(), 50, LineFaults(seed=5)), 20.0) == _arrivals(Wire(Beeper(), 50), 20.0)


def test_on_a_dead_line_even_what_is_under_way_gets_lost() -> None:
    """Ten bytes at 50 baud take two seconds, also those that get lost: a beep begins every three."""
    got = _arrivals(Wire(Beeper(), 50, LineFaults(die=1.3, back=7.0)), 11.0)
    assert got[0][1] == b"0" and b"".join(part for at, part in got if at < 2.0) == b"012345"
    assert not [part for at, part in got if 1.3 <= at < 7.0]
    assert [at for at, _ in got if at >= 7.0] == pytest.approx([9.0 + number / 5 for number in range(1, 11)], abs=1e-6)


def test_what_is_sent_to_a_dead_line_never_comes() -> None:
    beeper = Beeper(due=1e9)
    wire = Wire(beeper, None, LineFaults(die=0.0, back=5.0))
    for now in (0.0, 4.0, 5.0):
        wire.receive(now)
        wire.send(f"{now:.0f}".encode(), now)
        wire.receive(now)
    assert beeper.heard == [(5.0, b"5")]


def test_an_adapter_keeps_what_came_for_its_time() -> None:
    bare = _arrivals(Wire(Beeper(), 9600), 3.0)
    late = _arrivals(Wire(Beeper(), 9600, LineFaults(latency=16)), 3.0)
    assert b"".join(part for _, part in late) == b"".join(part for _, part in bare)
    assert [at for at, _ in late] == pytest.approx([at + 0.016 for at, _ in bare])


def test_an_echo_brings_back_what_was_sent_at_the_speed_of_the_line() -> None:
    beeper = Beeper(due=1e9)
    wire = Wire(beeper, 9600, LineFaults(echo=True))
    assert wire.receive(0.0) == b""
    wire.send(b"hello", 0.0)
    assert len(wire.receive(5 * 10 / 9600 - 1e-6)) < 5
    assert wire.receive(5 * 10 / 9600 + 1e-6).endswith(b"lo")
    assert b"".join(part for _, part in beeper.heard) == b"hello"


def test_a_deaf_target_hears_nothing_and_a_mute_one_hears() -> None:
    for faults, heard, came in ((LineFaults(deaf=True), b"", b"0123456789"), (LineFaults(mute=True), b"?", b"")):
        beeper = Beeper()
        wire = Wire(beeper, None, faults)
        got = wire.receive(0.0)
        wire.send(b"?", 0.5)
        got += wire.receive(0.5)
        assert b"".join(part for _, part in beeper.heard) == heard and got == came


def test_a_text_comes_between_what_the_target_says() -> None:
    got = _arrivals(Wire(Beeper(), 9600, LineFaults(text="login: ")), 11.0)
    everything = b"".join(part for _, part in got)
    assert sorted(everything) == sorted(b"login: " * 3 + b"0123456789" * 11)
    assert everything.count(b"login: ") == 2, "the first comes together with a beep"


def test_a_reset_of_the_target_begins_another_life() -> None:
    """Firmware's text, then the first packet of a machine that starts: SYNC in its id (kd-protocol 1.4)."""
    target = start("silent", ScenarioOptions(memory_size=16 << 20, processors=1)).target
    wire = Wire(target, None, LineFaults(restart=5.0))
    now, got = 0.0, b""
    while now < 60.0:
        assert now >= 5.0 or not got, "it was silent"
        got += wire.receive(now)
        due = wire.next_time(now)
        if due is None:
            break
        now = max(due, now + 1e-9)
    assert target.lives == 2
    packets, _ = split(got)
    assert packets and packets[0].packet_id == A | 0x800
