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
from kdbridge.analysis.report_text import first_lines
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


async def _at_leisure(options: KernelOptions) -> tuple[Analysis, Analysis]:
    """The same machine's first screen, and all of it, where discovery read everything before."""
    async with take_over(made_to_order(options)) as taken:
        reading = ReadOnce(taken.target)
        analyst = Analyst(reading, await discover(reading))
        return await analyst.first(), await analyst.all()


def _differing(one: Analysis, other: Analysis) -> set[str]:
    mine, theirs = analysis_document(one), analysis_document(other)
    return {name for name in mine if mine[name] != theirs[name]}


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
    assert _differing(whole, again) <= {"source", "bytes_read"}

    # That names are read when they are needed changes nothing of what is said.
    soon_known, all_known = await _at_leisure(options)
    assert list(first_lines(first)) == list(first_lines(soon_known)) and first.bucket == soon_known.bucket
    assert _differing(whole, all_known) <= {"bytes_read"}


@pytest.mark.parametrize("more", [200, 400])
async def test_a_machine_with_as_many_modules_as_real_ones_have(
    more: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    options = KernelOptions(memory_size=4 << 30, gigabyte_page=False, processors=16, more_modules=more)
    first, whole, soon, seconds, given = await _analysed(options, tmp_path / "kept")
    assert first.bucket.startswith("D1_mydrv+") and len(whole.images) == 11 + more
    others = {image.module.name for image in whole.images if image.company != "Microsoft Corporation"}
    assert others == {"mydrv.sys", "labflt.sys"}
    assert soon < _FIRST and seconds < _ALL
    assert max(given.seen.values()) == 1
