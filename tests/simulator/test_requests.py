"""Answers about memory, breakpoints and the machine, byte by byte: what kd-protocol 3 says of each."""

from __future__ import annotations

import random

import pytest

from protocol.manipulate import ApiNumber, Manipulate
from simulator.behaviour import Behaviour, Effect
from simulator.machine import Machine
from tests.small_machine import KERNEL, PC, content, small_machine

_MEMORY = content()
_UNSUCCESSFUL, _INVALID, _MISALIGNED, _NOT_FOUND = 0xC0000001, 0xC000000D, 0x80000002, 0xC0000225

# Table 3.2, the column "Reply?".
_NO_REPLY = (0x3136, 0x313B, 0x313C, 0x3140, 0x3141, 0x3142, 0x3149, 0x3150, 0x315A)
_REPLY = tuple(
    api for api in range(0x3130, 0x3161) if api not in _NO_REPLY and not 0x314A <= api <= 0x314F
)  # fmt: skip


def _ask(machine: Machine, api: ApiNumber, data: bytes = b"", **fields: int) -> Manipulate:
    answer = machine.answer(Manipulate.request(api, processor=0, data=data, **fields))
    assert answer.reply is not None and answer.effect is Effect.NONE
    return answer.reply


def _read(machine: Machine, address: int, count: int, api: ApiNumber = ApiNumber.READ_VIRTUAL_MEMORY) -> Manipulate:
    return _ask(machine, api, address=address, transfer_count=count)


def test_which_requests_have_a_reply() -> None:
    for api in _REPLY:
        assert small_machine().answer(Manipulate(api)).reply is not None, hex(api)
    for api in _NO_REPLY:
        assert small_machine(processors=2).answer(Manipulate(api)).reply is None, hex(api)


@pytest.mark.parametrize("api", [0, 0x312F, 0x314A, 0x3154, 0x3161, 0xFFFFFFFF])
def test_an_unknown_number_gets_its_56_bytes_back(api: int) -> None:
    garbage = random.Random(api).randbytes(48)
    request = Manipulate(api, 0x1111, 0x2222, 0x103, garbage[:4], garbage[4:44], b"data")
    reply = small_machine().answer(request).reply
    assert reply is not None
    expected = bytearray(request.encode()[:56])
    expected[8:12] = _UNSUCCESSFUL.to_bytes(4, "little")
    assert reply.encode() == expected


@pytest.mark.parametrize("api", _REPLY)
def test_garbage_is_echoed_but_for_status_and_output(api: int) -> None:
    """Header fields and the unused end of the union come back as they were sent (3.1)."""
    request = Manipulate(api, 0x4163, 0, 0x103, b"\xde\xad\xbe\xef", bytes(24) + b"garbage behind!!", b"")
    reply = small_machine().answer(request).reply
    assert reply is not None
    raw = reply.encode()
    assert raw[:8] == request.encode()[:8] and raw[12:16] == b"\xde\xad\xbe\xef"
    if api not in (ApiNumber.GET_VERSION, ApiNumber.READ_IO_SPACE_EXTENDED):  # they use the union to its end
        assert raw[0x28:0x38] == b"garbage behind!!"


def test_a_read_is_clamped_to_3944_and_says_success() -> None:
    for count, done in ((3944, 3944), (3945, 3944), (4096, 3944), (0xFFFFFFFF, 3944)):
        for api, base in ((ApiNumber.READ_VIRTUAL_MEMORY, KERNEL), (ApiNumber.READ_PHYSICAL_MEMORY, 0)):
            reply = _read(small_machine(), base + 0x1234, count, api)
            assert (reply.status, reply.fields()["actual_bytes"]) == (0, done)
            assert reply.data == _MEMORY[0x1234 : 0x1234 + done]
            assert len(reply.encode()) <= 4000
    generous = small_machine(behaviour=Behaviour(largest_transfer=4096))
    assert _read(generous, KERNEL + 0x1000, 4096).data == _MEMORY[0x1000:0x2000]


def test_a_read_of_nothing_succeeds() -> None:
    reply = _read(small_machine(), KERNEL, 0)
    assert (reply.status, reply.fields()["actual_bytes"], reply.data) == (0, 0, b"")


def test_a_hole_ends_a_read_and_what_came_before_it_is_sent() -> None:
    machine = small_machine(holes=[3])
    reply = _read(machine, KERNEL + 0x2F00, 0x400)
    assert (reply.status, reply.fields()["actual_bytes"]) == (_UNSUCCESSFUL, 0x100)
    assert reply.data == _MEMORY[0x2F00:0x3000]
    reply = _read(machine, KERNEL + 0x3FFF, 2)
    assert (reply.status, reply.fields()["actual_bytes"], reply.data) == (_UNSUCCESSFUL, 0, b"")
    reply = _read(machine, 0x3FFF, 2, ApiNumber.READ_PHYSICAL_MEMORY)
    assert (reply.status, reply.data) == (_UNSUCCESSFUL, b"")


