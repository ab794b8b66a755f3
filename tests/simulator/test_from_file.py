"""A crash goes back on the line: what the file says is what the machine answers, and what it cannot say is refused."""

from __future__ import annotations

import random
import struct
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import encode_header, plan_complete
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.layout import ReadFile
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from protocol.state_change import ExceptionChange, StateChange
from simulator import from_file
from simulator.errors import SimulationError
from simulator.from_file import FileMachine, machine_of_dump, machine_of_raw
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.machine import Machine
from tests.dumps import HEADER, reader, rendered
from tests.oracles import volatility
from tests.raw import A, ack
from tests.recording import Packet, split
from tests.simulator.dumped import dump_plan

_BUILDS = {"nt52": 3790, "windows 7": 7601, "windows 8.1": 9600, "windows 10": 19041, "windows 11": 22621}


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(seed=3, processors=4, memory_size=16 << 20, unreadable_pages=4))


def _of_file(path: Path) -> tuple[ReadFile, int]:
    return reader(path.read_bytes()), path.stat().st_size


def _serve(data: bytes) -> FileMachine:
    return machine_of_dump(reader(data), len(data))


def _ask(machine: Machine, api: ApiNumber, processor: int = 0, **fields: int) -> Manipulate:
    reply = machine.answer(Manipulate.request(api, processor=processor, data=b"", **fields)).reply
    assert reply is not None
    return reply


def _said(machine: FileMachine) -> list[Packet]:
    packets, between = split(b"".join(machine.target.data_to_send()))
    assert between == []
    return packets


@pytest.mark.parametrize("kind", [1, 5, 6])
def test_every_page_of_a_dump_is_answered(kernel: SimulatedKernel, kind: int) -> None:
    plan, memory = dump_plan(kernel, kind)
    machine = _serve(rendered(plan, memory)).target.machine
    machine.behaviour = replace(machine.behaviour, largest_transfer=PAGE_SIZE, refuse_page_zero=False)
    for pfn in range(kernel.image.runs.end_page + 1):
        reply = _ask(machine, ApiNumber.READ_PHYSICAL_MEMORY, address=pfn << PAGE_SHIFT, transfer_count=PAGE_SIZE)
        page = memory.get(pfn, UNREADABLE_PAGE)
        assert reply.data == (b"" if page == UNREADABLE_PAGE else page), pfn


