"""A small dump goes back on the line: its pieces to the byte, its lists where a kernel keeps them, and nothing else."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.dumpfile.triage import TriageContents, encode_triage, parse_triage
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_SUCCESS
from simulator.errors import SimulationError
from simulator.from_file import FileMachine, machine_of_dump
from simulator.from_triage import MADE_UP, PieceImage
from simulator.kernel import SimulatedKernel
from simulator.machine import Machine
from tests.dumps import reader
from tests.simulator.dumped import header_of
from tests.simulator.small_dumped import SmallDumped, small_dumped, small_machine

_SHARED_DATA = 0xFFFFF780_00000000


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return small_machine()


@pytest.fixture(scope="module")
def made(kernel: SimulatedKernel) -> SmallDumped:
    return small_dumped(kernel)


@pytest.fixture(scope="module")
def machine(made: SmallDumped) -> Machine:
    return _serve(made.data).target.machine


def _serve(data: bytes) -> FileMachine:
    return machine_of_dump(reader(data), len(data))


def _ask(machine: Machine, api: ApiNumber, processor: int = 0, **fields: int) -> Manipulate:
    reply = machine.answer(Manipulate.request(api, processor=processor, data=b"", **fields)).reply
    assert reply is not None
    return reply


def _word(machine: Machine, address: int, size: int = 8) -> int:
    data = machine.read_virtual(address, size)
    assert len(data) == size, f"{address:#x} is not there"
    return int.from_bytes(data, "little")


def _text(machine: Machine, address: int) -> str:
    """A UNICODE_STRING at this address."""
    return machine.read_virtual(_word(machine, address + 8), _word(machine, address, 2)).decode("utf-16-le")


def _walk(machine: Machine, head: int) -> list[tuple[str, str, int, int, int]]:
    """The module list, by the offsets of dump-formats 3.3: path, name, base, size, timestamp."""
    found, at = [], _word(machine, head)
    while at != head:
        base, size, stamp = _word(machine, at + 0x30), _word(machine, at + 0x40, 4), _word(machine, at + 0x9C, 4)
        found.append((_text(machine, at + 0x48), _text(machine, at + 0x58), base, size, stamp))
        following = _word(machine, at)
        assert _word(machine, following + 8) == at, "the links back"
        at = following
    return found


def test_every_byte_of_a_block_is_answered(machine: Machine, made: SmallDumped) -> None:
    for address, data in made.blocks:
        for start in range(0, len(data), 0x700):
            part = data[start : start + 0x700]
            reply = _ask(machine, ApiNumber.READ_VIRTUAL_MEMORY, address=address + start, transfer_count=len(part))
            assert (reply.status, reply.data) == (STATUS_SUCCESS, part)


def test_reads_end_at_the_first_byte_that_is_in_no_block(machine: Machine, made: SmallDumped) -> None:
    starts = [start for start, _ in made.blocks]
    checked = 0
    for address, data in made.blocks:
        end = address + len(data)
        if any(start - 0x10 <= end <= start for start in starts) or machine.read_virtual(end, 1):
            continue
        checked += 1
        reply = _ask(machine, ApiNumber.READ_VIRTUAL_MEMORY, address=end - 8, transfer_count=16)
        assert (reply.status != STATUS_SUCCESS, reply.data) == (True, data[-8:])
        assert _ask(machine, ApiNumber.READ_VIRTUAL_MEMORY, address=end, transfer_count=1).status != STATUS_SUCCESS
    assert checked >= 5
    assert machine.read_virtual(0x1000, 8) == b""


def test_processors_stand_as_they_stood(machine: Machine, kernel: SimulatedKernel) -> None:
    assert machine.current == kernel.stopped_processor == 1
    assert len(machine.processors) == 3
    for true in kernel.processors:
        assert _ask(machine, ApiNumber.GET_CONTEXT, true.number).data == true.context()
        special = _ask(machine, ApiNumber.READ_CONTROL_SPACE, true.number, address=2, transfer_count=0x400).data
        assert special == true.special_registers(kernel.profile.prcb.special_registers_size)[: len(special)]
        assert len(special) >= 0xD8


def test_the_version_packet_leads_to_the_kdbg(machine: Machine, kernel: SimulatedKernel, made: SmallDumped) -> None:
    fields = _ask(machine, ApiNumber.GET_VERSION).fields()
    assert fields["kern_base"] == kernel.kernel_base
    assert fields["ps_loaded_module_list"] == kernel.symbols["PsLoadedModuleList"]
    # The list's head leads to the KDBG (kd-protocol 6.1), which lies there in plain.
    assert _word(machine, fields["debugger_data_list"]) == kernel.kdbg_address
    assert machine.read_virtual(kernel.kdbg_address, kernel.kdbg["size"]) == made.contents.debugger_data


def test_sections_lie_where_they_were(machine: Machine, kernel: SimulatedKernel, made: SmallDumped) -> None:
    stopped = kernel.processors[1]
    for address, data in (
        (stopped.thread, made.contents.thread),
        (stopped.process, made.contents.process),
        (made.contents.top_of_stack, made.contents.call_stack),
    ):
        assert machine.read_virtual(address, len(data)) == data


def test_loaded_images_are_a_list_as_a_kernel_keeps_it(machine: Machine, kernel: SimulatedKernel) -> None:
    head = kernel.symbols["PsLoadedModuleList"]
    assert _walk(machine, head) == [
        (one.path, one.path.rpartition("\\")[2], one.base, one.size, one.time_date_stamp) for one in kernel.modules
    ]
    assert _word(machine, head) >= MADE_UP


def test_unloaded_images_are_a_ring(machine: Machine, kernel: SimulatedKernel) -> None:
    ring = _word(machine, kernel.kdbg["mm_unloaded_drivers"])
    count = _word(machine, kernel.kdbg["mm_last_unloaded_driver"], 4)
    assert count == len(kernel.unloaded_modules) == 3
    # kd-protocol 7.5: name, start, end, time; the latest is the last, and a small dump has it first.
    found = [
        (_text(machine, at), _word(machine, at + 0x10), _word(machine, at + 0x18))
        for at in range(ring, ring + 0x28 * count, 0x28)
    ]
    assert found[::-1] == [(one.name[:12], one.start, one.end) for one in kernel.unloaded_modules]


def test_what_the_header_says_is_found_in_memory(machine: Machine, kernel: SimulatedKernel) -> None:
    data = machine.read_virtual(kernel.kdbg["ki_bugcheck_data"], 40)
    assert struct.unpack("<5Q", data) == kernel.bug_check
    low, high = _word(machine, _SHARED_DATA + 0x14, 4), _word(machine, _SHARED_DATA + 0x18, 4)
    assert high << 32 | low == kernel.system_time
    assert machine.read_virtual(_SHARED_DATA + 0x30, 0x208) == bytes(0x208), "nobody knows where Windows was"


def test_code_can_be_told_from_data_by_the_descriptors(machine: Machine, kernel: SimulatedKernel) -> None:
    for processor in kernel.processors:
        code = _word(machine, processor.special_values["gdtr_base"] + 0x10)
        # Present, code, 64 bits, for the kernel: the L bit is bit 53 (AMD64 manual, volume 2).
        assert (code >> 47 & 1, code >> 43 & 3, code >> 53 & 1, code >> 45 & 3) == (1, 3, 1, 0)


def test_physical_addresses_are_refused(machine: Machine) -> None:
    for address in (0, 0x1000, 0x5000):
        reply = _ask(machine, ApiNumber.READ_PHYSICAL_MEMORY, address=address, transfer_count=8)
        assert (reply.status != STATUS_SUCCESS, reply.data) == (True, b"")


def _changed(kernel: SimulatedKernel, contents: TriageContents, **header: object) -> bytes:
    return b"".join(encode_triage(replace(header_of(kernel), **header), contents))  # type: ignore[arg-type]


def test_lists_that_pieces_have_stay_as_they_are(kernel: SimulatedKernel, made: SmallDumped) -> None:
    def memory(address: int, size: int) -> tuple[int, bytes]:
        data = kernel.read_virtual(address, size)
        assert data is not None
        return address, data

    head = kernel.symbols["PsLoadedModuleList"]
    pieces = [memory(head, 16)]
    for module in kernel.modules:
        entry = memory(module.entry_address, 0xA0)
        pieces.append(entry)
        for at in (0x48, 0x58):
            length, place = struct.unpack_from("<H6xQ", entry[1], at)
            pieces.append(memory(place, length))
    pieces.append(memory(kernel.kdbg["mm_unloaded_drivers"], 8))
    pieces.append(memory(kernel.kdbg["mm_last_unloaded_driver"], 4))
    pieces.append(memory(int.from_bytes(pieces[-2][1], "little"), 50 * 0x28))
    machine = _serve(_changed(kernel, replace(made.contents, blocks=(*made.blocks, *pieces)))).target.machine
    assert all(machine.read_virtual(address, len(data)) == data for address, data in pieces)
    assert len(_walk(machine, head)) == len(kernel.modules)
    # Without one of the names the list is no use to a debugger: it is made up.
    machine = _serve(_changed(kernel, replace(made.contents, blocks=(*made.blocks, *pieces[:-4])))).target.machine
    assert _word(machine, head) >= MADE_UP and len(_walk(machine, head)) == len(kernel.modules)


def test_a_header_without_a_time_gives_no_shared_data(kernel: SimulatedKernel, made: SmallDumped) -> None:
    machine = _serve(_changed(kernel, made.contents, system_time=None)).target.machine
    assert machine.read_virtual(_SHARED_DATA, 1) == b""


def test_a_kprcb_that_no_block_has_comes_from_its_section(kernel: SimulatedKernel, made: SmallDumped) -> None:
    stopped = kernel.processors[1]
    blocks = tuple(block for block in made.blocks if block[0] != stopped.prcb)
    machine = _serve(_changed(kernel, replace(made.contents, blocks=blocks))).target.machine
    assert machine.read_virtual(stopped.prcb, len(made.contents.prcb)) == made.contents.prcb
    assert _ask(machine, ApiNumber.GET_CONTEXT, 2).data == kernel.processors[2].context()


def _without_kdbg(contents: TriageContents) -> TriageContents:
    return replace(contents, debugger_data=bytes(0x380))


def _without_registers(contents: TriageContents) -> TriageContents:
    return replace(contents, blocks=())


@pytest.mark.parametrize(
    ("change", "said"), [(_without_kdbg, "no KDBG that can be read"), (_without_registers, "registers of no processor")]
)
def test_what_nobody_could_look_at_is_refused(
    kernel: SimulatedKernel, made: SmallDumped, change: Callable[[TriageContents], TriageContents], said: str
) -> None:
    with pytest.raises(SimulationError, match=said):
        _serve(_changed(kernel, change(made.contents)))
    with pytest.raises(SimulationError, match=r"can(not)? be served"):
        _serve(made.data[:0x2070])


def test_a_restart_brings_the_crash_back(made: SmallDumped) -> None:
    target = _serve(made.data).target
    address, data = made.blocks[2]
    assert target.machine.write_virtual(address, b"patched!") == 8
    assert target.machine.read_virtual(address, 8) == b"patched!"
    assert target.restart is not None
    target.machine, target.script = target.restart()
    assert target.machine.read_virtual(address, 8) == data[:8] != b"patched!"


def test_nothing_can_be_written_where_nothing_is(made: SmallDumped) -> None:
    machine = _serve(made.data).target.machine
    address, data = max(made.blocks, key=lambda block: len(block[1]))
    assert machine.write_virtual(address + len(data) - 4, b"12345678") == 0
    assert machine.read_virtual(address + len(data) - 4, 8) == data[-4:]


@pytest.mark.parametrize("name", ["triage_x64", "dbgeng-written/triage_type4", "dbgeng-written/triage_type4_comment"])
def test_what_others_wrote_is_served_to_the_byte(shared: Path, name: str) -> None:
    data = (shared / f"data/dumps/{name}.dmp").read_bytes()
    served = _serve(data)
    machine = served.target.machine
    table, count = struct.unpack_from("<II", data, 0x2078)
    assert f"{count} pieces" in served.text
    for address, offset, size in struct.iter_unpack("<QII", data[table : table + 16 * count]):
        assert machine.read_virtual(address, size) == data[offset : offset + size]
    (drivers,) = struct.unpack_from("<I", data, 0x2034)
    (head,) = struct.unpack_from("<Q", data, 0x20)  # PsLoadedModuleList
    assert len(_walk(machine, head)) == drivers
    assert isinstance(machine.memory, PieceImage)
    served.target.handle_timeout(0.0)
    assert served.target.data_to_send()


def test_damaged_small_dumps_are_refused_or_served_and_nothing_else(made: SmallDumped, kernel: SimulatedKernel) -> None:
    seed = 77
    rng = random.Random(seed)
    served = 0
    layout = parse_triage(reader(made.data), header_of(kernel), len(made.data))
    start = layout.debugger_data.file_offset
    for number in range(150):
        data = bytearray(made.data)
        for _ in range(rng.randrange(1, 8)):
            at = rng.choice(
                (rng.randrange(0x2000, 0x2080), start + rng.randrange(0x380), rng.randrange(0x20D0, 0x2200))
            )
            data[at : at + 4] = rng.choice((rng.randbytes(4), bytes(4), b"\xff" * 4))
        try:
            machine = _serve(bytes(data)).target.machine
        except SimulationError:
            continue
        served += 1
        assert len(machine.processors) <= 2048, (seed, number)
        for address, _ in made.blocks:
            machine.read_virtual(address - 8, 0x1000)
    assert 10 < served < 150, seed
