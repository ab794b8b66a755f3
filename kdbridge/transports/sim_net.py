"""sim: over a network: both ends of KDNET inside this process, and a network between them that may be a bad one.

sim:SCENARIO?link=net[&version=5&loss=0.05&dup=0.05&reorder=0.1&delay=0.02&jitter=0.02], and what else sim: knows
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import trio

from kdbridge.cipher import AesCbc
from kdbridge.errors import UsageError
from protocol.kdnet import Address, ControlKey, Endpoint, KdnetLink, TargetChannel
from simulator.errors import SimulationError
from simulator.net import Faults, NetworkedTarget, parse_faults
from simulator.scenarios import RunningScenario

from .net_end import HostEnd, HostWay
from .net_waiting import Place
from .sim import open_sim

__all__ = ["SimNetTransport", "open_sim_net"]

_HOST: Address = ("192.0.2.1", 50000)
_TARGET: Address = ("192.0.2.10", 50000)
_FAULTS = ("loss", "dup", "reorder", "delay", "jitter")
_VERSIONS = {"2": 2, "4": 4, "5": 5}


class SimNetTransport(HostWay):
    """A network with a machine in this process. Time passes for the machine while somebody receives."""

    def __init__(self, url: str, running: RunningScenario, version: int = 5, faults: Faults | None = None) -> None:
        key = ControlKey(os.urandom(32))
        super().__init__(url, HostEnd(key, Place(_HOST[1], (_HOST[0],))))
        self.running = running
        """The machine, for whoever wants to look behind the network."""
        own = Endpoint(_TARGET[0], _TARGET[1])
        channel = TargetChannel(key, AesCbc(), os.urandom, own=own, host=_HOST, version=version)
        self.networked = NetworkedTarget(running.target, KdnetLink(channel), running.scenario.begin, faults or Faults())
        """The machine's end."""
        self._arrived: list[tuple[bytes, Address]] = []
        self._woken = False

    @property
    def notes(self) -> tuple[str, ...]:
        """That nothing here is real."""
        return (f"a simulated machine on a simulated network: {self.running.scenario.text}",)

    @property
    def address(self) -> Address:
        """Where a debugger would be."""
        return _HOST

    async def send(self, data: bytes) -> None:
        """Put a datagram on the network."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._send(data, trio.current_time())

    async def receive(self) -> bytes:
        """b"" when the link has news."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._woken:
            now = trio.current_time()
            self._arrived += [(datagram, _TARGET) for datagram, _ in self.networked.datagrams_to_send(now)]
            if self._arrived:
                datagram, source = self._arrived.pop(0)
                if self.watch is not None:
                    self.watch(False, datagram, source)
                self._woken = self._end.receive(datagram, source, now)
                for answer, _ in self._end.link.datagrams_to_send():
                    self._send(answer, now)
                continue
            wake = self.networked.next_timeout()
            if wake is None:
                await trio.sleep_forever()
            else:
                await trio.sleep_until(wake)
        self._woken = False
        return b""

    async def aclose(self) -> None:
        """Nothing to give back; the machine is gone with the last reference to it."""

    def _send(self, datagram: bytes, now: float) -> None:
        if self.watch is not None:
            self.watch(True, datagram, _TARGET)
        self.networked.receive(datagram, _HOST, now)


def open_sim_net(url: str, scenario: str, options: Mapping[str, str]) -> SimNetTransport:
    """Build the machine and lay a network to it. Raises UsageError."""
    rest = {name: value for name, value in options.items() if name not in ("link", "version", *_FAULTS)}
    if options.get("link") != "net":
        raise UsageError(f"{url}: link={options.get('link')} should be link=net; without it there is a serial line")
    if "baud" in rest:
        raise UsageError(f"{url}: a network has no baud; leave out baud= or link=net")
    if "fault" in rest:
        raise UsageError(f"{url}: fault= is for a serial line; write the network's as loss=0.05&dup=0.05")
    version = _VERSIONS.get(options.get("version", "5"))
    if version is None:
        raise UsageError(f"{url}: version={options['version']} is none that was ever seen; there are 2, 4 and 5")
    wanted = [f"{name}={options[name]}" for name in _FAULTS if name in options]
    try:
        faults = parse_faults(",".join([*wanted, f"seed={options.get('seed', '1')}"]))
    except SimulationError as error:
        raise UsageError(f"{url}: {error}") from None
    return SimNetTransport(url, open_sim(url, scenario, rest).running, version, faults)
