"""From the moment at which a line is there again to the next page that comes home: less than three seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.memory.files import DumpFile
from kdbridge.transports.sim import SimTransport
from simulator.scenarios import ScenarioOptions, start
from tests.kdbridge.cli.calling import call

pytestmark = pytest.mark.slow

_OUTAGES = [(40.0, 41.0), (60.0, 90.0), (130.0, 1130.0)]
"""When the line is cut, and when it is there again, in seconds of the dump."""


class _Cut(SimTransport):
    """A line of 115200 baud that is gone at times."""

    async def receive(self) -> bytes:
        now = trio.current_time()
        until = min((cut for cut, _ in _OUTAGES if cut > now), default=float("inf"))
        with trio.move_on_at(until):
            return await super().receive()
        raise TransportLostError("the cable is out")


def test_a_line_that_is_back_brings_the_next_page_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = start("bugcheck", ScenarioOptions(memory_size=16 << 20, processors=2))
    came: list[float] = []

    async def open_cut(address: str) -> _Cut:
        if any(cut <= trio.current_time() < back for cut, back in _OUTAGES):
            raise TransportOpenError("there is no port")
        return _Cut(address, machine, 115200)

    monkeypatch.setattr("kdbridge.opening.open_transport", open_cut)
    out = tmp_path / "out.dmp"
    ended = call(
        "dump", "tcp:127.0.0.1:9", out, "--kind", "kernel", on_page=lambda count: came.append(trio.current_time())
    )
    assert ended.code == 0, ended.err
    assert ended.err.count("there it is again") == len(_OUTAGES)
    waits = [min(at for at in came if at > back) - back for _, back in _OUTAGES]
    assert max(waits) < 3.0, waits
    with DumpFile(out) as dump:
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != machine.pristine.read_page(pfn)]
    assert len(wrong) <= 2
