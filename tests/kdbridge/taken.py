"""Machines taken over: a scenario's, or one made to order, at the end of a line inside the test."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from kdbridge.opening import OpenTarget, open_target
from kdbridge.transports.sim import SimTransport, open_sim
from protocol.conversation import KdEvent
from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, Role
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.machine import Behaviour, Machine
from simulator.scenarios import SCENARIOS, RunningScenario, machine_of
from simulator.target import Event, KdTarget, Stop
from tests.recording import Packet, split

__all__ = ["READING", "Taken", "Way", "made_to_order", "scenario", "take_over"]

READING = {
    "GetVersion", "ReadVirtualMemory", "ReadPhysicalMemory", "ReadControlSpace", "GetContext", "GetContextEx",
}  # fmt: skip
"""Requests that leave a machine as it is (kd-protocol 3)."""

Script = Callable[[SimulatedKernel], list[Event]]


class Way(SimTransport):
    """A line that remembers what the engine wrote."""

    def __init__(self, url: str, running: RunningScenario, baud: int | None = None) -> None:
        super().__init__(url, running, baud)
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await super().send(data)
        self.sent.append(data)

    def packets_sent(self) -> tuple[list[Packet], list[bytes]]:
        """Packets, and bytes that belong to none: break-ins."""
        packets, between = split(b"".join(self.sent))
        return packets, [byte for _, byte in between]

    @property
    def kernel(self) -> SimulatedKernel:
        return self.running.kernel

    @property
    def machine(self) -> Machine:
        return self.running.target.machine


@dataclass
class Taken:
    """A machine that was taken over, and all that was told about it."""

    way: Way
    target: OpenTarget
    reports: list[str] = field(default_factory=list)
    events: list[KdEvent] = field(default_factory=list)

    @property
    def kernel(self) -> SimulatedKernel:
        return self.way.kernel

    @property
    def machine(self) -> Machine:
        return self.way.machine

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


def scenario(name: str, *, baud: int | None = None, **options: str) -> Way:
    """A machine with a name, of 16 MiB unless it is told otherwise."""
    running = open_sim(f"sim:{name}", name, {"memory": "16M", **options}).running
    return Way(f"sim:{name}", running, baud)


def made_to_order(
    options: KernelOptions | None = None,
    behaviour: Behaviour | None = None,
    *,
    script: Script | None = None,
    baud: int | None = None,
) -> Way:
    """A machine of 16 MiB that stands at a blue screen, made a little different."""
    kernel = build_kernel(options or KernelOptions(memory_size=16 << 20))
    events: list[Event] = script(kernel) if script is not None else [Stop(again=True)]
    machine = machine_of(kernel, behaviour)
    target = KdTarget(machine, KdcomLink(Role.TARGET, LinkTimers(tries=20)), script=deque(events))
    return Way("sim:made-to-order", RunningScenario(SCENARIOS["bugcheck"], kernel, target, kernel.image), baud)


@asynccontextmanager
async def take_over(
    way: Way, *, wait: float = 60.0, break_in: bool = False, pass_module_loads: bool = False
) -> AsyncIterator[Taken]:
    reports: list[str] = []
    events: list[KdEvent] = []
    async with open_target(
        way.url, wait=wait, break_in=break_in, pass_module_loads=pass_module_loads,
        report=reports.append, on_event=events.append, transport=way,
    ) as target:  # fmt: skip
        yield Taken(way, target, reports, events)
    # Whatever the engine wrote last arrives there.
    with trio.move_on_after(0.01):
        await way.receive()
