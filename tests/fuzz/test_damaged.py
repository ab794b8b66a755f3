"""What is damaged was good before, and its damage leads where stacks and lists are walked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.names import Names
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.source import Source
from tests.fuzz.damaged import DAMAGED, DamagedFiles, LyingMachines
from tests.fuzz.machines import Laid, LaidSource, LyingMemory, arm64, narrow

_TARGETS = {target.name: target for target in DAMAGED}


async def _is_whole(source: Source, small: bool = False) -> None:
    analysis = await Analyst(once := ReadOnce(source), await discover(once)).first()
    target, stack = analysis.target, analysis.stack
    assert target.kdbg is not None and len(target.modules) > 1 and target.bug_check_code
    assert all(one.context is not None for one in target.processors[: 1 if small else None])
    assert stack is not None and len(stack.frames) >= 7
    assert analysis.suspect is not None and analysis.suspect.place is not None
    assert analysis.suspect.place.module == "mydrv"


@pytest.mark.parametrize("name", ["analysis-wide", "analysis-narrow", "analysis-arm64"])
def test_the_files_are_good_ones(name: str, tmp_path: Path) -> None:
    files = _TARGETS[name].start(tmp_path)
    assert isinstance(files, DamagedFiles)
    kinds = []
    for path in files.paths:
        with DumpFile(path) as dump:
            assert dump.layout.shortcomings == ()
            kinds.append((dump.layout.kind, dump.architecture.paging.shifts))
            trio.run(_is_whole, dump, dump.small is not None)
    assert len(kinds) == len(set(kinds)) == {"analysis-wide": 7, "analysis-narrow": 8, "analysis-arm64": 1}[name]


@pytest.mark.parametrize("machine", [narrow(True), narrow(False), arm64()], ids=["PAE", "no PAE", "ARM64"])
async def test_the_memory_is_good(machine: Laid) -> None:
    await _is_whole(LaidSource(machine, LyingMemory(machine.pages, b"", machine.architecture.pointer_size)))


@pytest.mark.parametrize("name", ["analysis-x86-memory", "analysis-arm64-memory"])
async def test_lying_memory_leads_frame_pointers_everywhere(name: str, tmp_path: Path) -> None:
    machines = _TARGETS[name].start(tmp_path)
    assert isinstance(machines, LyingMachines)
    targets = [await discover(machines.source(bytes([number]))) for number in range(len(machines.machines))]
    ends: set[str] = set()
    for seed in range(300):
        data = machines.make(random.Random(seed))
        source, target = machines.source(data), targets[data[0]]
        for one in target.processors:
            assert one.context is not None
            stack = await walk(source, target, Names(target.modules), one.context, processor=one.number)
            ends |= {
                words
                for words in ("comes back", "cannot be read", "user mode", "return address of 0")
                if words in stack.ended
            }
    assert ends == {"comes back", "cannot be read", "user mode", "return address of 0"}
