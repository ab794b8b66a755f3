"""x86 and ARM64 stacks by frame pointers: chains laid by hand after the ABIs, and a real crash of ARM64 Windows."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kdbridge.analysis.model import Stack, Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.stack import walk
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from protocol.structure import Structure
from tests.kdbridge.analysis.fake_memory import FakeSource, fake_module, fake_target

_X86, _NT, _STACK = 0x14C, 0x80500000, 0x80600000
_ARM64, _NT64, _STACK64 = 0xAA64, 0xFFFFF800_00000000, 0xFFFFE000_00001000
_FIRST_CALL = "its frame pointers lead to a return address of 0: the thread's first call, or an overwritten stack"


async def _walk(machine: int, memory: dict[int, bytes], registers: dict[str, int], base: int, **more: object) -> Stack:
    module = fake_module("ntoskrnl.exe", base)
    context = Structure("CONTEXT", registers, b"")
    names = Names([module], kernel=base)
    return await walk(FakeSource(memory), fake_target(machine, module), names, context, **more)  # type: ignore[arg-type]


def _x86_frames(*frames: tuple[int, int, int]) -> dict[int, bytes]:
    """(address, ebp of the caller, return address)"""
    return {at: struct.pack("<II", above, returns) + bytes(8) for at, above, returns in frames}


async def test_x86_goes_up_by_ebp_to_the_first_call() -> None:
    memory = _x86_frames(
        (_STACK + 0x100, _STACK + 0x180, _NT + 0x2000),
        (_STACK + 0x180, _STACK + 0x200, _NT + 0x3000),
        (_STACK + 0x200, 0, 0),
    )
    stack = await _walk(_X86, memory, {"eip": _NT + 0x1000, "ebp": _STACK + 0x100, "esp": _STACK + 0xF0}, _NT)
    assert [(frame.stack_pointer, frame.return_address, str(frame.place)) for frame in stack.frames] == [
        (_STACK + 0x100, _NT + 0x2000, "nt+0x1000"),
        (_STACK + 0x180, _NT + 0x3000, "nt+0x2000"),
        (_STACK + 0x200, 0, "nt+0x3000"),
    ]
    assert [frame.trust for frame in stack.frames] == [Trust.REGISTERS, Trust.FRAME_POINTER, Trust.FRAME_POINTER]
    assert (stack.ended, stack.whole) == (_FIRST_CALL, False)
    # As every frame of it may be made up, a chain that ends at once proves no more.
    stack = await _walk(_X86, memory, {"eip": _NT + 0x3000, "ebp": _STACK + 0x200, "esp": _STACK + 0x1F0}, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, _FIRST_CALL, False)


async def test_x86_crosses_a_trap_frame_by_its_debugger_s_copy() -> None:
    """KTRAP_FRAME begins with DbgEbp and DbgEip, and DbgArgMark says so."""
    memory = _x86_frames((_STACK + 0x100, _STACK + 0x140, _NT + 0x2000), (_STACK + 0x200, 0, 0))
    memory[_STACK + 0x140] = struct.pack("<III", _STACK + 0x200, _NT + 0x3210, 0xBADB0D00)
    registers = {"eip": _NT + 0x1000, "ebp": _STACK + 0x100, "esp": _STACK + 0xF0}
    stack = await _walk(_X86, memory, registers, _NT)
    assert [frame.instruction for frame in stack.frames] == [_NT + 0x1000, _NT + 0x2000, _NT + 0x3210]
    assert (stack.frames[2].trust, stack.frames[2].note) == (Trust.MACHINE_FRAME, "trap frame at 80600140")
    memory[_STACK + 0x140] = struct.pack("<III", 0x12F000, 0x00401000, 0xBADB0D00)
    stack = await _walk(_X86, memory, registers, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (
        2,
        "its frame pointers lead to user mode at 00401000",
        False,
    )


async def test_x86_function_that_has_no_frame_yet() -> None:
    """A direct call of where it stands lies on top of the stack: DbgBreakPointWithStatus, for one."""
    memory = _x86_frames((_STACK + 0x100, 0, 0))
    memory[_STACK + 0xF0] = struct.pack("<I", _NT + 0x2005)
    memory[_NT + 0x1FFE] = b"\x90\x90\xe8" + struct.pack("<i", 0x1000 - 0x2005)
    memory[_NT + 0x2000] = b"\xe8" + struct.pack("<i", 0x1000 - 0x2005)
    stack = await _walk(_X86, memory, {"eip": _NT + 0x1004, "ebp": _STACK + 0x100, "esp": _STACK + 0xF0}, _NT)
    assert [(frame.stack_pointer, frame.instruction) for frame in stack.frames] == [
        (_STACK + 0xF0, _NT + 0x1004),
        (_STACK + 0x100, _NT + 0x2005),
    ]


async def test_x86_chains_that_lead_nowhere() -> None:
    registers = {"eip": _NT + 0x1000, "ebp": _STACK + 0x100, "esp": _STACK + 0xF0}
    circle = _x86_frames((_STACK + 0x100, _STACK + 0x180, _NT + 0x2000), (_STACK + 0x180, _STACK + 0x100, _NT + 0x3000))
    stack = await _walk(_X86, circle, registers, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (2, "it comes back to the frame at 80600100", False)
    stack = await _walk(_X86, {}, registers, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "the frame at 80600100 cannot be read", False)
    stack = await _walk(_X86, circle, registers, _NT, known=frozenset({"eip", "esp"}))
    assert (len(stack.frames), stack.ended) == (1, "ebp is not known, and x86 stacks are found by it")
    many = _x86_frames(*((_STACK + 0x10 * n, _STACK + 0x10 * n + 0x10, _NT + 0x2000) for n in range(100)))
    stack = await _walk(_X86, many, {**registers, "ebp": _STACK}, _NT, most=7)
    assert (len(stack.frames), stack.ended) == (7, "more than 7 frames were not asked for")


async def test_arm64_goes_up_by_x29_and_takes_signatures_off() -> None:
    memory = {
        _STACK64: struct.pack("<QQ", _STACK64 + 0x40, (_NT64 + 0x2000) & ~(0x7F << 48) | 0x35 << 48),
        _STACK64 + 0x40: struct.pack("<QQ", 0, _NT64 + 0x3000),
    }
    registers = {"pc": _NT64 + 0x1000, "sp": _STACK64, "fp": _STACK64, "lr": _NT64 + 0x1010}
    stack = await _walk(_ARM64, memory, registers, _NT64)
    assert [(frame.return_address, frame.instruction) for frame in stack.frames] == [
        (_NT64 + 0x2000, _NT64 + 0x1000), (_NT64 + 0x3000, _NT64 + 0x2000), (0, _NT64 + 0x3000),
    ]  # fmt: skip
    assert (stack.ended, stack.whole) == ("the chain of frame pointers ends", False)
    # A leaf: lr was set by a bl of the function that it stands in.
    memory[_NT64 + 0x200C] = struct.pack("<I", 0x94000000 | (0x1000 - 0x200C >> 2) & 0x03FFFFFF)
    stack = await _walk(_ARM64, memory, {**registers, "pc": _NT64 + 0x1008, "lr": _NT64 + 0x2010}, _NT64)
    assert [frame.instruction - _NT64 for frame in stack.frames] == [0x1008, 0x2010, 0x2000, 0x3000]
    assert stack.frames[1].trust is Trust.LEAF
    stack = await _walk(_ARM64, memory, {**registers, "fp": 0}, _NT64)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "there is no frame pointer", False)


@pytest.mark.parametrize(
    ("above", "returns", "ended"),
    [
        (_STACK64 + 0x40, 0, _FIRST_CALL),
        (_STACK64 + 0x40, 0x7FF6_0000_1000, "its frame pointers lead to user mode at 00007ff6`00001000"),
    ],
)
async def test_arm64_chains_prove_nothing(above: int, returns: int, ended: str) -> None:
    registers = {"pc": _NT64 + 0x1000, "sp": _STACK64, "fp": _STACK64, "lr": 0}
    stack = await _walk(_ARM64, {_STACK64: struct.pack("<QQ", above, returns)}, registers, _NT64)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, ended, False)


async def test_in_user_mode_there_is_one_frame_and_that_is_all() -> None:
    registers = {"pc": 0x7FF6_0000_1000, "sp": 0x10_0000, "fp": 0x10_0000, "lr": 0x7FF6_0000_2000}
    stack = await _walk(_ARM64, {}, registers, _NT64)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "user mode at 00007ff6`00001000", True)
    stack = await _walk(_X86, {}, {"eip": 0x401000, "ebp": 0x12F000, "esp": 0x12EFF0}, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "user mode at 00401000", True)
    # A call to nowhere: the stack is the kernel's.
    stack = await _walk(_X86, {}, {"eip": 0, "ebp": _STACK + 0x100, "esp": _STACK}, _NT)
    assert (len(stack.frames), stack.ended, stack.whole) == (1, "the frame at 80600100 cannot be read", False)


async def test_a_real_crash_on_arm64(shared: Path) -> None:
    """Windows keeps x29 chains in the kernel: every frame record of this dump lies on the stack of its thread."""
    with DumpFile(shared / "data/dumps/triage_arm64.dmp") as dump:
        target = await discover(dump)
        names = Names(target.modules, kernel=target.version.kern_base)
        lengths = []
        for processor in target.processors:
            context = processor.context
            assert context is not None
            stack = await walk(dump, target, names, context, processor=processor.number)
            pointers = [frame.stack_pointer for frame in stack.frames]
            assert pointers == sorted(pointers) and pointers[0] == context["sp"]
            assert pointers[-1] - pointers[0] < 0x8000
            assert all(names.image_of(frame.instruction) is not None for frame in stack.frames)
            assert not stack.whole and {frame.trust for frame in stack.frames[1:]} == {Trust.FRAME_POINTER}
            lengths.append(len(stack.frames))
        assert len(lengths) == 8 and lengths[0] == 5 and max(lengths) > 8
