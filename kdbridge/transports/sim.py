"""sim: a simulated machine inside this process, for trying things out without a cable.

sim:SCENARIO[?processors=4&memory=256M&seed=1&baud=115200]     over a serial line; link=net: see sim_net.py
sim:SCENARIO?fault=flip=1e-5,drop=0.01,seed=7                  over a bad one: see simulator/faults.py
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import trio

from kdbridge.errors import UsageError
from protocol.errors import KdError
from simulator.errors import SimulationError
from simulator.faults import LineFaults, parse_line_faults
from simulator.options import LAYOUTS
from simulator.scenarios import RunningScenario, ScenarioOptions, start
from simulator.wire import Wire

__all__ = ["SimTransport", "open_sim", "parse_size"]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
_NUMBERS = ("processors", "seed", "baud", "unreadable", "runs")
_SIZES = ("memory", "content")


def parse_size(text: str) -> int:
    """A size in bytes: 4096, 64K, 256M, 1G, 1T. Raises UsageError."""
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in _UNITS else (text, "")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise UsageError(f"{text!r} is not a size; write 4096, 64K, 256M or 1G")
    return int(digits) << _UNITS.get(unit, 0)


class SimTransport:
    """A line to a machine in this process. Time passes for the machine while somebody receives."""

    def __init__(
        self, url: str, running: RunningScenario, baud: int | None = None, faults: LineFaults | None = None
    ) -> None:
        self._url = url
        self.running = running
        """The machine, for whoever wants to look behind the line."""
        self._wire = Wire(running.target, baud, faults)
        self._sent = trio.Event()

    @property
    def url(self) -> str:
        """As it was asked for."""
        return self._url

    @property
    def notes(self) -> tuple[str, ...]:
        """That nothing here is real."""
        return (f"a simulated machine: {self.running.scenario.text}",)

    async def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._wire.send(data, trio.current_time())
        self._sent.set()

    async def receive(self) -> bytes:
        """The next bytes from the machine, as soon as the line has carried them here."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            now = trio.current_time()
            ready = self._wire.receive(now)
            if ready:
                return ready
            wake = self._wire.next_time(now)
            self._sent = trio.Event()
            with trio.CancelScope(deadline=inf if wake is None else wake):
                await self._sent.wait()

    async def aclose(self) -> None:
        """Nothing to give back; the machine is gone with the last reference to it."""


def open_sim(url: str, scenario: str, options: Mapping[str, str]) -> SimTransport:
    """Build the machine and lay a line to it. Raises UsageError for what no scenario can be."""
    unknown = set(options) - {*_NUMBERS, *_SIZES, "fault", "layout"}
    if unknown:
        known = ", ".join((*_NUMBERS, *_SIZES, "layout", "fault", "link"))
        raise UsageError(f"{url}: a simulated machine knows no option {', '.join(sorted(unknown))}; it knows {known}")
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        if name in options:
            if not options[name].isascii() or not options[name].isdigit() or len(options[name]) > 12:
                raise UsageError(f"{url}: {name}={options[name]} is not a number")
            numbers[name] = int(options[name])
    sizes = {name: parse_size(options[name]) for name in _SIZES if name in options}
    layout = next((one for one in LAYOUTS if one == options.get("layout", LAYOUTS[0])), None)
    if layout is None:
        raise UsageError(f"{url}: layout={options['layout']} is none; there are {', '.join(LAYOUTS)}")
    if numbers.get("baud") == 0:
        raise UsageError(f"{url}: a line of 0 baud carries nothing")
    try:
        faults = parse_line_faults(options["fault"]) if "fault" in options else None
        running = start(
            scenario or "bugcheck",
            ScenarioOptions(
                processors=numbers.get("processors"),
                memory_size=sizes.get("memory"),
                seed=numbers.get("seed", 1),
                content_size=sizes.get("content"),
                unreadable_pages=numbers.get("unreadable"),
                runs=numbers.get("runs"),
                layout=layout,
            ),
        )
    except SimulationError as error:
        raise UsageError(f"{url}: {error}") from None
    except KdError as error:
        raise UsageError(f"{url}: {error}") from error
    return SimTransport(url, running, numbers.get("baud"), faults)
