"""Epilogs and calls as an unwinder sees them, through capstone."""

from __future__ import annotations

import random

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.unwind.code import LONGEST_CALL, LONGEST_EPILOG, direct_target, is_behind_call, read_epilog
from protocol.unwind.info import REGISTERS

_REX = bytes(range(0x40, 0x50))


def _disassembler() -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


def _is_call(engine: capstone.Cs, code: bytes) -> bool:
    """Whether capstone reads a near call that ends where these bytes end, of at most seven bytes without prefixes."""
    for size in range(2, LONGEST_CALL + 1):
        instruction = next(engine.disasm(code[-size:], 0x1000), None) if size <= len(code) else None
        if instruction is None or instruction.size != size or instruction.mnemonic != "call":
            continue
        far = instruction.op_str.startswith("ptr")
        if not far and instruction.opcode[0] in (0xE8, 0xFF) and code[-size] == instruction.opcode[0]:
            return True
    return False


def test_calls_are_those_that_capstone_reads() -> None:
    engine, rng = _disassembler(), random.Random(1)
    agreed = {True: 0, False: 0}
    for _ in range(5_000):
        code = bytearray(rng.randbytes(LONGEST_CALL))
        if rng.random() < 0.8:  # most random bytes hold no call
            size = rng.randrange(2, LONGEST_CALL + 1)
            code[-size] = rng.choice((0xE8, 0xFF))
            if code[-size] == 0xFF:
                code[1 - size] = rng.randrange(4) << 6 | rng.choice((2, 2, 2, 3, 4)) << 3 | rng.randrange(8)
        expected = _is_call(engine, bytes(code))
        assert is_behind_call(bytes(code)) == expected, code.hex()
        agreed[expected] += 1
    assert min(agreed.values()) > 500


def test_a_direct_call_s_target() -> None:
    (call,) = _disassembler().disasm(bytes.fromhex("e8f0ffffff"), 0x140001000)
    assert direct_target(bytes.fromhex("9090e8f0ffffff"), 0x140001005) == int(call.op_str, 16)
    assert direct_target(bytes.fromhex("ff1500000000"), 0x1000) is None
    assert not is_behind_call(b"") and not is_behind_call(b"\xff")


def _epilogs() -> st.SearchStrategy[tuple[str, ...]]:
    """What an epilog may be, as hexadecimal instructions."""
    release = st.sampled_from(["", "4883c428", "4881c478010000", "488d6510", "498d6520", "488da500020000", "4883c4f8"])
    pops = st.lists(st.sampled_from(["5b", "5d", "5e", "5f", "415c", "415f", "405b", "59"]), max_size=5)
    end = st.sampled_from(["c3", "f3c3", "c20800", "eb10", "e900010000", "ff25f0000000", "48ffe0", "4825ff0f0000"])
    return st.tuples(release, pops, end).map(lambda parts: (parts[0], *parts[1], parts[2]))


@given(_epilogs())
def test_an_epilog_is_what_capstone_reads(instructions: tuple[str, ...]) -> None:
    frame_register = 13 if instructions[0].startswith("49") else 5
    code = bytes.fromhex("".join(instructions))
    epilog = read_epilog(code.ljust(LONGEST_EPILOG, b"\xcc"), 0x1000, frame_register)
    if instructions[-1].startswith("4825"):  # and rax: no way out of a function
        assert epilog is None
        return
    assert epilog is not None
    adds, from_frame, pops, target = 0, False, [], None
    for one in _disassembler().disasm(code, 0x1000):
        match one.mnemonic:
            case "add":
                adds = one.operands[1].imm
            case "lea":
                adds, from_frame = one.operands[1].mem.disp, True
                assert one.reg_name(one.operands[1].mem.base) == REGISTERS[frame_register]
            case "pop":
                pops.append(REGISTERS.index(one.op_str))
            case "jmp" if one.operands[0].type == capstone.x86.X86_OP_IMM:
                target = one.operands[0].imm
    assert (epilog.adds, epilog.from_frame, list(epilog.pops), epilog.jumps_to) == (adds, from_frame, pops, target)


@pytest.mark.parametrize(
    "code",
    [
        "4883c4",  # cut off
        "4883c42890c3",  # a nop is no part of an epilog
        "488d642420c3",  # lea from rsp
        "488d6510c3",  # lea from a register that holds no frame
        "4883ec28c3",
        "ff6010",  # jmp [rax+10h]: a displacement makes it a jump of a switch
        "ffe0",  # jmp rax: likewise
        "0f8510000000",
        "",
    ],
)
def test_what_is_no_epilog(code: str) -> None:
    assert read_epilog(bytes.fromhex(code), 0x1000, 0) is None


def test_where_an_epilog_will_find_the_caller() -> None:
    """lea rsp,[rbp+20h] / pop rbx / pop r14 / ret."""
    epilog = read_epilog(bytes.fromhex("488d65205b415ec3"), 0x1000, 5)
    assert epilog is not None
    registers: list[int | None] = [None] * 16
    registers[4], registers[5] = 0x100, 0x500
    places = epilog.places(registers, 5)
    assert places is not None
    assert (places.return_slot, places.saved) == (0x530, {3: 0x520, 14: 0x528})
    registers[5] = None
    assert epilog.places(registers, 5) is None


@given(st.binary(max_size=60), st.integers(0, (1 << 64) - 1), st.integers(0, 15))
def test_any_bytes_are_looked_at_without_harm(code: bytes, address: int, register: int) -> None:
    epilog = read_epilog(code, address, register)
    assert epilog is None or len(epilog.pops) <= 16
    assert isinstance(is_behind_call(code), bool)
