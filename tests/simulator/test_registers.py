"""Answers about registers: whose, how much, and when they may be written (kd-protocol 3.6 to 3.8, 3.11)."""

from __future__ import annotations

import pytest

from protocol.manipulate import ApiNumber, Manipulate
from simulator.behaviour import Behaviour
from simulator.machine import Machine
from tests.small_machine import KERNEL, PC, small_machine

_UNSUCCESSFUL, _NO_SUCH_DEVICE = 0xC0000001, 0xC000000E


def _ask(machine: Machine, api: ApiNumber, processor: int = 0, data: bytes = b"", **fields: int) -> Manipulate:
    reply = machine.answer(Manipulate.request(api, processor=processor, data=data, **fields)).reply
    assert reply is not None
    return reply


def _rip(context: bytes) -> int:
    return int.from_bytes(context[0xF8:0x100], "little")  # kd-protocol 5.2


def test_the_processor_field_says_whose_context() -> None:
    machine = small_machine(processors=3)
    for number in range(3):
        reply = _ask(machine, ApiNumber.GET_CONTEXT, number)
        assert (reply.status, len(reply.data), _rip(reply.data)) == (0, 0x4D0, PC + 0x20 * number)
        assert reply.processor == number
    for api in (ApiNumber.GET_CONTEXT, ApiNumber.GET_CONTEXT_EX, ApiNumber.READ_CONTROL_SPACE):
        reply = _ask(machine, api, 3)
        assert (reply.status, reply.data) == (_UNSUCCESSFUL, b"")


def test_a_context_may_be_longer_than_its_structure() -> None:
    machine = small_machine(behaviour=Behaviour(longer_context=0x100))
    whole = _ask(machine, ApiNumber.GET_CONTEXT).data
    assert len(whole) == 0x5D0 and whole[:0x4D0] == machine.processors[0].context
    assert _ask(machine, ApiNumber.GET_CONTEXT_EX, offset=0, byte_count=0x5D0).data == whole


def test_a_context_in_chunks() -> None:
    machine = small_machine()
    whole = machine.processors[0].context
    for offset, count in ((0, 0x4D0), (0, 0x200), (0x200, 0x200), (0x400, 0x200)):
        reply = _ask(machine, ApiNumber.GET_CONTEXT_EX, offset=offset, byte_count=count)
        part = whole[offset : offset + count]
        assert (reply.status, reply.data, reply.fields()["bytes_copied"]) == (0, part, len(part))
    reply = _ask(machine, ApiNumber.GET_CONTEXT_EX, offset=0x4D0, byte_count=8)
    assert (reply.status, reply.fields()["bytes_copied"]) == (_UNSUCCESSFUL, 0)


def test_no_context_is_written_before_one_was_read_in_this_stop() -> None:
    machine = small_machine()
    changed = bytearray(machine.processors[0].context)
    changed[0xF8:0x100] = (PC + 1).to_bytes(8, "little")
    assert _ask(machine, ApiNumber.SET_CONTEXT, data=bytes(changed)).status == _UNSUCCESSFUL
    _ask(machine, ApiNumber.GET_CONTEXT)
    # The flags in the union are garbage and do not count.
    assert _ask(machine, ApiNumber.SET_CONTEXT, data=bytes(changed), context_flags=0xDEAD).status == 0
    assert machine.processors[0].program_counter == PC + 1
    machine.prepare_report()
    assert _ask(machine, ApiNumber.SET_CONTEXT, data=bytes(changed)).status == _UNSUCCESSFUL
    _ask(machine, ApiNumber.GET_CONTEXT_EX, byte_count=0x4D0)
    assert _ask(machine, ApiNumber.SET_CONTEXT, data=bytes(changed[:-1])).status == _UNSUCCESSFUL


def _stage(machine: Machine, offset: int, part: bytes, total: int) -> Manipulate:
    return _ask(machine, ApiNumber.SET_CONTEXT_EX, data=part, offset=offset, byte_count=len(part), bytes_copied=total)


def test_a_staged_context_is_committed_by_the_chunk_that_completes_it() -> None:
    machine = small_machine()
    before = machine.processors[0].context
    changed = bytes(before[:0xF8]) + (PC + 5).to_bytes(8, "little") + before[0x100:]
    _ask(machine, ApiNumber.GET_CONTEXT)
    for offset in range(0, 0x4D0, 0x200):
        assert machine.processors[0].context == before, "nothing changes before all of it is there"
        part = changed[offset : offset + 0x200]
        reply = _stage(machine, offset, part, 0x4D0)
        assert (reply.status, reply.fields()["bytes_copied"]) == (0, len(part))
    assert machine.processors[0].context == changed


