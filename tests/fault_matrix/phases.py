"""The five moments of a session in which something may go wrong, and what can come of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import groupby

import trio

from kdbridge.errors import NoContactError, TargetChangedError, TargetLostError, TargetRefusedError
from kdbridge.opening import OpenTarget, open_target
from protocol.address import VirtualAddress
from protocol.conversation import KdEvent, Printed
from protocol.errors import KdError
from simulator.target import Event, Print, Stop
from tests.fault_matrix.line import Strike, StruckLine, machine_with
from tests.small_machine import KERNEL, content

__all__ = ["PRINTS", "SCRIPTS", "Bench", "Inject", "outcome_of"]

PRINTS = (b"one\n", b"two\n", b"three\n")
SCRIPTS: dict[str, tuple[Event, ...]] = {
    "attach": (Stop(),),
    "idle": (Stop(),),
    "reading": (Stop(),),
    "prints": (Stop(), *(Print(text) for text in PRINTS), Stop()),
    "leaving": (Stop(),),
}
_WAIT = 60.0

Inject = Callable[[StruckLine], Awaitable[None]]


@dataclass
class Bench:
    """One machine at the end of one line, and what was told of it."""

    line: StruckLine
    strike: Strike | None = None
    inject: Inject | None = None
    prints: tuple[bytes, ...] = PRINTS
    """What it prints after a continue."""
    events: list[KdEvent] = field(default_factory=list)

    async def go_wrong(self) -> None:
        """From now on the strike may come; what is injected is."""
        self.line.strike = self.strike
        if self.inject is not None:
            await self.inject(self.line)

    def open(self) -> AbstractAsyncContextManager[OpenTarget]:
        return open_target("sim:struck", wait=_WAIT, transport=self.line, on_event=self.events.append)


async def _right(target: OpenTarget, *places: int) -> None:
    """What is read is what the memory holds."""
    for place in places or (0x5000, 0x6000, 0x7123):
        data = await target.virtual.read(VirtualAddress(KERNEL + place), 0x700)
        assert data == content()[place : place + 0x700], f"wrong bytes at {place:#x}"


async def _attach(bench: Bench) -> str:
    await bench.go_wrong()
    async with bench.open() as target:
        await _right(target)
    return "right"


async def _idle(bench: Bench) -> str:
    async with bench.open() as target:
        await _right(target, 0x8000)
        await bench.line.pass_time(3.0)
        await bench.go_wrong()
        await bench.line.pass_time(3.0)
        await _right(target)
    return "right"


async def _reading(bench: Bench) -> str:
    async with bench.open() as target:
        await _right(target, 0x8000)
        await bench.go_wrong()
        await _right(target)
    return "right"


async def _prints(bench: Bench) -> str:
    async with bench.open() as target:
        await _right(target, 0x8000)
        bench.events.clear()
        await bench.go_wrong()
        if not await target.session.resume():
            await target.session.attach(wait=_WAIT)
        await _right(target)
    printed = [event.text for event in bench.events if isinstance(event, Printed)]
    if printed == list(bench.prints):
        return "right"
    once = tuple(text for text, _ in groupby(printed))
    assert once == bench.prints[: len(once)], f"printed {printed}"
    return "prints cut short" if len(once) < len(bench.prints) else "printed again"


async def _leaving(bench: Bench) -> str:
    async with bench.open() as target:
        await _right(target, 0x8000)
        await bench.go_wrong()
        stopped = await target.session.resume()
    await bench.line.pass_time(30.0)
    return "stopped again" if stopped else "right"


_PHASES: dict[str, Callable[[Bench], Awaitable[str]]] = {
    "attach": _attach, "idle": _idle, "reading": _reading, "prints": _prints, "leaving": _leaving,
}  # fmt: skip
_NAMES: dict[type[KdError], str] = {
    TargetChangedError: "changed",
    NoContactError: "no contact",
    TargetLostError: "lost",
    TargetRefusedError: "refused",
}


async def outcome_of(phase: str, bench: Bench | None = None) -> tuple[str, Bench, float]:
    """What came of it: right bytes, or an error by its name; and in how many seconds."""
    bench = bench or Bench(StruckLine(machine_with(*SCRIPTS[phase])))
    began = trio.current_time()
    try:
        with trio.fail_after(600):
            outcome = await _PHASES[phase](bench)
    except KdError as error:
        outcome = _NAMES[type(error)]
    seconds = trio.current_time() - began
    assert bench.strike is None or bench.strike.struck, "what was to be struck never came"
    return outcome, bench, seconds
