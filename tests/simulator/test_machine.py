"""What a machine keeps of what it was asked, and what its processors say of themselves."""

from __future__ import annotations

import pytest

from protocol.manipulate import ApiNumber, Manipulate
from simulator.behaviour import Touch, touch_of
from simulator.machine import Machine
from tests.small_machine import KERNEL, PC, content, small_machine

_MEMORY = content()


def _ask(machine: Machine, api: ApiNumber, **fields: int) -> None:
    machine.answer(Manipulate.request(api, processor=0, data=b"", **fields))


def test_requests_are_counted_by_name() -> None:
    machine = small_machine()
    _ask(machine, ApiNumber.READ_VIRTUAL_MEMORY, address=PC, transfer_count=4)
    _ask(machine, ApiNumber.READ_VIRTUAL_MEMORY, address=0, transfer_count=4)
    machine.answer(Manipulate(0x7777))
    assert machine.counts == {"ReadVirtualMemory": 2, "unknown": 1}


def test_only_what_touches_the_machine_is_kept() -> None:
    machine = small_machine(processors=2)
    for api in (ApiNumber.GET_VERSION, ApiNumber.GET_CONTEXT, ApiNumber.READ_CONTROL_SPACE, ApiNumber.SEARCH_MEMORY):
        _ask(machine, api)
    assert not machine.touched
    _ask(machine, ApiNumber.WRITE_BREAK_POINT, address=KERNEL)
    _ask(machine, ApiNumber.WRITE_BREAK_POINT, address=KERNEL)
    _ask(machine, ApiNumber.CONTINUE2, continue_status=0x10002)
    assert [(entry.request.name, entry.status, entry.touch) for entry in machine.touched] == [
        ("WriteBreakPoint", 0, Touch.WRITE),
        ("WriteBreakPoint", 0xC0000001, Touch.WRITE),
        ("Continue2", None, Touch.CONTROL),
    ]


@pytest.mark.parametrize(
    ("api", "touch"),
    [
        (0x3130, None), (0x313D, None), (0x315F, None), (0x3152, None), (0x315C, None),
        (0x3131, Touch.WRITE), (0x313E, Touch.WRITE), (0x3133, Touch.WRITE), (0x3160, Touch.WRITE),
        (0x3138, Touch.WRITE), (0x3153, Touch.WRITE), (0x313A, Touch.WRITE), (0x315B, Touch.WRITE),
        (0x3135, Touch.WRITE), (0x3148, Touch.WRITE), (0x9999, Touch.WRITE),
        (0x3136, Touch.CONTROL), (0x313C, Touch.CONTROL), (0x313B, Touch.CONTROL), (0x3149, Touch.CONTROL),
        (0x3150, Touch.CONTROL),
    ],
)  # fmt: skip
def test_what_a_request_does(api: int, touch: Touch | None) -> None:
    assert touch_of(api) is touch


def test_reading_an_io_port_is_no_harmless_read() -> None:
    assert touch_of(ApiNumber.READ_IO_SPACE) is Touch.WRITE, "a device notices"


def test_memory_by_virtual_address_ends_at_the_first_hole() -> None:
    machine = small_machine(holes=[8])
    assert machine.read_virtual(KERNEL + 0x6FF0, 0x2000) == _MEMORY[0x6FF0:0x8000]
    assert machine.write_virtual(KERNEL + 0x7FFE, b"abcd") == 2
    assert machine.memory.read(0x7FFE, 2) == b"ab"
    assert machine.write_physical(0x9000, b"xy") == 2 and machine.read_virtual(KERNEL + 0x9000, 2) == b"xy"


def test_page_tables_that_change_are_walked_again() -> None:
    machine = small_machine()
    assert machine.read_virtual(PC, 4) == _MEMORY[0x2000:0x2004]
    machine.translate = lambda root, address: None
    machine.write_physical(0x9000, b"a page table entry")
    assert machine.read_virtual(PC, 4) == b""


def test_debug_registers_show_the_bits_that_are_always_set() -> None:
    processor = small_machine().processors[0]
    processor.set_special(kernel_dr6=1, kernel_dr7=0x3)
    assert processor.debug_registers == (0xFFFF0FF1, 0x403)


def test_a_register_that_is_set_changes_nothing_else() -> None:
    processor = small_machine().processors[0]
    before, special = processor.context, processor.special_registers
    processor.set(rbx=0x1122334455667788)
    assert processor.context == before[:0x90] + bytes.fromhex("8877665544332211") + before[0x98:]
    processor.set_special(cr3=0x9000)
    assert processor.special_registers == special[:0x10] + (0x9000).to_bytes(8, "little") + special[0x18:]
