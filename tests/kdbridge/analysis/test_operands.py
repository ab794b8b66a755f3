"""Memory that instructions touch, worked out by hand from the processors' manuals."""

from __future__ import annotations

import random

import capstone
import pytest

from kdbridge.analysis.operands import Touch, touched_by
from kdbridge.analysis.registers import Registers, known_of
from protocol.arch import AMD64, ARM64, X86, Architecture

_MODES = {
    "x64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "x86": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "ARM64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
_AT = 0xFFFFF800_00001000
_GS = 0xFFFFF800_AAAA0000
_RAX, _RCX, _RSP = 0xFFFFA700_00001000, 3, 0xFFFFBB80_00000100


def _registers(architecture: Architecture, values: dict[str, int], *, without: str = "") -> Registers:
    flags = architecture.context_flags_base | 3
    context = architecture.context.decode(architecture.context.encode({architecture.context_flags: flags, **values}))
    return Registers(context, known_of(architecture, context) - {without})


def _touches(
    architecture: Architecture, code: str, registers: Registers | None, gs_base: int | None = _GS, at: int = _AT
) -> list[Touch]:
    decoder = capstone.Cs(*_MODES[architecture.name])
    decoder.detail = True
    (instruction,) = decoder.disasm(bytes.fromhex(code), at)
    return list(touched_by(instruction, architecture, registers, gs_base))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("8b4810", ("[rax + 0x10]", _RAX + 0x10, "read", 4)),  # mov ecx,[rax+10h]
        ("8948f8", ("[rax - 0x8]", _RAX - 8, "write", 4)),  # mov [rax-8],ecx
        ("48ff00", ("[rax]", _RAX, "read and write", 8)),  # inc qword ptr [rax]
        ("8b448810", ("[rax + rcx*4 + 0x10]", _RAX + 12 + 0x10, "read", 4)),  # mov eax,[rax+rcx*4+10h]
        ("8b0440", ("[rax + rax*2]", 3 * _RAX & (1 << 64) - 1, "read", 4)),  # mov eax,[rax+rax*2]
        ("488b0510000000", ("[rip + 0x10]", _AT + 7 + 0x10, "read", 8)),  # mov rax,[rip+10h]
        ("65488b042588010000", ("gs:[0x188]", _GS + 0x188, "read", 8)),  # mov rax,gs:[188h]
        ("67 8b4104", ("[ecx + 0x4]", _RCX + 4, "read", 4)),  # mov eax,[ecx+4]
        ("48a1 10 00 00 00 00 a7 ff ff", ("[0xffffa70000000010]", 0xFFFFA700_00000010, "read", 8)),  # mov rax,moffs
        ("50", ("[rsp - 8]", _RSP - 8, "write", 8)),  # push rax
        ("58", ("[rsp]", _RSP, "read", 8)),  # pop rax
        ("c3", ("[rsp]", _RSP, "read", 8)),  # ret
        ("e800000000", ("[rsp - 8]", _RSP - 8, "write", 8)),  # call
    ],
)
def test_x64(code: str, expected: tuple[str, int, str, int]) -> None:
    registers = _registers(AMD64, {"rax": _RAX, "rcx": _RCX, "rsp": _RSP})
    (touch,) = _touches(AMD64, code, registers)
    assert (touch.expression, touch.address, touch.access, touch.size, touch.why) == (*expected, "")


def test_a_string_move_touches_two_places() -> None:
    registers = _registers(AMD64, {"rsi": 0x1000, "rdi": 0x2000})
    found = _touches(AMD64, "48a5", registers)  # movsq
    assert [(one.address, one.access, one.size) for one in found] == [(0x2000, "write", 8), (0x1000, "read", 8)]


@pytest.mark.parametrize("code", ["488d4808", "0f1f00", "0f0b", "cc", "0f1808"])  # lea, nop, ud2, int3, prefetch
def test_these_touch_nothing(code: str) -> None:
    assert _touches(AMD64, code, _registers(AMD64, {"rax": _RAX})) == []


