"""A line on which one thing goes wrong: the nth packet of a kind, one way, is struck once. In virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import trio

from kdbridge.transports.sim import SimTransport
from simulator.machine import Machine
from simulator.scenarios import SCENARIOS, RunningScenario
from simulator.target import Event, KdTarget
from tests.recording import split
from tests.small_machine import small_machine
from tests.wire import target_link

__all__ = ["Strike", "StruckLine", "To", "machine_with", "units"]

To = Literal["target", "host"]
"""Who does not get what the other sent."""

_CONTROL = {4: "ack", 5: "resend", 6: "reset"}
_DATA = {7: "event", 3: "print", 11: "file"}


def units(chunk: bytes) -> Iterator[tuple[str, bytes]]:
    """What was written at once, packet by packet, each with its kind: `ack`, `event`, an API's number in hex."""
    packets, between = split(chunk)
    found = [(p.offset, p.raw, _kind(p.control, p.packet_type, p.payload)) for p in packets]
    found += [(at, byte, "byte") for at, byte in between]
    for _, raw, kind in sorted(found):
        yield kind, raw


def _kind(control: bool, packet_type: int, payload: bytes) -> str:
    if control:
        return _CONTROL[packet_type]
    if packet_type == 3 and payload[:4] == b"\x31\x32\0\0":
        return "prompt"
    return _DATA[packet_type] if packet_type != 2 else payload[1::-1].hex()


@dataclass
class Strike:
    """`do` to the nth unit of this kind on its way there; `for_good`: to all that follow, whatever they are."""

    to: To
    kind: str
    do: Callable[[bytes], bytes]
    nth: int = 1
    for_good: bool = False
    struck: int = 0

    def on(self, to: To, kind: str, raw: bytes) -> bytes:
        """What comes of it."""
        if to != self.to or (self.struck and not self.for_good):
            return raw
        if not self.struck:
            self.nth -= kind == self.kind
            if self.nth:
                return raw
        self.struck += 1
        return self.do(raw)


class StruckLine(SimTransport):
    """A way to a machine of a few pages. Nothing is struck before `strike` is set."""

    def __init__(self, target: Any) -> None:
        nothing = cast("Any", None)
        super().__init__("sim:struck", RunningScenario(SCENARIOS["breakpoint"], nothing, target, nothing))
        self.strike: Strike | None = None
        self.asked: list[str] = []
        """Kinds of what the host sent."""
        self.said: list[str] = []
        """Kinds of what the target sent."""
        self._kept = b""

    async def send(self, data: bytes) -> None:
        out = b""
        for kind, raw in units(data):
            self.asked.append(kind)
            out += self._struck("target", kind, raw)
        await super().send(out)

    async def receive(self) -> bytes:
        if self._kept:
            await trio.lowlevel.checkpoint()
        while not self._kept:
            for kind, raw in units(await super().receive()):
                self.said.append(kind)
                self._kept += self._struck("host", kind, raw)
        kept, self._kept = self._kept, b""
        return kept

    async def pass_time(self, seconds: float) -> None:
        """Nobody reads, and the port keeps what comes."""
        with trio.move_on_after(seconds):
            while True:
                kept, self._kept = self._kept, b""
                try:
                    kept += await self.receive()
                finally:
                    self._kept = kept

    async def inject(self, to: To, data: bytes) -> None:
        """Bytes on the line that neither end sent."""
        if to == "target":
            await super().send(data)
        else:
            self._kept += data

    def _struck(self, to: To, kind: str, raw: bytes) -> bytes:
        return raw if self.strike is None else self.strike.on(to, kind, raw)


def machine_with(*script: Event, machine: Machine | None = None) -> KdTarget:
    """A target with this future, on a machine whose processor stands on an int3."""
    machine = machine or small_machine()
    machine.memory.write(0x2000, b"\xcc")
    target = KdTarget(machine, target_link())
    target.script.extend(script)
    return target
