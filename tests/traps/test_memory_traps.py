"""Traps of requests and replies: what targets leave out, add, or fill with garbage (kd-protocol 8.3)."""

from __future__ import annotations

import random
import struct

import pytest

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.live import LiveTarget
from protocol.address import PAGE_SIZE, PageRun, PhysicalAddress, VirtualAddress
from protocol.arch import AMD64
from protocol.conversation import Replied, StateChanged
from protocol.manipulate import LARGEST_TRANSFER, UNIONS, ApiNumber, Manipulate
from protocol.ntstatus import STATUS_SUCCESS, STATUS_UNSUCCESSFUL
from simulator.machine import Behaviour, Machine
from tests.kdbridge.in_memory import Client, client_of
from tests.small_machine import KERNEL, PC, SIZE, content, small_machine, stopped_line, stopped_target

_MEMORY = content()


async def _attached(machine: Machine) -> Client:
    client = client_of(stopped_target(machine))
    await client.session.attach(wait=30.0)
    client.line.sent.clear()
    return client


def _reply(machine: Machine, request: Manipulate) -> Manipulate:
    """What a debugger gets that asks this over a line."""
    line = stopped_line(machine)
    line.host.ask(request, line.now)
    line.settle()
    replied = next(event for event in line.events if isinstance(event, Replied))
    return replied.reply


def test_t34_garbage_in_unused_fields_is_ignored_and_echoed() -> None:
    # WinDbg leaves former requests' bytes everywhere, and 103 in ReturnStatus. Offsets by the reference alone.
    raw = bytearray(random.Random(34).randbytes(56))
    struct.pack_into("<I", raw, 0, 0x3130)
    struct.pack_into("<I", raw, 8, 0x103)
    struct.pack_into("<QI", raw, 0x10, KERNEL + 0x1234, 24)
    reply = _reply(small_machine(), Manipulate.decode(bytes(raw))).encode()
    expected = bytearray(raw)
    struct.pack_into("<I", expected, 8, 0)
    struct.pack_into("<I", expected, 0x1C, 24)
    assert reply == bytes(expected) + _MEMORY[0x1234 : 0x1234 + 24]


@pytest.mark.parametrize("api", [0x3132, 0x3133, 0x3135, 0x3137, 0x3146, 0x3152, 0x315A, 0x315F])
def test_t34_no_request_fails_for_its_garbage(api: int) -> None:
    fields = {
        0x3137: {"address": 2, "transfer_count": 0xD8},
        0x315F: {"byte_count": 0x4D0},
        0x3152: {"msr": 0xC0000082},
    }
    clean = Manipulate(api, union=UNIONS[api].encode(fields.get(api, {})))
    used = {0x3137: 12, 0x315F: 8, 0x3152: 4, 0x3135: 4}.get(api, 0)
    garbage = clean.union[:used] + random.Random(api).randbytes(40 - used)
    dirty = Manipulate(api, 0xFFFF, 0, 0x103, b"\xde\xad\xbe\xef", garbage, clean.data)
    outcomes = [small_machine().answer(request).reply for request in (clean, dirty)]
    if outcomes[0] is None:
        assert outcomes[1] is None
        return
    assert outcomes[1] is not None
    assert (outcomes[1].status, outcomes[1].data) == (outcomes[0].status, outcomes[0].data)
    assert outcomes[1].padding == b"\xde\xad\xbe\xef"


def test_t35_a_read_is_clamped_and_called_a_success() -> None:
    reply = _reply(
        small_machine(), Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL, transfer_count=4096)
    )
    assert (reply.status, reply.fields()["actual_bytes"], len(reply.data)) == (STATUS_SUCCESS, 3944, 3944)
    assert reply.data == _MEMORY[:3944]
    assert LARGEST_TRANSFER == 3944 == 4000 - 56


@pytest.mark.parametrize("largest", [3944, 2048, 512, 4096])
async def test_t35_what_came_counts_not_what_was_asked(largest: int, autojump_clock: object) -> None:
    client = await _attached(small_machine(behaviour=Behaviour(largest_transfer=largest)))
    target = LiveTarget(client.session)
    assert await target.virtual.read(VirtualAddress(KERNEL + 77), 3 * PAGE_SIZE) == _MEMORY[77 : 77 + 3 * PAGE_SIZE]
    assert target.physical is not None
    run = PageRun(3, 5)
    pages = [page async for page in target.physical.read_pages([run])]
    assert [(page.pfn, page.data) for page in pages] == [
        (pfn, _MEMORY[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE]) for pfn in range(3, 8)
    ]


def test_t35_the_minimum_of_what_it_says_and_what_it_carries() -> None:
    session = client_of(stopped_target()).session
    request = session.memory_request(ApiNumber.READ_VIRTUAL_MEMORY, KERNEL, 100)
    for says, carries in ((100, 60), (60, 100), (0, 100), (100, 0), (1 << 31, 100)):
        reply = request.reply(0, data=b"d" * carries, actual_bytes=says)
        assert len(session.memory_reply(reply, 100).data) == min(says, carries)
    more = session.memory_reply(request.reply(0, data=b"d" * 200, actual_bytes=200), 100)
    assert more.data == b"d" * 100


