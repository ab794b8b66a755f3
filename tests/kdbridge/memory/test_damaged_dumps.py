"""Dumps that are damaged or cut off: what is left is found, what is not is named, and nothing else is raised."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.errors import FileError, MemoryFault, TargetRefusedError
from kdbridge.memory.files import DumpFile
from kdbridge.target import Target
from protocol.address import PageRuns, VirtualAddress
from tests.dumps import rendered
from tests.hand_dumps import bitmap, complete, header32, old_small32, summary
from tests.simulator.dumped import dump_plan
from tests.simulator.small_dumped import small_dumped, small_machine
from tests.x86_machine import BUG_CHECK, KDBG, MODULES, NT, PRCBS, X86Machine, x86_machine


def _open(folder: Path, data: bytes) -> DumpFile:
    path = folder / "made.dmp"
    path.write_bytes(data)
    return DumpFile(path)


def _lacking(target: Target) -> set[str]:
    return {finding.step for finding in target.shortcomings}


@pytest.mark.parametrize("kind", [1, 2, 5])
async def test_of_a_dump_that_was_cut_off_the_pages_before_are_read(kind: int, tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    write = {1: complete, 2: summary, 5: bitmap}[kind]
    data = write(header32(machine, kind), machine.memory)
    kept = sorted(machine.memory)[:-30]
    with _open(tmp_path, data[: -30 * 0x1000 + 0x123]) as dump:
        assert "cut off" in dump.layout.shortcomings[0] and "30 of 97 pages" in dump.layout.shortcomings[0]
        assert dump.held == PageRuns.from_pages(kept)
        for frame in kept:
            assert dump.page(frame) == machine.memory[frame]
        target = await discover(dump)
    # The header has it, whatever became of the pages.
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK


@pytest.mark.parametrize("root", [0, 0x7000])
async def test_without_page_tables_the_header_still_tells(root: int, tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    data = bytearray(complete(header32(machine, 1), machine.memory))
    struct.pack_into("<I", data, 0x10, root)
    with _open(tmp_path, bytes(data)) as dump:
        (shortcoming,) = dump.layout.shortcomings
        assert "memory cannot be read by virtual address" in shortcoming
        with pytest.raises(MemoryFault):
            await dump.virtual.read(VirtualAddress(NT), 1)
        target = await discover(dump)
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK
    first, second = target.processors
    assert first.context is not None and first.context.raw == machine.context(0) and second.context is None
    assert target.runs == PageRuns.from_pages(machine.memory)
    assert target.shared_data is not None and target.shared_data.system_time == 0x01CC1111_22223333
    assert {"KDBG", "registers", "modules"} <= _lacking(target)


@pytest.mark.parametrize(("kind", "damage"), [(1, "no runs"), (2, "cut"), (5, "cut")])
async def test_where_no_table_can_be_used_the_header_still_tells(kind: int, damage: str, tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    write = {1: complete, 2: summary, 5: bitmap}[kind]
    data = bytearray(write(header32(machine, kind), machine.memory))
    if damage == "cut":
        del data[0x1042:]
    else:
        struct.pack_into("<I", data, 0x64, 0)
    with _open(tmp_path, bytes(data)) as dump:
        assert dump.layout.shortcomings[0].startswith("no page of memory can be found in it: ")
        assert not dump.held and not dump.unreadable and dump.page(1) is None
        target = await discover(dump)
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK
    first = target.processors[0]
    assert first.context is not None and first.context.raw == machine.context(0)


async def test_a_run_that_was_never_set_costs_no_page_of_the_runs_before(tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    data = bytearray(complete(header32(machine, 1), machine.memory))
    (count,) = struct.unpack_from("<I", data, 0x64)
    struct.pack_into("<I", data, 0x64, count + 1)
    data[0x6C + 8 * count : 0x74 + 8 * count] = b"PAGE" * 2
    with _open(tmp_path, bytes(data)) as dump:
        assert dump.layout.shortcomings[0].startswith(f"the header's run {count} was never set")
        for frame, page in machine.memory.items():
            assert dump.page(frame) == page
        target = await discover(dump)
    assert [one.base for one in target.modules] and _lacking(target) == set()


def _zero(address: int, size: int, machine: X86Machine) -> None:
    machine.put(address, bytes(size))


@pytest.mark.parametrize(
    ("address", "size", "lacking"),
    [
        (KDBG + 0x10, 4, {"KDBG", "processors", "registers", "build lab", "unloaded modules"}),
        (NT + 0x4720, 8, {"processors", "registers"}),
        (PRCBS[1] + 0x3618, 4, {"registers"}),
        (NT + 0x4700, 4, {"modules"}),
        (NT + 0x4730, 4, set()),
        (NT + 0x47C0, 20, set()),
    ],
    ids=["KDBG", "KiProcessorBlock", "CONTEXT", "modules", "runs", "bug check"],
)
async def test_each_missing_piece_costs_no_more_than_itself(
    address: int, size: int, lacking: set[str], tmp_path: Path
) -> None:
    machine = x86_machine(pae=False)
    _zero(address, size, machine)
    with _open(tmp_path, complete(header32(machine, 1), machine.memory)) as dump:
        target = await discover(dump)
    assert _lacking(target) == lacking
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK
    assert target.runs == PageRuns.from_pages(machine.memory)
    assert target.processors[0].context is not None
    assert target.processors[0].context.raw == machine.context(0)
    assert len(target.modules) == (0 if "modules" in lacking else len(MODULES))


async def test_a_kdbg_that_the_header_does_not_name_is_searched_for(tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    header = header32(machine, 1)
    struct.pack_into("<I", header, 0x60, 0)
    with _open(tmp_path, complete(header, machine.memory)) as dump:
        target = await discover(dump)
        assert target.kdbg is not None and target.kdbg.address == KDBG
        assert target.version.kern_base == NT
        for processor in target.processors:
            assert processor.context is not None
            assert processor.context.raw == machine.context(processor.number)


async def test_pages_that_are_gone_from_a_bitmap_hide_no_other_processor(tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    gone = machine.mapped[(PRCBS[0] + 0x3618) & ~0xFFF] >> 12
    memory = {frame: bytes(page) for frame, page in machine.memory.items() if frame != gone}
    with _open(tmp_path, bitmap(header32(machine, 6), memory, b"SDMP")) as dump:
        target = await discover(dump)
    first, second = target.processors
    assert first.context is not None, "the header's"
    assert second.context is not None and second.context.raw == machine.context(1)
    assert any("are the header's" in finding.text for finding in target.shortcomings)


def _damaged(data: bytes, seed: int) -> bytes:
    """Some words of the first pages and of the rest are others now, and the file may end anywhere."""
    rng = random.Random(seed)
    raw = bytearray(data)
    for _ in range(rng.randrange(1, 24)):
        at = rng.randrange(8, 0x2200) if rng.random() < 0.5 else rng.randrange(8, len(raw) - 8)
        value = rng.choice((0, 1, 0x45474150, 0xFFFFFFFF, 0x80000000, rng.getrandbits(32), at))
        struct.pack_into("<I", raw, at, value)
    return bytes(raw[: rng.randrange(0x1000, len(raw))] if rng.random() < 0.3 else raw)


async def test_whatever_a_file_holds_only_named_errors_come(tmp_path: Path) -> None:
    narrow, wide = x86_machine(pae=True), small_machine(processors=2)
    files = [
        complete(header32(narrow, 1), narrow.memory),
        summary(header32(narrow, 2), narrow.memory),
        bitmap(header32(narrow, 5), narrow.memory),
        old_small32(narrow),
        small_dumped(wide).data,
    ]
    outcomes: dict[str, int] = {}
    for seed in range(150):
        data = _damaged(files[seed % len(files)], seed)
        try:
            with _open(tmp_path, data) as dump:
                await discover(dump)
            outcome = "read"
        except (FileError, TargetRefusedError) as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["read"] > 75, outcomes


@pytest.mark.slow
async def test_a_machine_of_64_bits_is_found_in_every_type_that_we_write(tmp_path: Path) -> None:
    kernel = small_machine(memory_size=16 << 20)
    for kind in (1, 5, 6):
        plan, memory = dump_plan(kernel, kind)
        with _open(tmp_path, rendered(plan, memory)) as dump:
            assert dump.layout.shortcomings == ()
            for frame in memory:
                assert dump.page(frame) == memory[frame] or frame in kernel.image.unreadable
            target = await discover(dump)
        assert [one.base for one in target.modules] == [one.base for one in kernel.modules]
        for found, true in zip(target.processors, kernel.processors, strict=True):
            assert found.context is not None and found.context.raw == true.context()