def test_physical_page_zero_may_be_refused() -> None:
    assert _read(small_machine(), 0xFF8, 16, ApiNumber.READ_PHYSICAL_MEMORY).status == _UNSUCCESSFUL
    willing = small_machine(behaviour=Behaviour(refuse_page_zero=False))
    assert _read(willing, 0xFF8, 16, ApiNumber.READ_PHYSICAL_MEMORY).data == _MEMORY[0xFF8:0x1008]


def test_physical_reads_do_not_look_at_the_cache_type() -> None:
    reply = _ask(small_machine(), ApiNumber.READ_PHYSICAL_MEMORY, address=0x2000, transfer_count=8, actual_bytes=2)
    assert reply.data == _MEMORY[0x2000:0x2008]


def test_the_length_of_a_virtual_write_is_that_of_its_data() -> None:
    machine = small_machine()
    reply = _ask(machine, ApiNumber.WRITE_VIRTUAL_MEMORY, b"abcdef", address=KERNEL + 0x5FFE, transfer_count=2)
    assert (reply.status, reply.fields()["actual_bytes"], reply.data) == (0, 6, b"")
    assert machine.memory.read(0x5FFE, 6) == b"abcdef"


def test_a_write_into_a_hole_says_how_far_it_came() -> None:
    for api, base in ((ApiNumber.WRITE_VIRTUAL_MEMORY, KERNEL), (ApiNumber.WRITE_PHYSICAL_MEMORY, 0)):
        machine = small_machine(holes=[6])
        reply = _ask(machine, api, b"abcdef", address=base + 0x5FFE, transfer_count=6)
        assert (reply.status, reply.fields()["actual_bytes"]) == (_UNSUCCESSFUL, 2)
        assert machine.memory.read(0x5FFE, 2) == b"ab"


def test_the_length_of_a_physical_write_is_the_transfer_count_capped_by_the_data() -> None:
    machine = small_machine()
    reply = _ask(machine, ApiNumber.WRITE_PHYSICAL_MEMORY, b"abcdef", address=0x5000, transfer_count=3)
    assert reply.fields()["actual_bytes"] == 3
    assert machine.memory.read(0x5000, 6) == b"abc" + _MEMORY[0x5003:0x5006]


def test_memory_is_that_of_the_processor_that_holds_the_debugger() -> None:
    """Whatever the request's Processor field says (1.14)."""
    machine = small_machine(processors=2)
    roots: list[int] = []
    machine.translate = lambda root, address: roots.append(root) or address - KERNEL  # type: ignore[func-returns-value]
    machine.processors[1].set_special(cr3=0x77000)
    request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, processor=1, address=PC, transfer_count=4)
    machine.answer(request)
    assert roots == [0x1AA000]
    machine.current = 1
    machine.answer(request._replace(processor=0))
    assert roots == [0x1AA000, 0x77000]


def test_search() -> None:
    machine = small_machine()
    pattern = _MEMORY[0x4567:0x4570]

    def search(length: int) -> Manipulate:
        return _ask(machine, ApiNumber.SEARCH_MEMORY, pattern, address=KERNEL, search_length=length, pattern_length=9)

    assert search(0x8000).fields()["address"] == KERNEL + _MEMORY.find(pattern)
    assert search(0x4000).status == _NOT_FOUND
    assert _ask(machine, ApiNumber.SEARCH_MEMORY, address=KERNEL, search_length=1 << 63).status == _NOT_FOUND


@pytest.mark.parametrize(("flags", "base"), [(1, KERNEL), (2, 0)])
def test_fill(flags: int, base: int) -> None:
    machine = small_machine()

    def ask(length: int, pattern: bytes) -> Manipulate:
        return _ask(machine, ApiNumber.FILL_MEMORY, pattern, address=base + 0x6001, length=length, flags=flags,
                    pattern_length=3)  # fmt: skip

    reply = ask(0x1003, b"xyz")
    assert (reply.status, reply.fields()["length"]) == (0, 0x1003)
    filled = (b"xyz" * 0x600)[:0x1003]
    assert machine.memory.read(0x6000, 0x1005) == _MEMORY[0x6000:0x6001] + filled + _MEMORY[0x7004:0x7005]
    assert ask(0x1003, b"").status == _INVALID
    assert ask(0xFFFFFFFF, b"xyz").status == _INVALID


def test_query_memory_always_says_read_write_execute() -> None:
    fields = _ask(small_machine(), ApiNumber.QUERY_MEMORY, address=KERNEL).fields()
    assert (fields["address_space"], fields["flags"]) == (2, 7)
    assert _ask(small_machine(), ApiNumber.QUERY_MEMORY, address=0x10000).fields()["address_space"] == 0
    assert _ask(small_machine(), ApiNumber.QUERY_MEMORY, address=KERNEL, address_space=1).status == _INVALID


