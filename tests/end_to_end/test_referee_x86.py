"""32-bit dumps laid out by hand, and those that Microsoft's engine writes of them: we read what the engine prints."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from kdbridge.target import Target
from protocol.address import VirtualAddress
from protocol.arch import X86
from tests.end_to_end.printed import parse_bug_check, parse_modules, parse_registers
from tests.hand_dumps import bitmap, complete, header32, old_small32, summary
from tests.referee import Kdexec, Transcript, parse
from tests.x86_machine import STACK, X86Machine, x86_machine

pytestmark = pytest.mark.referee

_WRITERS: dict[int, Callable[[X86Machine], bytes]] = {
    1: lambda machine: complete(header32(machine, 1), machine.memory),
    2: lambda machine: summary(header32(machine, 2), machine.memory),
    5: lambda machine: bitmap(header32(machine, 5), machine.memory),
}
_ASK = (".bugcheck", "lm", "lmv", "~0s;r", "~1s;r")


def _words(machine: X86Machine) -> list[int]:
    rng = random.Random(1)
    pages = sorted(machine.mapped)
    return [rng.choice(pages) + 4 * rng.randrange(0x400) for _ in range(20)]


async def _assert_seen(transcript: Transcript, target: Target, processors: tuple[int, ...] = (0, 1)) -> None:
    assert (target.bug_check_code, *target.bug_check_parameters) == parse_bug_check(transcript[".bugcheck"].text)
    assert len(target.processors) == 2
    for number in processors:
        context = target.processors[number].context
        assert context is not None
        seen = parse_registers(transcript[f"~{number}s;r"].text)
        seen.pop("at", None)
        mine = {X86.display_names.get(name, name): context[name] for line in X86.display for name in line}
        assert mine == seen and len(seen) == 16
    listed = parse_modules(transcript["lm"].text)
    assert sorted(listed.modules.values()) == [(one.base, one.base + one.size) for one in target.modules]
    assert listed.unloaded == [(one.name, one.start, one.end) for one in target.unloaded_modules]
    details = re.findall(r"Timestamp: .*\(([0-9A-F]{8})\)\s+CheckSum: +([0-9A-F]{8})", transcript["lmv"].text)
    assert [(int(a, 16), int(b, 16)) for a, b in details] == [
        (one.time_date_stamp, one.check_sum) for one in target.modules
    ]


@pytest.mark.parametrize(("pae", "kind"), [(True, 1), (False, 1), (True, 2), (False, 5)])
async def test_the_engine_sees_in_a_32_bit_dump_what_we_do(
    kdexec: Kdexec, tmp_path: Path, pae: bool, kind: int
) -> None:
    machine = x86_machine(pae=pae)
    path, small, whole = tmp_path / "made.dmp", tmp_path / "small.dmp", tmp_path / "whole.dmp"
    path.write_bytes(_WRITERS[kind](machine))
    dumps = [f".dump /o /{way} Z:{str(to).replace('/', chr(92))}" for way, to in (("m", small), ("f", whole))]
    places = _words(machine)
    words = [f"dd {place:08x} L1" for place in places]
    transcript = parse(kdexec("-z", path, *_ASK, *dict.fromkeys(words), *(dumps if kind == 1 else ())))
    with DumpFile(path) as dump:
        assert dump.layout.shortcomings == ()
        await _assert_seen(transcript, await discover(dump))
        for place, command in zip(places, words, strict=True):
            value = int(transcript[command].text.split()[1], 16)
            assert await dump.virtual.read(VirtualAddress(place), 4) == value.to_bytes(4, "little"), command
    if kind != 1:
        return
    with DumpFile(whole) as dump:
        await _assert_seen(transcript, await discover(dump))
        assert {frame: dump.page(frame) for frame in machine.memory} == machine.memory
    # The engine's own small dump: what it prints of that is what we find in it.
    transcript = parse(kdexec("-z", small, *_ASK))
    with DumpFile(small) as dump:
        assert dump.small is not None and dump.layout.shortcomings == ()
        target = await discover(dump)
        assert dump.small.layout.unloaded
        for block in dump.small.layout.blocks:
            data = await dump.virtual.read(VirtualAddress(block.address), block.size)
            assert data == machine.get(block.address, block.size), hex(block.address)
        assert await dump.virtual.read(VirtualAddress(STACK + 0xD00), 0x300) == machine.get(STACK + 0xD00, 0x300)
    # It kept one CONTEXT of two, and says so of the other, as we do.
    await _assert_seen(transcript, target, processors=(0,))
    assert "GetContextState failed" in transcript["~1s;r"].text
    assert target.processors[1].context is None


async def test_a_small_dump_from_before_there_were_blocks(kdexec: Kdexec, tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    path = tmp_path / "old.dmp"
    path.write_bytes(old_small32(machine))
    stack = f"dd {STACK + 0xD00:08x} L4"
    transcript = parse(kdexec("-z", path, *_ASK, stack))
    with DumpFile(path) as dump:
        assert dump.layout.shortcomings == ()
        target = await discover(dump)
        await _assert_seen(transcript, target, processors=(0,))
        assert "single processor kernel triage dump" in transcript["~1s;r"].text
        assert target.processors[1].context is None
        words = [int(word, 16).to_bytes(4, "little") for word in transcript[stack].text.split()[1:]]
        assert await dump.virtual.read(VirtualAddress(STACK + 0xD00), 16) == b"".join(words)
