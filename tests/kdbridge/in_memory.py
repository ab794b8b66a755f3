"""A way to a simulated target without a line: in trio's virtual time, for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from kdbridge.engine import Engine
from kdbridge.session import Session
from protocol.connection import KdConnection
from protocol.conversation import KdEvent
from protocol.kdcom import KdcomLink
from protocol.link import Role
from simulator.target import KdTarget

__all__ = ["Client", "InMemory", "client_of"]

Mangle = Callable[[bytes], list[bytes]]


def _pass_through(chunk: bytes) -> list[bytes]:
    return [chunk]


@dataclass
class InMemory:
    """A Transport whose other end is a target. Time passes for the target while somebody waits to receive."""

    target: KdTarget
    to_target: Mangle = _pass_through
    to_host: Mangle = _pass_through
    url: str = "memory:"
    notes: tuple[str, ...] = ()
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    """What the engine wrote, and when."""
    received: list[tuple[float, bytes]] = field(default_factory=list)
    closed: bool = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self.sent.append((now, data))
        for part in self.to_target(data):
            self.target.receive_data(part, now)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for _ in range(100_000):
            now = trio.current_time()
            out = [part for chunk in self.target.data_to_send() for part in self.to_host(chunk)]
            if data := b"".join(out):
                self.received.append((now, data))
                return data
            due = self.target.next_timeout()
            if due is None:
                await trio.sleep_forever()
            elif due > now:
                await trio.sleep_until(due)
            else:
                self.target.handle_timeout(now)
        raise AssertionError("the target's timers never come to rest")

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Client:
    """A debugger on such a line, and all that it was told."""

    line: InMemory
    session: Session
    events: list[KdEvent]
    reports: list[str]

    @property
    def target(self) -> KdTarget:
        return self.line.target

    @property
    def sent(self) -> bytes:
        return b"".join(data for _, data in self.line.sent)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


def client_of(target: KdTarget) -> Client:
    """A session on this target, not yet attached."""
    line = InMemory(target)
    events: list[KdEvent] = []
    reports: list[str] = []
    engine = Engine(line, KdConnection(KdcomLink(Role.HOST)), events.append)
    return Client(line, Session(engine, report=reports.append), events, reports)
