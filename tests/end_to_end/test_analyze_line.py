"""An analysis over a slow line: the first screen soon, all of it in two minutes, and no byte asked for twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import trio
import trio.testing

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.model import Analysis
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.report_json import analysis_document
from kdbridge.cli.analysing import Keeper
from kdbridge.discovery import discover
from kdbridge.snapshot import Snapshot
from protocol.manipulate import Manipulate
from simulator.crashes import CRASHES
from simulator.kernel import KernelOptions
from simulator.machine import Answer, Machine
from simulator.options import BugCheck, as_layout
from tests.kdbridge.taken import made_to_order, take_over

pytestmark = pytest.mark.slow

_BAUD = 115200
_FIRST, _ALL = 15.0, 120.0
"""Seconds that a person waits at most for the first screen, and for all of it."""


@dataclass
class _Given:
    """Memory that the target gave by virtual address."""

    bytes: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    """By address, in bytes."""


@contextmanager
def _watched() -> Iterator[_Given]:
    given = _Given()
    answer = Machine.answer

    def watching(machine: Machine, request: Manipulate) -> Answer:
        reply = answer(machine, request)
        if request.name == "ReadVirtualMemory" and reply.reply is not None:
            address, size = request.fields()["address"], len(reply.reply.data)
            given.bytes += size
            given.seen.update(range(address, address + size))
        return reply

    with mock.patch.object(Machine, "answer", watching):
        yield given


async def _analysed(options: KernelOptions, folder: Path) -> tuple[Analysis, Analysis, float, float, _Given]:
    way = made_to_order(options, baud=_BAUD)
    keeper = Keeper(folder)
    began = trio.current_time()
    with _watched() as given:
        async with take_over(way) as taken:
            reading = ReadOnce(taken.target, keeper.keep)
            target = await discover(reading, first_look=True)
            keeper.begin(target, b"")
            analyst = Analyst(reading, target)
            first = await analyst.first()
            seconds = trio.current_time() - began
            target = await discover(reading)
            keeper.know(target)
            analyst.know(target)
            whole = await analyst.all()
            keeper.close()
    return first, whole, seconds, trio.current_time() - began, given


@pytest.mark.parametrize("code", CRASHES, ids=lambda code: f"{code:02x}")
async def test_the_first_screen_comes_soon_and_nothing_is_read_twice(
    code: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    options = KernelOptions(memory_size=4 << 30, gigabyte_page=False, processors=4, bug_check=BugCheck(code))
    if code == 0xD1:
        options = as_layout(options, "server")
    first, whole, soon, seconds, given = await _analysed(options, tmp_path / "kept")
    assert first.suspect is not None and first.suspect.module == "mydrv"
    assert first.bucket == whole.bucket and first.stack is not None and first.stack.frames
    assert soon < _FIRST and seconds < _ALL
    assert max(given.seen.values()) == 1
    assert whole.bytes_read == given.bytes

    # What was read is left behind: without the target it says the same.
    with Snapshot.open(tmp_path / "kept") as snapshot:
        again = await Analyst(ReadOnce(snapshot), snapshot.target).all()
    mine, theirs = analysis_document(whole), analysis_document(again)
    differing = {name for name in mine if mine[name] != theirs[name]}
    assert differing <= {"source", "bytes_read"}


async def test_a_machine_with_as_many_modules_as_real_ones_have(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    options = KernelOptions(memory_size=4 << 30, gigabyte_page=False, processors=16, more_modules=200)
    first, whole, soon, seconds, given = await _analysed(options, tmp_path / "kept")
    assert first.bucket.startswith("D1_mydrv+") and len(whole.images) == 211
    others = {image.module.name for image in whole.images if image.company != "Microsoft Corporation"}
    assert others == {"mydrv.sys", "labflt.sys"}
    assert soon < _FIRST and seconds < _ALL
    assert max(given.seen.values()) == 1