def test_io_space() -> None:
    machine = small_machine()
    for size, value in ((1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)):
        reply = _ask(machine, ApiNumber.READ_IO_SPACE, io_address=0x3F8, data_size=size)
        assert (reply.status, reply.fields()["data_value"]) == (0, value)
    assert _ask(machine, ApiNumber.READ_IO_SPACE, io_address=0x3F8, data_size=3).status == _INVALID
    assert _ask(machine, ApiNumber.WRITE_IO_SPACE, io_address=0x3F9, data_size=2).status == _MISALIGNED
    for bus, status in ((0, 0), (1, _INVALID)):
        reply = _ask(machine, ApiNumber.READ_IO_SPACE_EXTENDED, data_size=4, io_address=0xCF8, interface_type=1,
                     bus_number=bus, address_space=1)  # fmt: skip
        assert reply.status == status


def test_a_table_of_breakpoints() -> None:
    machine = small_machine()
    addresses = [KERNEL + 0x8000, KERNEL + 0x9000, 0]
    table = b"".join(address.to_bytes(8, "little") + bytes(8) for address in addresses)
    reply = _ask(machine, ApiNumber.WRITE_BREAK_POINT_EX, table, count=3)
    assert reply.status == 0 and len(reply.data) == 48
    handles = [int.from_bytes(reply.data[at + 8 : at + 12], "little") for at in (0, 16, 32)]
    assert handles == [1, 2, 0]
    assert machine.memory.read(0x8000, 1) == machine.memory.read(0x9000, 1) == b"\xcc"
    # Handles that are not zero are removed first: the first moves, the second goes.
    moved = (KERNEL + 0xA000).to_bytes(8, "little") + b"\1" + bytes(7) + bytes(8) + b"\2" + bytes(7)
    assert _ask(machine, ApiNumber.WRITE_BREAK_POINT_EX, moved, count=2).status == 0
    assert machine.memory.read(0x8000, 0x1001) == _MEMORY[0x8000:0x9001]
    assert machine.memory.read(0xA000, 1) == b"\xcc"
    gone = _ask(machine, ApiNumber.RESTORE_BREAK_POINT_EX, b"\1\0\0\0", count=1)
    assert (gone.status, gone.data) == (0, b"\1\0\0\0")
    assert machine.memory.read(0, len(_MEMORY)) == _MEMORY
    for wrong in (
        _ask(machine, ApiNumber.WRITE_BREAK_POINT_EX, table, count=2),
        _ask(machine, ApiNumber.WRITE_BREAK_POINT_EX, bytes(33 * 16), count=33),
        _ask(machine, ApiNumber.RESTORE_BREAK_POINT_EX, b"\1\0\0\0", count=0x40000001),
        _ask(machine, ApiNumber.RESTORE_BREAK_POINT_EX, b"\1\0\0\0", count=1),
    ):
        assert wrong.status == _UNSUCCESSFUL


def test_what_is_refused_and_what_is_never_answered() -> None:
    behaviour = Behaviour(refused=frozenset({ApiNumber.GET_CONTEXT_EX}), unanswered=frozenset({ApiNumber.QUERY_MEMORY}))
    machine = small_machine(behaviour=behaviour)
    assert _ask(machine, ApiNumber.GET_CONTEXT_EX, byte_count=64).status == _UNSUCCESSFUL
    assert machine.answer(Manipulate.request(ApiNumber.QUERY_MEMORY, address=KERNEL)).reply is None


def test_whatever_is_asked_gets_an_answer_and_no_crash() -> None:
    seed = 20240311
    rng = random.Random(seed)
    machine = small_machine(processors=2, holes=[4])
    for number in range(20_000):
        api = rng.choice((*_REPLY, *_NO_REPLY, rng.getrandbits(32)))
        union = bytearray(rng.choice((rng.randbytes(40), bytes(40), b"\xff" * 40)))
        if rng.randrange(2):
            union[:8] = (KERNEL + rng.randrange(0x41000)).to_bytes(8, "little")
        data = rng.randbytes(rng.choice((0, 0, 1, 16, 64, 0x4D0, 3900)))
        request = Manipulate(api, 0, rng.choice((0, 1, 2, 0xFFFF)), 0x103, bytes(4), bytes(union), data)
        reply = machine.answer(request).reply
        assert reply is None or len(reply.encode()) <= 4000, (seed, number, request)
    assert len(machine.counts) < 64, "numbers that nobody assigned are not remembered one by one"
    assert len(machine.touched) <= 4096 and len(machine.msrs) < 16