async def test_t36_a_failure_may_carry_data(autojump_clock: object) -> None:
    reply = _reply(
        small_machine(holes=[4]),
        Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL + 0x3F00, transfer_count=0x800),
    )
    assert reply.status == STATUS_UNSUCCESSFUL
    assert (reply.fields()["actual_bytes"], reply.data) == (0x100, _MEMORY[0x3F00:0x4000])

    client = await _attached(small_machine(holes=[4]))
    target = LiveTarget(client.session)
    with pytest.raises(MemoryFault) as caught:
        await target.virtual.read(VirtualAddress(KERNEL + 0x3F00), 0x800)
    assert (caught.value.address, caught.value.done) == (KERNEL + 0x4000, 0x100)
    assert target.physical is not None
    with pytest.raises(MemoryFault) as caught:
        await target.physical.read(PhysicalAddress(0x4010), 16)
    assert (caught.value.address, caught.value.done) == (0x4010, 0)


@pytest.mark.parametrize("largest", [3944, 4096, 1000])
@pytest.mark.parametrize("holes", [[4], [3, 4, 5], [8], [3], [3, 5, 7]])
async def test_t36_reading_goes_on_behind_the_hole(holes: list[int], largest: int, autojump_clock: object) -> None:
    client = await _attached(small_machine(holes=holes, behaviour=Behaviour(largest_transfer=largest)))
    physical = LiveTarget(client.session).physical
    assert physical is not None
    pages = [page async for page in physical.read_pages([PageRun(3, 6), PageRun(20, 1)])]
    assert [page.pfn for page in pages] == [3, 4, 5, 6, 7, 8, 20]
    for page in pages:
        expected = None if page.pfn in holes else _MEMORY[page.pfn * PAGE_SIZE : (page.pfn + 1) * PAGE_SIZE]
        assert page.data == expected
        assert bool(page.reason) is (page.pfn in holes)


def test_t37_the_length_of_a_write_is_that_of_its_data() -> None:
    machine = small_machine()
    for count in (0, 3, 4000):
        request = Manipulate.request(
            ApiNumber.WRITE_VIRTUAL_MEMORY, address=KERNEL + 0x5000, transfer_count=count, data=b"12345"
        )
        reply = _reply(machine, request)
        assert (reply.status, reply.fields()["actual_bytes"], reply.data) == (0, 5, b"")
        assert machine.memory.read(0x5000, 6) == b"12345" + _MEMORY[0x5005:0x5006]


@pytest.mark.parametrize("size", [0xD8, 0xE0, 0xF0])
@pytest.mark.parametrize(("whole", "told"), [(False, False), (True, True), (False, True)])
async def test_t42_control_space_may_bring_more_than_was_asked(
    size: int, whole: bool, told: bool, autojump_clock: object
) -> None:
    machine = small_machine(behaviour=Behaviour(whole_control_space=whole, whole_control_size=told))
    registers = AMD64.special_registers.encode({"cr3": 0x1AA000, "cr8": 15, "tr": 0x40}, size=size)
    machine.processors[0].special_registers = registers
    asked = Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0x20)
    reply = _reply(machine, asked)
    # ActualBytes may tell the whole structure (ROS); only the payload says what came.
    assert (reply.status, reply.fields()["actual_bytes"]) == (0, size if told else 0x20)
    assert reply.data == (registers if whole else registers[:0x20])

    client = await _attached(machine)
    found = await client.session.special_registers(0)
    assert found.raw == registers
    assert (found["cr3"], found["cr8"], found["tr"]) == (0x1AA000, 15, 0x40)
    assert found.has("xcr0") is (size >= 0xE0) and found.has("msr_fs_base") is (size >= 0xF0)  # T44


async def test_t42_too_little_of_it_is_refused_by_name(autojump_clock: object) -> None:
    machine = small_machine()
    machine.processors[0].special_registers = bytes(0xA7)
    client = await _attached(machine)
    with pytest.raises(TargetRefusedError, match="0xa7 of 0xa8"):
        await client.session.special_registers(0)


@pytest.mark.parametrize("echo", [False, True])
def test_t43_a_write_to_control_space_is_answered_with_or_without_the_data(echo: bool) -> None:
    machine = small_machine(behaviour=Behaviour(echo_control_writes=echo))
    data = AMD64.special_registers.encode({"cr3": 0x1AA000, "kernel_dr7": 0x401, "kernel_dr0": PC}, size=0xE0)
    request = Manipulate.request(ApiNumber.WRITE_CONTROL_SPACE, address=2, transfer_count=len(data), data=data)
    line = stopped_line(machine)
    line.host.ask(request, line.now)
    line.settle()
    replied = next(event for event in line.events if isinstance(event, Replied))
    assert (replied.reply.status, replied.reply.data) == (0, data if echo else b"")
    assert machine.processors[0].special_registers[:0xE0] == data
    line.host.ask(Manipulate.request(ApiNumber.GET_VERSION), line.now)
    line.settle()
    assert len(line.of(Replied)) == 2


