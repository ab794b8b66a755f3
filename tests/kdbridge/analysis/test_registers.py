"""Registers that are kept in memory are believed only if they can be true."""

from __future__ import annotations

import pytest

from kdbridge.analysis.registers import (
    find_trap_frame,
    read_context,
    read_exception_record,
    read_trap_frame,
)
from kdbridge.discovery.notes import readable_end
from protocol.arch import AMD64, ARM64
from protocol.dumpfile.exception import ExceptionRecord
from protocol.layouts.trap_frame import KTRAP_FRAME64
from tests.kdbridge.analysis.made_up import MadeUp

_AT = 0xFFFFBB80_00002000
_RIP, _RSP = 0xFFFFF800_00001234, 0xFFFFBB80_00002800
_GOOD = {"rip": _RIP, "rsp": _RSP, "seg_cs": 0x10, "seg_ss": 0x18, "e_flags": 0x10246, "rcx": 7, "rbp": 9, "rbx": 5}


def _context(**values: int) -> MadeUp:
    return MadeUp({_AT: AMD64.context.encode({"context_flags": 0x10001F, "rip": _RIP, "rsp": _RSP, **values})})


async def test_a_context() -> None:
    found = await read_context(_context(rax=3), AMD64, _AT)
    assert not isinstance(found, str)
    assert (found.context["rip"], found.context["rax"]) == (_RIP, 3)
    assert {"rip", "rsp", "rax", "r15", "e_flags", "seg_cs"} <= found.known


async def test_registers_that_the_flags_do_not_name_are_not_known() -> None:
    found = await read_context(_context(context_flags=0x100001), AMD64, _AT)
    assert not isinstance(found, str)
    assert found.known == {"rip", "rsp", "e_flags"}


@pytest.mark.parametrize(
    ("source", "address", "why"),
    [
        (_context(), 0, "the pointer is null"),
        (_context(), 0x4141414141414141, "is not canonical"),
        (_context(), 0x7FFF_00000000, "is no kernel address"),
        (_context(), _AT + 8, "cannot be read"),
        (_context(context_flags=0x10007), _AT, "lies no CONTEXT: its flags are 0x10007"),
        (_context(context_flags=0x100002), _AT, "lies no CONTEXT: its flags are 0x100002"),
        (_context(rsp=0x4141414141414141), _AT, "its rsp is 41414141`41414141"),
        (MadeUp({_AT: bytes(0x4D0)}), _AT, "its flags are 0x0"),
    ],
)
async def test_what_is_no_context(source: MadeUp, address: int, why: str) -> None:
    found = await read_context(source, AMD64, address)
    assert isinstance(found, str) and why in found


async def test_a_trap_frame_has_no_non_volatile_registers_but_rbp() -> None:
    found = await read_trap_frame(MadeUp({_AT: KTRAP_FRAME64.encode(_GOOD)}), AMD64, _AT)
    assert not isinstance(found, str)
    assert (found.context["rcx"], found.context["rbp"], found.context["rip"]) == (7, 9, _RIP)
    assert not found.known & {"rbx", "rsi", "rdi", "r12", "r13", "r14", "r15"}
    assert found.context["rbx"] == 0, "what the frame has there is not the register"


@pytest.mark.parametrize(
    "wrong",
    [
        {"seg_cs": 0x18}, {"seg_ss": 0x10}, {"e_flags": 0}, {"e_flags": 0xFFFF0246}, {"rip": 0x4141414141414141},
        {"rsp": 0x1000}, {"seg_cs": 0x33}, {"rsp": 0x4141414141414141},
    ],
)  # fmt: skip
async def test_what_is_no_trap_frame(wrong: dict[str, int]) -> None:
    found = await read_trap_frame(MadeUp({_AT: KTRAP_FRAME64.encode({**_GOOD, **wrong})}), AMD64, _AT)
    assert isinstance(found, str) and "lies no trap frame" in found
    assert isinstance(await read_trap_frame(MadeUp({}), ARM64, _AT), str)


async def test_a_trap_frame_is_found_behind_what_only_looks_like_one() -> None:
    stack = bytearray(0x3000)
    stack[0x700:0x708] = _RIP.to_bytes(8, "little")  # a return address, and no frame around it
    stack[0x1238 : 0x1238 + KTRAP_FRAME64.size] = KTRAP_FRAME64.encode(_GOOD)
    source = MadeUp({_AT: bytes(stack)})
    assert await find_trap_frame(source, AMD64, _AT, lambda _: True, _RIP, "rip") == _AT + 0x1238
    assert await find_trap_frame(source, AMD64, _AT, lambda frame: frame["rcx"] == 8, _RIP, "rip") is None
    assert await find_trap_frame(source, AMD64, _AT, lambda _: True, _RIP + 1, "rip") is None
    assert await find_trap_frame(source, AMD64, 0, lambda _: True, _RIP, "rip") is None


async def test_exception_records() -> None:
    record = ExceptionRecord(0xC0000005, 0, 0, _RIP, (1, 0x18))
    assert await read_exception_record(MadeUp({_AT: record.encode(64)}), AMD64, _AT) == record
    for wrong in (bytes(0x98), record.encode(64)[:0x18] + b"\xff" * 0x80):
        found = await read_exception_record(MadeUp({_AT: wrong}), AMD64, _AT)
        assert isinstance(found, str) and "lies no exception record" in found


async def test_what_can_be_read_of_a_range() -> None:
    source = MadeUp({_AT: b"x" * 0x1000})
    assert await readable_end(source, _AT + 0xFF0, 0x40) == b"x" * 0x10
    assert await readable_end(source, _AT + 0x1000, 0x40) == b""
    assert await readable_end(source, (1 << 64) - 8, 0x40) == b""
