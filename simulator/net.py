"""A target on a network: what an unreliable network does to datagrams, and a machine that pokes over one. No I/O."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol.kdnet import Address, KdnetLink

from .errors import SimulationError
from .events import Event
from .faults import LineFaults
from .machine import Machine
from .target import Activity, KdTarget

__all__ = ["DatagramWire", "Faults", "NetworkedTarget", "parse_faults"]

_OVERTAKEN = 0.03
"""Seconds by which a datagram comes late that those behind it overtake."""
_BULK_READS_SINCE = 4
"""The version of KDNET whose targets Microsoft's engine asks for them; it asks none of version 2."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What a network does to datagrams, each way: shares from 0 to 1, times in seconds."""

    loss: float = 0.0
    dup: float = 0.0
    reorder: float = 0.0
    """Share of datagrams that come 30 ms late, so that others overtake them."""
    delay: float = 0.0
    """What every datagram takes."""
    jitter: float = 0.0
    """Up to so much more, different for each."""
    seed: int = 1


def parse_faults(text: str) -> Faults:
    """Read `loss=0.05,dup=0.05,reorder=0.1,delay=0.02,jitter=0.02,seed=7`. Raises SimulationError."""
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in Faults.__slots__ and name in LineFaults.__slots__:
            raise SimulationError(f"{name} is a fault of serial lines; a network has {', '.join(Faults.__slots__)}")
        if name not in Faults.__slots__ or name in found:
            raise SimulationError(
                f"{item!r} is no fault of a network, or is given twice; there are {', '.join(Faults.__slots__)}"
            )
        try:
            number = float(value) if value.isascii() else float("nan")
        except ValueError:
            number = float("nan")
        most = {"seed": 2.0**32, "delay": 10.0, "jitter": 10.0}.get(name, 1.0)
        if not 0 <= number <= most or (name == "seed" and number != int(number)):
            raise SimulationError(f"{item!r}: {name} is a number from 0 to {most:g}, such as loss=0.05")
        found[name] = number
    return Faults(**{**found, "seed": int(found.get("seed", 1))})  # type: ignore[arg-type]


class DatagramWire:
    """One direction of a network."""

    def __init__(self, faults: Faults | None = None, way: int = 0) -> None:
        """`way` makes two directions differ that have the same faults."""
        self._faults = faults or Faults()
        self._random = random.Random(f"{self._faults.seed} {way}")
        self._under_way: list[tuple[float, int, bytes, Address]] = []
        self._sent = 0
        self.lost = 0
        self.repeated = 0

    def send(self, datagram: bytes, peer: Address, now: float) -> None:
        """Put a datagram on the network. `peer` comes out with it: whichever end it is that the reader asks for."""
        faults, draw = self._faults, self._random.random
        if draw() < faults.loss:
            self.lost += 1
            return
        copies = 2 if draw() < faults.dup else 1
        self.repeated += copies - 1
        for _ in range(copies):
            late = _OVERTAKEN if draw() < faults.reorder else 0.0
            self._sent += 1
            at = now + faults.delay + draw() * faults.jitter + late
            heapq.heappush(self._under_way, (at, self._sent, datagram, peer))

    def arrived(self, now: float) -> list[tuple[bytes, Address]]:
        """What has come out at the other end by now, in that order."""
        out: list[tuple[bytes, Address]] = []
        while self._under_way and self._under_way[0][0] <= now:
            _, _, datagram, peer = heapq.heappop(self._under_way)
            out.append((datagram, peer))
        return out

    def next_arrival(self) -> float | None:
        """When the next one comes out; None: nothing is under way."""
        return self._under_way[0][0] if self._under_way else None


@dataclass(slots=True)
class NetworkedTarget:
    """A target whose debugger is on the network, faults included. It pokes for ever; silent only while it is deaf.

    `begin` puts it where its scenario begins: once more, as the link it was begun on is not this one.
    """

    target: KdTarget
    link: KdnetLink
    begin: Callable[[KdTarget], None] | None = None
    faults: Faults = field(default_factory=Faults)
    to_target: DatagramWire = field(init=False)
    to_host: DatagramWire = field(init=False)

    def __post_init__(self) -> None:
        self.to_target, self.to_host = DatagramWire(self.faults, 0), DatagramWire(self.faults, 1)
        target = self.target
        target.link = self.link
        self._limit(target.machine)
        restart = target.restart
        if restart is not None:

            def restart_on_network() -> tuple[Machine, deque[Event]]:
                machine, script = restart()
                self._limit(machine)
                return machine, script

            target.restart = restart_on_network
        if self.begin is not None:
            self.begin(target)

    def receive(self, datagram: bytes, source: Address, now: float) -> None:
        """A datagram came from there; the network may yet lose it."""
        self.to_target.send(datagram, source, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """Let the target do what is due by now: what has come through the network to its other end, and where to."""
        for datagram, source in self.to_target.arrived(now):
            woken = self.link.receive_datagram(datagram, source, now)
            # The acknowledge goes first: what the request does may be the end of this life.
            self._collect(now)
            if woken:
                self.target.receive_data(b"", now)
        due = self.target.next_timeout()
        if due is not None and due <= now:
            self.target.handle_timeout(now)
        self._collect(now)
        return self.to_host.arrived(now)

    def next_timeout(self) -> float | None:
        """When to look again, if nothing comes before."""
        times = (self.to_target.next_arrival(), self.to_host.next_arrival(), self.target.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def _collect(self, now: float) -> None:
        out = self.link.datagrams_to_send()
        # What firmware writes to a serial port does not get onto the network.
        self.target.data_to_send()
        if self.target.activity is Activity.QUIET:
            # Nobody drives the network card: the machine writes its dump, or its firmware runs.
            return
        for datagram, destination in out:
            self.to_host.send(datagram, destination, now)

    def _limit(self, machine: Machine) -> None:
        """No reply is longer than its packet: what does not fit is cut off, and the rest is a success (kdnet 6)."""
        most = min(machine.behaviour.largest_transfer, self.link.largest_transfer)
        bulk = (self.link.version or 0) >= _BULK_READS_SINCE
        machine.behaviour = replace(machine.behaviour, largest_transfer=most, bulk_reads=bulk)
