"""Every type of dump, 32 and 64 bits, laid out by hand: each page equals, ours and what other readers find."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.discovery.processes import find_processes
from kdbridge.errors import MemoryFault
from kdbridge.memory.files import DumpFile
from protocol.address import PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import ARM64, X86, X86_WITHOUT_PAE
from tests.arm64_memory import ARM64_BLOCK, ARM64_PAGES, arm64_header, arm64_memory
from tests.dumps import made_up_memory
from tests.hand_dumps import bitmap, complete, header32, header64, old_small32, ranges, summary
from tests.oracles import kdmp, volatility
from tests.x86_machine import BUG_CHECK, CONTEXTS, LAB, MODULES, NT, PRCBS, STACK, UNLOADED, X86Machine, x86_machine

_RUNS = [(0x10, 3), (0x1AD, 0x20), (0x3000, 5)]
_WIDE: dict[int, Callable[[dict[int, bytes]], bytes]] = {
    1: lambda memory: complete(header64(1, _RUNS), memory),
    2: lambda memory: summary(header64(2, _RUNS), memory),
    5: lambda memory: bitmap(header64(5, _RUNS), memory),
    6: lambda memory: bitmap(header64(6, _RUNS), memory, b"SDMP"),
    8: lambda memory: ranges(header64(8, _RUNS), memory, 8),
    9: lambda memory: ranges(header64(9, _RUNS), memory, 9),
    0xA: lambda memory: ranges(header64(0xA, _RUNS), memory, 0xA),
}
_NARROW: dict[int, Callable[[X86Machine], bytes]] = {
    1: lambda machine: complete(header32(machine, 1), machine.memory),
    2: lambda machine: summary(header32(machine, 2), machine.memory),
    5: lambda machine: bitmap(header32(machine, 5), machine.memory),
    6: lambda machine: bitmap(header32(machine, 6), machine.memory, b"SDMP"),
}


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "made.dmp"
    path.write_bytes(data)
    return path


async def _assert_pages(dump: DumpFile, memory: dict[int, bytes]) -> None:
    assert dump.stored == dump.held == PageRuns.from_pages(memory)
    for frame in range(max(memory) + 0x40):
        assert dump.page(frame) == memory.get(frame), hex(frame)
    assert dump.physical is not None
    for run in PageRuns.from_pages(memory):
        data = await dump.physical.read(PhysicalAddress(run.base_page << 12), run.page_count << 12)
        assert data == b"".join(memory[frame] for frame in range(run.base_page, run.end_page)) == dump.read_run(run)


@pytest.mark.parametrize("kind", _WIDE)
async def test_each_page_of_a_64_bit_dump(kind: int, tmp_path: Path) -> None:
    memory = made_up_memory(PageRuns(PageRun(*run) for run in _RUNS), seed=kind)
    path = _written(tmp_path, _WIDE[kind](memory))
    with DumpFile(path) as dump:
        assert dump.layout.shortcomings == ()
        assert dump.layout.kind == kind
        await _assert_pages(dump, memory)
    if kind != 2:  # no other reader here knows that one
        with kdmp.open_oracle(path) as oracle:
            assert {frame: oracle.read_page(frame) for frame in oracle.pages()} == memory
    if kind in (1, 5):
        with volatility.open_oracle(path) as layer:
            assert {frame: layer.read_page(frame) for frame in layer.pages()} == memory


@pytest.mark.parametrize("name", ["full_type1_3runs", "full_type1_42runs_comment", "full_type1_deadfeed"])
async def test_each_page_that_the_engine_of_windbg_wrote(shared: Path, name: str) -> None:
    path = shared / f"data/dumps/dbgeng-written/{name}.dmp"
    marked = b"\xed\xfe\xad\xde" * 0x400  # dump-formats 0: what could not be read
    with DumpFile(path) as dump, volatility.open_oracle(path) as layer:
        pages = {frame: layer.read_page(frame) for frame in layer.pages()}
        assert dump.layout.shortcomings == () and dump.stored == PageRuns.from_pages(pages)
        assert {frame: dump.page(frame) for frame in pages} == {
            frame: None if data == marked else data for frame, data in pages.items()
        }
        assert dump.unreadable == PageRuns.from_pages(frame for frame, data in pages.items() if data == marked)
        assert bool(dump.unreadable) is (name == "full_type1_deadfeed")


@pytest.mark.parametrize("pae", [True, False], ids=["PAE", "no PAE"])
@pytest.mark.parametrize("kind", _NARROW)
async def test_a_32_bit_machine_is_found_in_its_dump(kind: int, pae: bool, tmp_path: Path) -> None:
    machine = x86_machine(pae=pae)
    memory = {frame: bytes(page) for frame, page in machine.memory.items()}
    path = _written(tmp_path, _NARROW[kind](machine))
    with DumpFile(path) as dump:
        assert dump.layout.shortcomings == ()
        assert dump.architecture is (X86 if pae else X86_WITHOUT_PAE)
        await _assert_pages(dump, memory)
        for page in machine.mapped:
            assert await dump.virtual.read(VirtualAddress(page), 0x1000) == machine.get(page, 0x1000), hex(page)
        # A large page maps physical memory from 0 on; what lies there is in the dump from frame 10 on.
        assert (
            await dump.virtual.read(VirtualAddress(0x81010010), 0x2000)
            == (memory[0x10] + memory[0x11])[0x10:] + memory[0x12][:0x10]
        )
        # An address may come sign-extended; nothing lies at its lower half alone.
        assert await dump.virtual.read(VirtualAddress(0xFFFFFFFF_80000000 | NT), 2) == b"MZ"
        for nowhere in (0x1_80500000, 0x7FFE0000, 0x80400000):
            with pytest.raises(MemoryFault):
                await dump.virtual.read(VirtualAddress(nowhere), 1)
        target = await discover(dump)
        assert [finding.text for finding in target.shortcomings] == []
        processes = await find_processes(dump, target)
    assert [(one.process_id, one.directory_table_base) for one in processes] == [(4, machine.root)]
    assert (target.version.kern_base, target.directory_table_base) == (NT, machine.root)
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK
    assert target.runs == PageRuns.from_pages(memory)
    assert target.build_lab == LAB.decode()
    assert [(p.prcb, p.context_address) for p in target.processors] == list(zip(PRCBS, CONTEXTS, strict=True))
    for processor in target.processors:
        assert processor.context is not None and processor.special_registers is not None
        assert processor.context.raw == machine.context(processor.number)
        assert processor.special_registers["cr3"] == machine.root
    assert [(one.path, one.base, one.size, one.time_date_stamp, one.check_sum) for one in target.modules] == [
        (path, base, size, stamp, check) for path, _, base, size, stamp, check in MODULES
    ]
    assert [(one.name, one.start, one.end, one.time) for one in target.unloaded_modules] == [UNLOADED]
    shared = target.shared_data
    assert shared is not None and shared.system_root == "C:\\Windows"
    assert (shared.system_time, shared.interrupt_time) == (0x01CC1111_22223333, 36_000_000_000)


@pytest.mark.parametrize("kind", [1, 5])
def test_volatility_finds_the_same_pages_in_a_32_bit_dump(kind: int, tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    path = _written(tmp_path, _NARROW[kind](machine))
    with DumpFile(path) as dump, volatility.open_oracle(path) as layer:
        assert {frame: layer.read_page(frame) for frame in layer.pages()} == {
            frame: dump.page(frame) for frame in dump.held.pages()
        }


@pytest.mark.parametrize("pae", [True, False], ids=["PAE", "no PAE"])
async def test_a_header_that_does_not_tell_pae_is_helped_by_the_tables(pae: bool, tmp_path: Path) -> None:
    machine = x86_machine(pae=pae)
    if pae:  # where the four pointers begin a page, only what they hold tells
        machine.memory[machine.root >> 12][:0x20] = machine.memory[machine.root >> 12][0x1A0:0x1C0]
        machine.root &= ~0xFFF
    data = bytearray(_NARROW[1](machine))
    data[0x5C] = ord("P")
    with DumpFile(_written(tmp_path, bytes(data))) as dump:
        assert dump.architecture is (X86 if pae else X86_WITHOUT_PAE)
        assert await dump.virtual.read(VirtualAddress(NT), 2) == b"MZ"


async def test_page_tables_of_arm64_lead_to_pages_and_blocks(tmp_path: Path) -> None:
    memory = arm64_memory()
    with DumpFile(_written(tmp_path, complete(arm64_header(1, memory), memory))) as dump:
        assert dump.architecture is ARM64 and dump.layout.shortcomings == ()
        for address, frame in ARM64_PAGES.items():
            assert await dump.virtual.read(VirtualAddress(address), 0x1000) == memory[frame], hex(address)
        start, frame = ARM64_BLOCK
        block = b"".join(memory[frame + at] for at in range(4))
        assert await dump.virtual.read(VirtualAddress(start + 0x10), 0x3FF0) == block[0x10:]
        with pytest.raises(MemoryFault) as caught:
            await dump.virtual.read(VirtualAddress(start), 0x4001)
        assert caught.value.done == 0x4000
        # No page is mapped behind the two, nor is an address without its sign one.
        for nowhere in (max(ARM64_PAGES) + 0x1000, 0x0000F803_F3A2A000):
            with pytest.raises(MemoryFault):
                await dump.virtual.read(VirtualAddress(nowhere), 1)


async def test_windows_xp_whose_kdbg_does_not_say_where_registers_lie(tmp_path: Path) -> None:
    machine = x86_machine(pae=False)
    machine.put(NT + 0x4214, struct.pack("<I", 0x290))  # kd-protocol 6.2: XP's size
    for number, prcb in enumerate(PRCBS):
        special = machine.get(prcb + 0x2E4, 0x54)
        machine.put(prcb + 0x1C, machine.context(number) + special)  # 5.5: ProcessorState at 1C
    with DumpFile(_written(tmp_path, _NARROW[1](machine))) as dump:
        for number in range(2):
            assert (await dump.context(number)).raw == machine.context(number)
            assert (await dump.special_registers(number))["cr3"] == machine.root


async def test_a_small_dump_of_old_has_one_processor_a_stack_and_a_page(tmp_path: Path) -> None:
    machine = x86_machine(pae=True)
    with DumpFile(_written(tmp_path, old_small32(machine))) as dump:
        assert dump.physical is None and dump.layout.shortcomings == ()
        for place, size in ((STACK + 0xD00, 0x300), (NT + 0x1000, 0x1000), (NT + 0x4200, 0x340)):
            assert await dump.virtual.read(VirtualAddress(place), size) == machine.get(place, size), hex(place)
        target = await discover(dump)
    first, second = target.processors
    assert first.context is not None and first.context.raw == machine.context(0)
    assert second.context is None
    assert [(one.path, one.base, one.size, one.time_date_stamp, one.check_sum) for one in target.modules] == [
        (path, base, size, stamp, check) for path, _, base, size, stamp, check in MODULES
    ]
    assert [(one.name, one.start, one.end) for one in target.unloaded_modules] == [UNLOADED[:3]]
    assert (target.bug_check_code, *target.bug_check_parameters) == BUG_CHECK