@pytest.mark.parametrize(
    ("offset", "size", "total"),
    [(0x200, 0x200, 0x4D0), (0, 0x4D1, 0x4D0), (0, 0x200, 0x3001), (0, 0x100, 0x100), (0, 0x200, 0)],
    ids=["out of order", "past the total", "too long", "too short", "no total"],
)
def test_a_staged_context_that_makes_no_sense_is_refused(offset: int, size: int, total: int) -> None:
    machine = small_machine()
    before = machine.processors[0].context
    _ask(machine, ApiNumber.GET_CONTEXT)
    assert _stage(machine, offset, bytes(size), total).status == _UNSUCCESSFUL
    assert machine.processors[0].context == before and not machine.staged_context


def test_control_space() -> None:
    machine = small_machine(processors=2)
    pcr = KERNEL + 0x11000
    for base, value in ((0, pcr), (1, pcr + 0x180), (3, KERNEL + 0x21000)):
        reply = _ask(machine, ApiNumber.READ_CONTROL_SPACE, 1, address=base, transfer_count=8)
        assert (reply.status, int.from_bytes(reply.data, "little"), reply.fields()["actual_bytes"]) == (0, value, 8)
    reply = _ask(machine, ApiNumber.READ_CONTROL_SPACE, 1, address=2, transfer_count=0x400)
    assert int.from_bytes(reply.data[0x10:0x18], "little") == 0x1AA000
    assert len(reply.data) == len(machine.processors[1].special_registers)
    assert _ask(machine, ApiNumber.READ_CONTROL_SPACE, address=4, transfer_count=8).status == _UNSUCCESSFUL


@pytest.mark.parametrize(
    ("behaviour", "size", "told"),
    [
        (Behaviour(), 0xA8, 0xA8),
        (Behaviour(whole_control_size=True), 0xA8, 0xF0),
        (Behaviour(whole_control_space=True, whole_control_size=True), 0xF0, 0xF0),
    ],
    ids=["what was asked", "as ROS does", "as MSKD does"],
)
def test_control_space_may_come_whole_whatever_was_asked(behaviour: Behaviour, size: int, told: int) -> None:
    machine = small_machine(behaviour=behaviour)
    reply = _ask(machine, ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0xA8)
    assert (len(reply.data), reply.fields()["actual_bytes"]) == (size, told)


@pytest.mark.parametrize("echo", [False, True])
def test_special_registers_are_written_whole_or_in_part(echo: bool) -> None:
    machine = small_machine(behaviour=Behaviour(echo_control_writes=echo))
    before = machine.processors[0].special_registers
    data = bytes(range(0xE0))
    reply = _ask(machine, ApiNumber.WRITE_CONTROL_SPACE, data=data, address=2, transfer_count=0xE0)
    assert (reply.status, reply.fields()["actual_bytes"], reply.data) == (0, 0xE0, data if echo else b"")
    assert machine.processors[0].special_registers == data + before[0xE0:]
    _ask(machine, ApiNumber.WRITE_CONTROL_SPACE, data=bytes(0x200), address=2, transfer_count=0x200)
    assert machine.processors[0].special_registers == bytes(0xF0)
    assert _ask(machine, ApiNumber.WRITE_CONTROL_SPACE, data=data, address=0).status == _UNSUCCESSFUL


def test_a_new_cr3_counts_at_once() -> None:
    machine = small_machine()
    roots: list[int] = []
    machine.translate = lambda root, address: roots.append(root) or address - KERNEL  # type: ignore[func-returns-value]
    machine.read_virtual(PC, 1)
    special = bytearray(machine.processors[0].special_registers)
    special[0x10:0x18] = (0x5000).to_bytes(8, "little")
    _ask(machine, ApiNumber.WRITE_CONTROL_SPACE, data=bytes(special), address=2)
    machine.read_virtual(PC, 1)
    assert roots == [0x1AA000, 0x5000]


def test_machine_specific_registers() -> None:
    machine = small_machine()

    def read(number: int) -> Manipulate:
        return _ask(machine, ApiNumber.READ_MACHINE_SPECIFIC_REGISTER, msr=number)

    efer = read(0xC0000080).fields()
    assert efer["low"] & 0x500 == 0x500, "long mode is enabled and active"
    gs = read(0xC0000101).fields()
    assert gs["low"] | gs["high"] << 32 == KERNEL + 0x10000, "GS base is the KPCR"
    assert read(0x1234).status == _NO_SUCH_DEVICE
    write = ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER
    assert _ask(machine, write, msr=0xC0000082, low=0x11, high=0x22).status == 0
    assert read(0xC0000082).fields() == {"msr": 0xC0000082, "low": 0x11, "high": 0x22}
    assert _ask(machine, write, msr=0x1234, low=1).status == _NO_SUCH_DEVICE
