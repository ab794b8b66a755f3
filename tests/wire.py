"""Two ends and the line between them, in virtual time: loss and damage are verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.connection import KdConnection
from protocol.conversation import KdEvent
from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from simulator.target import KdTarget

Mangle = Callable[[bytes], list[bytes]]


def pass_through(chunk: bytes) -> list[bytes]:
    return [chunk]


@dataclass
class Line:
    """A debugger's conversation and a target, joined by a line that a test may cut into."""

    target: KdTarget
    host: KdConnection = field(default_factory=lambda: KdConnection(KdcomLink(Role.HOST)))
    now: float = 0.0
    to_target: Mangle = pass_through
    to_host: Mangle = pass_through
    events: list[KdEvent] = field(default_factory=list)
    sent_by_host: list[bytes] = field(default_factory=list)
    sent_by_target: list[bytes] = field(default_factory=list)

    def collect(self) -> None:
        while (event := self.host.next_event()) is not None:
            self.events.append(event)

    def transfer(self) -> bool:
        """Move what both ends have to say, once."""
        moved = False
        for chunk in self.host.data_to_send():
            self.sent_by_host.append(chunk)
            for part in self.to_target(chunk):
                self.target.receive_data(part, self.now)
            moved = True
        for chunk in self.target.data_to_send():
            self.sent_by_target.append(chunk)
            for part in self.to_host(chunk):
                self.host.receive_data(part, self.now)
            moved = True
        self.collect()
        return moved

    def settle(self) -> None:
        """Move until nobody has anything to say, without time passing."""
        for _ in range(10_000):
            if not self.transfer():
                return
        raise AssertionError("the two ends never stop talking")

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        self.settle()
        for _ in range(200_000):
            if until():
                return
            due = [t for t in (self.host.next_timeout(), self.target.next_timeout()) if t is not None]
            step = max(min(due), self.now) if due else end
            if step >= end:
                self.now = end
                return
            self.now = step
            self.host.handle_timeout(self.now)
            self.target.handle_timeout(self.now)
            self.collect()
            self.settle()
        raise AssertionError("time does not pass")

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


def target_link(*, byte: float = 1.0, acknowledge: float = 1.0) -> KdcomLink:
    return KdcomLink(Role.TARGET, LinkTimers(byte, acknowledge, tries=20))
