"""Two ends of a KDNET conversation, and the network between them in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from protocol.connection import KdConnection
from protocol.conversation import KdEvent
from protocol.framing import ControlFrame, DataFrame
from protocol.kdnet import Address, Endpoint, HostChannel, KdnetLink, Sealer, TargetChannel, parse_key
from protocol.kdnet.packet import Content, read_packet
from protocol.link import LinkEvent, PacketReceived
from protocol.packet import encode_data
from protocol.state_change import ExceptionChange
from simulator.target import Activity, KdTarget
from tests.protocol.kdnet.aes import Aes
from tests.small_machine import PC, small_machine

__all__ = [
    "HOST_AT",
    "KEY",
    "TARGET_AT",
    "Network",
    "data_packet",
    "deliver",
    "events_of",
    "hear",
    "host_link",
    "joined",
    "packets",
    "said",
    "seeded",
    "session_key",
    "state",
    "target_link",
]

KEY = parse_key("17890.af3489a.9345kjm.lio147")
HOST_AT: Address = ("192.0.2.1", 50000)
TARGET_AT: Address = ("192.0.2.10", 50000)


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def host_link(seed: int = 1, cipher: Aes | None = None) -> KdnetLink:
    return KdnetLink(HostChannel(KEY, cipher or Aes(), seeded(seed)))


def target_link(seed: int = 2, version: int = 5) -> KdnetLink:
    own = Endpoint(TARGET_AT[0], TARGET_AT[1])
    return KdnetLink(TargetChannel(KEY, Aes(), seeded(seed), own=own, host=HOST_AT, version=version))


def events_of(link: KdnetLink) -> list[LinkEvent]:
    events: list[LinkEvent] = []
    while (event := link.next_event()) is not None:
        events.append(event)
    return events


def deliver(host: KdnetLink, target: KdnetLink, now: float = 0.0) -> list[tuple[bool, bytes]]:
    """Carry all that both ends have to say, until they are silent: what went over the wire, and whose it was."""
    carried: list[tuple[bool, bytes]] = []
    for _ in range(1000):
        out = host.datagrams_to_send()
        back = target.datagrams_to_send()
        if not out and not back:
            return carried
        for datagram, _ in out:
            carried.append((True, datagram))
            target.receive_datagram(datagram, HOST_AT, now)
        for datagram, _ in back:
            carried.append((False, datagram))
            host.receive_datagram(datagram, TARGET_AT, now)
    raise AssertionError("the two ends never stop talking")


def joined(version: int = 5) -> tuple[KdnetLink, KdnetLink]:
    """A host and a target that have just found each other; nothing waits."""
    host, target = host_link(), target_link(version=version)
    target.handle_timeout(0.0)
    deliver(host, target)
    events_of(host), events_of(target)
    assert host.peer == TARGET_AT and target.peer == HOST_AT
    return host, target


def state(thing: Any) -> Any:
    """Everything an end remembers, but its counters: for saying that nothing changed."""
    if isinstance(thing, (bytes, bytearray, str, int, float, type(None), frozenset, Enum)):
        return thing
    if isinstance(thing, (list, tuple)) or type(thing).__name__ == "deque":
        return [state(one) for one in thing]
    if isinstance(thing, dict):
        return {key: state(value) for key, value in thing.items()}
    if callable(thing) and not hasattr(thing, "__dict__"):
        owner = getattr(thing, "__self__", None)
        return owner.getstate() if isinstance(owner, random.Random) else repr(thing)
    names = list(getattr(thing, "__dict__", {}))
    names += [name for each in type(thing).__mro__ for name in getattr(each, "__slots__", ())]
    kept = [name for name in names if name not in ("facts", "_cipher") and hasattr(thing, name)]
    return type(thing).__name__, {name: state(getattr(thing, name)) for name in kept}


def session_key(link: KdnetLink) -> bytes:
    session = link._channel._current
    assert session is not None
    return session.key


def said(link: KdnetLink) -> list[tuple[int, int]]:
    """Types and ids of what it wants to send in its session."""
    key = session_key(link)
    out: list[tuple[int, int]] = []
    for datagram in link.data_to_send():
        opened = Sealer(KEY, Aes()).open(datagram, key)
        assert opened is not None
        content: Content = read_packet(opened.payload)
        assert isinstance(content, (DataFrame, ControlFrame))
        out.append((content.packet_type, content.packet_id))
    return out


def hear(link: KdnetLink, other: KdnetLink, payload: bytes, now: float = 0.0) -> None:
    """Let `link` receive a packet made by hand, under the key and with the next number of the other end."""
    datagram = other._channel.seal(payload)
    assert datagram is not None
    source = TARGET_AT if isinstance(link._channel, HostChannel) else HOST_AT
    assert link.receive_datagram(datagram, source, now)


def data_packet(packet_type: int, packet_id: int, payload: bytes = bytes(56)) -> bytes:
    return encode_data(packet_type, packet_id, payload, trailer=False)


def packets(link: KdnetLink) -> list[tuple[int, int]]:
    return [(e.packet_type, e.packet_id) for e in events_of(link) if isinstance(e, PacketReceived)]


@dataclass
class Network:
    """A debugger's conversation, a target, and between them a network that loses, repeats, delays and overtakes."""

    seed: int
    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    now: float = 0.0
    target_at: Address = TARGET_AT
    events: list[KdEvent] = field(default_factory=list)
    log: list[tuple[bool, bytes]] = field(default_factory=list)
    _under_way: list[tuple[float, int, bool, bytes, Address]] = field(default_factory=list)
    _sent: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.host_link = host_link(self.seed + 1)
        self.host = KdConnection(self.host_link, restart_is_new_life=True)
        self.target_link = target_link(self.seed + 2)
        self.target = KdTarget(small_machine(), cast("Any", self.target_link))
        change = self.target.make_change(ExceptionChange(0x80000003, 0, 0, PC, (0,), True))
        self.target.begin(Activity.WAITING, change, 0.0)

    def restart_target(self, seed: int) -> None:
        """The machine is another one now, with other memory, at the same address."""
        self.target_link.give_up()
        self.target = KdTarget(small_machine(seed=seed), cast("Any", self.target_link))
        change = self.target.make_change(ExceptionChange(0x80000003, 0, 0, PC, (0,), True))
        self.target.begin(Activity.WAITING, change, self.now)

    def inject(self, to_host: bool, datagram: bytes, source: Address) -> None:
        """Somebody else puts a datagram on the network."""
        self._arrive(to_host, datagram, source)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; whether `until` came true."""
        end = self.now + seconds
        for _ in range(200_000):
            self._exchange()
            if until():
                return True
            times = [self.host.next_timeout(), self.target.next_timeout(), *(each[0] for each in self._under_way)]
            step = max(self.now, min(time for time in times if time is not None))
            if step >= end:
                self.now = end
                return False
            self.now = step
            for due in sorted(each for each in self._under_way if each[0] <= self.now):
                self._under_way.remove(due)
                self._arrive(due[2], due[3], due[4])
            for end_of_line in (self.host, self.target):
                timer = end_of_line.next_timeout()
                if timer is not None and timer <= self.now:
                    end_of_line.handle_timeout(self.now)
        raise AssertionError("time does not pass")

    def _arrive(self, to_host: bool, datagram: bytes, source: Address) -> None:
        link, owner = (self.host_link, self.host) if to_host else (self.target_link, self.target)
        if link.receive_datagram(datagram, source, self.now):
            owner.receive_data(b"", self.now)

    def _exchange(self) -> None:
        for to_host, datagram in self._said():
            self.log.append((to_host, datagram))
            for _ in range(2 if self.random.random() < self.duplication else 1):
                if self.random.random() < self.loss:
                    continue
                self._sent += 1
                at = self.now + self.delay + self.random.random() * self.jitter
                self._under_way.append((at, self._sent, to_host, datagram, self.target_at if to_host else HOST_AT))
        while (event := self.host.next_event()) is not None:
            self.events.append(event)

    def _said(self) -> Iterator[tuple[bool, bytes]]:
        for datagram, _ in self.host_link.datagrams_to_send():
            yield False, datagram
        for datagram, _ in self.target_link.datagrams_to_send():
            yield True, datagram