def test_a_torn_set_of_pages_is_looked_up_and_not_kept(
    kernel: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, memory = dump_plan(kernel, 6)
    data = rendered(plan, memory)
    assert len(plan.pages) > 4
    monkeypatch.setattr(from_file, "_MOST_RUNS", 4)
    served = _serve(data)
    assert f", {plan.pages.page_count} pages" in served.text
    held = served.target.machine.memory
    assert len(held.runs) == 1
    for pfn in range(kernel.image.runs.end_page + 1):
        assert held.read_page(pfn) == memory.get(pfn), pfn
        assert held.write(pfn << PAGE_SHIFT, b"written") is (pfn in memory), pfn
    assert held.read_page(1 << 39) is None


@pytest.mark.parametrize("kind", [1, 5])
def test_deadfeed_is_a_mark_in_a_complete_dump_only(kernel: SimulatedKernel, kind: int) -> None:
    plan, memory = dump_plan(kernel, kind)
    pfn = next(iter(kernel.content.pages()))
    assert memory[pfn] != UNREADABLE_PAGE
    machine = _serve(rendered(plan, {**memory, pfn: UNREADABLE_PAGE})).target.machine
    # In a bitmap dump pages that could not be read are left out: there it is what memory held.
    assert machine.memory.read_page(pfn) == (None if kind == 1 else UNREADABLE_PAGE)


@pytest.mark.parametrize("build", _BUILDS.values(), ids=_BUILDS)
def test_processors_stand_as_they_stood(build: int) -> None:
    kernel = build_kernel(KernelOptions(build=build, processors=3, stopped_processor=1, memory_size=16 << 20))
    machine = _serve(rendered(*dump_plan(kernel, 1))).target.machine
    assert machine.current == 1
    assert len(machine.processors) == 3
    size = kernel.profile.prcb.special_registers_size
    for ours, true in zip(machine.processors, kernel.processors, strict=True):
        assert _ask(machine, ApiNumber.GET_CONTEXT, ours.number).data == true.context()
        special = _ask(machine, ApiNumber.READ_CONTROL_SPACE, ours.number, address=2, transfer_count=0x400)
        assert special.data[:size] == true.special_registers(size)
        assert (ours.pcr, ours.prcb, ours.thread) == (true.pcr, true.prcb, true.thread)
    for true in kernel.processors:
        code = machine.read_virtual(true.context_values["rip"], 8)
        expected = kernel.read_virtual(true.context_values["rip"], 8, true.special_values["cr3"])
        assert code == (expected if true.context_values["seg_cs"] == 0x10 else code)


def test_the_version_packet_leads_to_the_kernel(kernel: SimulatedKernel) -> None:
    served = _serve(rendered(*dump_plan(kernel, 6)))
    told = _ask(served.target.machine, ApiNumber.GET_VERSION)
    true = kernel.version
    fields = told.fields()
    assert fields["kern_base"] == true.kern_base
    assert fields["ps_loaded_module_list"] == true.ps_loaded_module_list
    assert fields["debugger_data_list"] == true.debugger_data_list
    assert (fields["minor_version"], fields["machine_type"], fields["protocol_version"]) == (19041, 0x8664, 6)
    assert "build 19041" in served.text and "4 processors" in served.text


def test_it_reports_and_never_runs_away(kernel: SimulatedKernel) -> None:
    served = _serve(rendered(*dump_plan(kernel, 1)))
    target = served.target
    target.handle_timeout(0.0)
    (packet,) = _said(served)
    assert packet.packet_id == A | 0x800
    change = StateChange.decode(packet.payload)
    stopped = kernel.processors[kernel.stopped_processor]
    assert change.program_counter == stopped.context_values["rip"]
    assert isinstance(change.event, ExceptionChange) and change.event.code == 0x80000003
    target.receive_data(ack(A), 0.0)
    go = Manipulate.request(ApiNumber.CONTINUE, continue_status=0x10002)
    target.receive_data(encode_data(2, A, go.encode()), 0.0)
    assert [packet.packet_type for packet in _said(served)] == [4, 7]


def test_a_restart_brings_the_crash_back_and_what_was_written_is_gone(kernel: SimulatedKernel) -> None:
    served = _serve(rendered(*dump_plan(kernel, 1)))
    target = served.target
    place = kernel.processors[0].stack_limit
    before = target.machine.read_virtual(place, 16)
    target.machine.write_virtual(place, b"patched by debug")
    target.machine.processors[0].set(rip=0x1234)
    assert target.restart is not None
    target.machine, target.script = target.restart()
    assert target.machine.read_virtual(place, 16) == before != b"patched by debug"
    assert target.machine.processors[0].context == kernel.processors[0].context()
    assert isinstance(target.script, deque) and len(target.script) == 1


@pytest.mark.parametrize("name", ["full_type1_3runs", "full_type1_42runs_comment", "full_type1_deadfeed"])
def test_what_microsoft_s_engine_wrote_is_answered_as_another_reader_reads_it(shared: Path, name: str) -> None:
    path = shared / f"data/dumps/dbgeng-written/{name}.dmp"
    served = machine_of_dump(*_of_file(path))
    machine, data = served.target.machine, path.read_bytes()
    with volatility.open_oracle(path) as oracle:
        pages = list(oracle.pages())
        assert pages and machine.memory.runs == PageRuns.from_pages(pages)
        for pfn in pages:
            page = oracle.read_page(pfn)
            assert machine.memory.read_page(pfn) == (None if page == UNREADABLE_PAGE else page)
        assert machine.processors[0].directory_table_base == oracle.header.DirectoryTableBase
    # Its CONTEXT stands at 348 of the header, and Rip at F8 of that (dump-formats 2.1, kd-protocol 5.2).
    assert machine.processors[0].program_counter == int.from_bytes(data[0x440:0x448], "little")
    assert (name == "full_type1_deadfeed") == any(machine.memory.read_page(pfn) is None for pfn in pages)


@pytest.mark.parametrize("name", ["dbgeng-written/triage_type4", "dbgeng-written/triage_type4_comment", "triage_x64"])
def test_a_small_dump_is_served_by_its_pieces(shared: Path, name: str) -> None:
    """Every piece that the file's own table names is read by its virtual address, byte for byte."""
    path = shared / f"data/dumps/{name}.dmp"
    data = path.read_bytes()
    table, count = struct.unpack_from("<II", data, 0x2000 + 0x78)
    machine = machine_of_dump(*_of_file(path)).target.machine
    blocks = [struct.unpack_from("<QII", data, table + 16 * number) for number in range(count)]
    assert blocks
    first: dict[int, int] = {}
    for address, offset, size in reversed(blocks):
        first |= {address + at: data[offset + at] for at in range(size)}
    wrong = [address for address, _, size in blocks if not _same(machine, first, address, size)]
    # Lists that debuggers look for in memory are laid over a few bytes (see from_triage).
    assert len(wrong) <= 4
    assert len({bytes(one.context) for one in machine.processors}) == len(machine.processors)


def _same(machine: Machine, truth: dict[int, int], address: int, size: int) -> bool:
    return machine.read_virtual(address, size) == bytes(truth[address + at] for at in range(size))


def test_another_kind_of_machine_is_refused_by_name(shared: Path) -> None:
    with pytest.raises(SimulationError, match="type 0xaa64; only x64"):
        machine_of_dump(*_of_file(shared / "data/dumps/triage_arm64.dmp"))


def test_what_is_no_dump_is_refused() -> None:
    for data in (b"", b"PAGE", b"PAGEDU64", bytes(0x3000), random.Random(1).randbytes(0x3000)):
        with pytest.raises(SimulationError, match="no dump that can be served"):
            _serve(data)


def test_a_dump_without_a_debugger_data_block_has_its_header_s_processor() -> None:
    header = replace(HEADER, kd_debugger_data_block=0, context_record=bytes(0xF8) + b"\x78\x56\x34\x12" + bytes(2748))
    runs = PageRuns([PageRun(1, 3)])
    served = _serve(rendered(plan_complete(header, runs), {pfn: bytes(PAGE_SIZE) for pfn in runs.pages()}))
    (processor,) = served.target.machine.processors
    assert processor.program_counter == 0x12345678
    assert processor.directory_table_base == 0x1AD000


def test_a_raw_image_answers_physical_reads() -> None:
    data = random.Random(5).randbytes(3 * PAGE_SIZE + 100)
    served = machine_of_raw(reader(data), len(data))
    assert served.text == "a raw image of 3 pages"
    reply = _ask(served.target.machine, ApiNumber.READ_PHYSICAL_MEMORY, address=0x10, transfer_count=0xF00)
    assert (reply.status, reply.data) == (0, data[0x10:0xF10])
    assert _ask(served.target.machine, ApiNumber.READ_PHYSICAL_MEMORY, address=0x3000, transfer_count=8).status
    with pytest.raises(SimulationError, match="at least one page"):
        machine_of_raw(reader(b"x" * 4095), 4095)


def test_damaged_dumps_are_refused_or_served_and_nothing_else(kernel: SimulatedKernel) -> None:
    seed = 1234
    rng = random.Random(seed)
    for kind in (1, 6):
        whole = rendered(*dump_plan(kernel, kind))
        for number in range(150):
            data = bytearray(whole[: rng.choice((0x1FFF, 0x2000, 0x2100, len(whole) // 2, len(whole)))])
            for _ in range(rng.randrange(1, 30)):
                at = rng.randrange(min(len(data), 0x2100))
                data[at : at + 4] = rng.choice((rng.randbytes(4), bytes(4), b"\xff" * 4))
            try:
                served = _serve(bytes(data))
            except SimulationError:
                continue
            served.target.handle_timeout(0.0)
            machine = served.target.machine
            assert len(machine.processors) <= 2048, (seed, kind, number)
            for pfn in (1, 0x1AA, 0x3FF, 1 << 40):
                machine.memory.read_page(pfn)
            machine.read_virtual(kernel.kernel_base, 64)


def test_a_header_alone_is_refused() -> None:
    head = encode_header(HEADER)
    with pytest.raises(SimulationError, match="this dump has no page that can be served; "):
        _serve(head)