def test_t45_set_context_needs_a_get_context_in_the_same_stop() -> None:
    machine = small_machine()
    line = stopped_line(machine)
    data = AMD64.context.encode({"rax": 0x1234}, machine.processors[0].context)
    # The flags in the union are garbage; those of the structure do not matter either (kd-protocol 3.6).
    put = Manipulate(ApiNumber.SET_CONTEXT, union=b"\x5a" * 40, data=data)

    def status(request: Manipulate) -> int:
        line.events.clear()
        line.host.ask(request, line.now)
        line.settle()
        return int(line.of(Replied)[0].reply.status)

    assert status(put) == STATUS_UNSUCCESSFUL
    assert status(Manipulate.request(ApiNumber.GET_CONTEXT)) == STATUS_SUCCESS
    assert status(put) == STATUS_SUCCESS
    assert machine.processors[0].context == data
    line.host.ask(Manipulate.request(ApiNumber.CONTINUE2, continue_status=0x10002, dr7=0x400), line.now)
    line.settle()
    line.host.send_break_in(line.now)
    line.run(1.0)
    assert len(line.of(StateChanged)) == 1
    assert status(put) == STATUS_UNSUCCESSFUL, "another stop begins anew"


def test_t46_set_context_ex_is_staged_and_committed_as_a_whole() -> None:
    machine = small_machine()
    before = machine.processors[0].context
    data = AMD64.context.encode({"rbx": 0xB0B}, before)
    machine.answer(Manipulate.request(ApiNumber.GET_CONTEXT))
    for at in range(0, len(data), 512):
        part = data[at : at + 512]
        assert machine.processors[0].context == before, "nothing before the last chunk"
        answer = machine.answer(
            Manipulate.request(
                ApiNumber.SET_CONTEXT_EX, offset=at, byte_count=len(part), bytes_copied=len(data), data=part
            )
        )
        assert answer.reply is not None and answer.reply.status == 0
        assert answer.reply.fields()["bytes_copied"] == len(part)
    assert machine.processors[0].context == data
    out_of_order = Manipulate.request(
        ApiNumber.SET_CONTEXT_EX, offset=512, byte_count=512, bytes_copied=len(data), data=data[:512]
    )
    reply = machine.answer(out_of_order).reply
    assert reply is not None and reply.status == STATUS_UNSUCCESSFUL


@pytest.mark.parametrize("largest", [3944, 512])
async def test_t47_get_context_ex_may_be_missing(largest: int, autojump_clock: object) -> None:
    refused = frozenset({int(ApiNumber.GET_CONTEXT_EX)})
    machine = small_machine(processors=2, behaviour=Behaviour(refused=refused))
    client = await _attached(machine)
    client.session.largest_transfer = largest
    for number in (0, 1):
        assert (await client.session.context(number)).raw == machine.processors[number].context
    assert machine.counts["GetContextEx"] == 1, "not asked again in vain"


@pytest.mark.parametrize("refused", [frozenset[int](), frozenset({int(ApiNumber.GET_CONTEXT_EX)})])
@pytest.mark.parametrize("extra", [0, 16, 576, 2300])
async def test_t48_a_context_may_be_longer_than_a_context(
    extra: int, refused: frozenset[int], autojump_clock: object
) -> None:
    machine = small_machine(processors=2, behaviour=Behaviour(longer_context=extra, refused=refused))
    client = await _attached(machine)
    found = await client.session.context(1)
    assert found.raw == machine.processors[1].context and len(found.raw) == 0x4D0
    assert (found["rip"], found["rax"]) == (PC + 0x20, 1)


async def test_t51_processor_fields_are_not_believed(autojump_clock: object) -> None:
    machine = small_machine(processors=2, behaviour=Behaviour(garbage_processor=True))
    client = await _attached(machine)
    assert client.session.change is not None
    assert (client.session.change.processor_level, client.session.change.processor) == (1284, 257)
    assert (await client.session.context(1))["rax"] == 1
    assert await LiveTarget(client.session).virtual.read(VirtualAddress(KERNEL), 8) == _MEMORY[:8]
    # Processor FFFF in a version request, 32 in a search: a target does not validate them.
    reply = _reply(machine, Manipulate(ApiNumber.GET_VERSION, processor=0xFFFF))
    assert reply.status == 0 and reply.processor == 0xFFFF
    pattern = _MEMORY[0x6100:0x6110]
    search = Manipulate.request(
        ApiNumber.SEARCH_MEMORY, processor=32, address=KERNEL, search_length=SIZE, pattern_length=16, data=pattern
    )
    assert _reply(machine, search).fields()["address"] == KERNEL + 0x6100
