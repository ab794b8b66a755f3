"""Words on a stack that may be return addresses: calls as the compiler lays them for retpoline."""

from __future__ import annotations

import struct

import pytest

from kdbridge.analysis.model import Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.scan import Scanner
from kdbridge.analysis.stack import walk
from kdbridge.analysis.unwind_data import UnwindTables
from protocol.arch import AMD64
from tests.kdbridge.analysis.fake_memory import FakeSource, fake_module, fake_target

_BASE, _SIZE, _STACK = 0xFFFFF800_10000000, 0x8000, 0xFFFFF900_00000000
_BEHIND = _BASE + 0x2015


def _machine(target: int, row: tuple[int, int]) -> tuple[FakeSource, Names]:
    """A driver with one function that has unwind data, and a call of `target` at 2010h."""
    head = bytearray(0x400)
    head[:2], head[0x3C] = b"MZ", 0x80
    struct.pack_into("<4sHHIIIHH", head, 0x80, b"PE\0\0", 0x8664, 0, 0, 0, 0, 240, 0x2022)
    struct.pack_into("<H", head, 0x98, 0x20B)
    struct.pack_into("<I", head, 0x98 + 56, _SIZE)
    struct.pack_into("<I", head, 0x98 + 108, 16)
    struct.pack_into("<II", head, 0x98 + 112 + 24, 0x6000, 12)
    source = FakeSource(
        {
            _BASE: bytes(head),
            _BASE + 0x2000: b"\x90" * 0x10 + b"\xe8" + struct.pack("<i", target - _BEHIND) + b"\x90" * 0x20,
            _BASE + 0x6000: struct.pack("<III", *row, 0x6100),
            _BASE + 0x6100: bytes([1, 4, 1, 0, 4, 0x42]),
            _STACK: struct.pack("<QQ", 0x1234, _BEHIND) + bytes(0x1000),
        }
    )
    return source, Names([fake_module("x.sys", _BASE, _SIZE)], kernel=0)


@pytest.mark.parametrize(
    ("target", "behind"),
    [
        (_BASE + 0x3000, True),
        (_BASE + _SIZE, None),
        (_BASE + _SIZE + 0x1200, None),
        (_BASE + _SIZE + 0x200000, False),
        (_BASE - 0x1000, False),
    ],
)
async def test_a_call_of_what_lies_behind_a_driver_may_be_one(target: int, behind: bool | None) -> None:
    """Windows maps the stubs for a driver's indirect calls right behind it, where no image is."""
    source, names = _machine(target, (0x2000, 0x2100))
    scanner = Scanner(source, names, UnwindTables(source))
    assert await scanner.behind_call(_BEHIND) is behind
    assert await scanner.may_return_to(_BEHIND) is (behind is not False)


@pytest.mark.parametrize(("row", "found"), [((0x2000, 0x2100), True), ((0x3000, 0x3100), False)])
async def test_then_unwind_data_decide(row: tuple[int, int], found: bool) -> None:
    source, names = _machine(_BASE + _SIZE + 0x200, row)
    # It stands in such a stub.
    context = AMD64.context.decode(AMD64.context.encode({"rip": _BASE + _SIZE + 0x210, "rsp": _STACK}))
    stack = await walk(source, fake_target(0x8664, *names.modules), names, context)
    assert [frame.instruction for frame in stack.frames[1:2]] == [_BEHIND] * found
    if found:
        assert stack.frames[1].trust is Trust.SCANNED
        assert stack.frames[1].note.endswith("whether it is behind a call is not known")