def test_what_is_not_known_is_not_computed() -> None:
    (touch,) = _touches(AMD64, "8b4310", _registers(AMD64, {"rbx": 0}, without="rbx"))  # mov eax,[rbx+10h]
    assert (touch.address, touch.why) == (None, "rbx is not known there")
    (touch,) = _touches(AMD64, "65488b042588010000", _registers(AMD64, {}), gs_base=None)
    assert (touch.address, touch.why) == (None, "the base of gs is not known there")


def test_without_registers_only_what_lies_beside_the_code_is_told() -> None:
    assert _touches(AMD64, "8b4810", None) == []
    assert _touches(AMD64, "50", None) == []
    assert [one.address for one in _touches(AMD64, "488b0510000000", None)] == [_AT + 7 + 0x10]


def test_x86() -> None:
    registers = _registers(X86, {"eax": 0xFFFFFFF0, "esp": 0x8B010000})
    (touch,) = _touches(X86, "8b4820", registers, at=0x82001000)  # mov ecx,[eax+20h]
    assert (touch.address, touch.access, touch.size) == (0x10, "read", 4), "addresses wrap at 32 bits"
    (touch,) = _touches(X86, "50", registers, at=0x82001000)
    assert (touch.address, touch.size) == (0x8B00FFFC, 4)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("200840f9", (_RAX + 0x10, "read", 8)),  # ldr x0,[x1,#10h]
        ("208c00f8", (_RAX + 8, "write", 8)),  # str x0,[x1,#8]!
        ("208440f8", (_RAX, "read", 8)),  # ldr x0,[x1],#8
        ("200040b9", (_RAX, "read", 4)),  # ldr w0,[x1]
        ("20004039", (_RAX, "read", 1)),  # ldrb w0,[x1]
        ("20004079", (_RAX, "read", 2)),  # ldrh w0,[x1]
        ("20008039", (_RAX, "read", 1)),  # ldrsb x0,[x1]
        ("200080b9", (_RAX, "read", 4)),  # ldrsw x0,[x1]
        ("207862f8", (_RAX + 8 * 3, "read", 8)),  # ldr x0,[x1,x2,lsl #3]
        ("20d863f8", (_RAX - 8 * 2, "read", 8)),  # ldr x0,[x1,w3,sxtw #3]
        ("200c40a9", (_RAX, "read", 16)),  # ldp x0,x3,[x1]
        ("fd7bbfa9", (_RSP - 0x10, "write", 16)),  # stp fp,lr,[sp,#-10h]!
        ("e003c03d", (_RSP, "read", 16)),  # ldr q0,[sp]
        ("207c02c8", (_RAX, "write", 8)),  # stxr w2,x0,[x1]
        ("2000e0f8", (_RAX, "read and write", 8)),  # ldaddal x0,x0,[x1]
    ],
)
def test_arm64(code: str, expected: tuple[int, str, int]) -> None:
    registers = _registers(ARM64, {"x1": _RAX, "x2": 3, "x3": 0xFFFFFFFE, "sp": _RSP})
    (touch,) = _touches(ARM64, code, registers)
    assert (touch.address, touch.access, touch.size) == expected, touch


def test_arm64_literals_need_no_registers() -> None:
    (touch,) = _touches(ARM64, "40000058", None)  # ldr x0,8
    assert (touch.address, touch.access, touch.size) == (_AT + 8, "read", 8)


@pytest.mark.parametrize("architecture", [AMD64, X86, ARM64], ids=lambda one: one.name)
def test_whatever_instruction_there_is_ends_in_an_address_or_a_reason(architecture: Architecture) -> None:
    rng = random.Random(architecture.name)
    values = {name: rng.randrange(1 << 64) for line in architecture.display for name in line}
    registers = _registers(architecture, values)
    decoder = capstone.Cs(*_MODES[architecture.name])
    decoder.detail = True
    touched = 0
    for _ in range(1500):
        start = rng.choice((0x1000, 0x80500000, 0xFFFFF800_00000000, (1 << 64) - 8))
        for instruction in decoder.disasm(rng.randbytes(16), start, 1):
            for one in touched_by(instruction, architecture, registers, _GS):
                touched += 1
                assert (one.address is None) == bool(one.why)
                assert 0 <= (one.address or 0) < 1 << 8 * architecture.pointer_size and 0 <= one.size <= 64
                assert one.expression.count("[") == one.expression.count("]") == 1
    assert touched > 50
