"""Stacks of machines whose memory is noise: they end, they cost little, and they raise nothing."""

from __future__ import annotations

import random
import struct

import pytest
import trio

from kdbridge.analysis.model import Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.stack import walk
from protocol.structure import Structure
from protocol.unwind.info import REGISTERS
from tests.kdbridge.analysis.fake_memory import FakeSource, fake_module, fake_target

_IMAGE, _STACK, _SIZE = 0xFFFFF800_10000000, 0xFFFFE000_00010000, 0x8000
_PDATA, _XDATA, _CODE = 0x3000, 0x4000, 0x1000
_INSTRUCTIONS = (b"\xe8\0\0\0\0", b"\xc3", b"\x5d", b"\xff\xd0", b"\x48\x83\xc4\x28", b"\xeb\x10", b"\x90")
_HEADS, _OPERATIONS = (1, 1, 2, 0x21, 0x22, 9), (0x50, 0x30, 0x42, 0x03, 0x0A, 0x1A, 0x16, 0x34)


def _headers(rng: random.Random, table: int, size: int) -> bytes:
    data = bytearray(0x400)
    data[:2], data[0x3C] = b"MZ", 0x80
    struct.pack_into("<4sH", data, 0x80, b"PE\0\0", 0x8664)
    struct.pack_into("<H", data, 0x98, 0x20B)
    struct.pack_into("<I", data, 0x80 + 24 + 108, 16)
    struct.pack_into("<II", data, 0x80 + 24 + 112 + 24, table, size)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 8))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _unwind_data(rng: random.Random) -> bytes:
    """Sixteen bytes a function: often such as compilers make, and often chained to what follows."""
    if rng.random() < 0.1:
        return rng.randbytes(16)
    head = bytes([rng.choice(_HEADS), rng.randrange(8), rng.randrange(7), rng.choice((0, 0, 5, 0x85))])
    return head + b"".join(bytes([rng.randrange(16), rng.choice((*_OPERATIONS, rng.randrange(256)))]) for _ in range(6))


def _machine(rng: random.Random) -> tuple[FakeSource, dict[str, int]]:
    """Rows that are sorted and rows that are not, unwind data of noise, a stack full of pointers."""
    begins = [rng.randrange(_CODE, _CODE + 0x2000) for _ in range(rng.choice((0, 1, 5, 40, 300)))]
    if rng.random() < 0.8:
        begins.sort()

    def function() -> int:
        return _IMAGE + rng.choice(begins or [0]) + rng.randrange(0x20)

    def unwind_data() -> int:
        return rng.choice((_XDATA + 16 * rng.randrange(0x100),) * 8 + (_PDATA + 12 * rng.randrange(20) + 1, 1 << 31))

    def word() -> int:
        stack, image = _STACK + 8 * rng.randrange(0x400), _IMAGE + rng.randrange(_SIZE)
        if rng.random() < 0.6:
            return function()
        return rng.choice((0, 1, 0x10, 0x33, 0x246, rng.randrange(1 << 64), stack, image))

    table = b"".join(struct.pack("<III", at, at + rng.randrange(0x80), unwind_data()) for at in begins)
    size = rng.choice((len(table),) * 20 + (0, 1 << 24, 0xFFFFFFFF))
    memory = {
        _IMAGE: _headers(rng, rng.choice((_PDATA,) * 20 + (rng.randrange(1 << 32),)), size),
        _IMAGE + _CODE: b"".join(rng.choices(_INSTRUCTIONS, k=0x1000))[:0x2000],
        _IMAGE + _PDATA: table,
        _IMAGE + _XDATA: b"".join(_unwind_data(rng) for _ in range(0x100)),
        _STACK: b"".join(struct.pack("<Q", word()) for _ in range(0x400)),
    }
    if rng.random() < 0.2:
        del memory[rng.choice(list(memory))]
    registers = {name: rng.choice((_STACK + 8 * rng.randrange(0x300), word())) for name in REGISTERS}
    pointer = _STACK + 8 * rng.randrange(0x100)
    registers["rsp"] = rng.choice((pointer,) * 6 + ((1 << 64) - 8, 0, rng.randrange(1 << 64)))
    registers["rip"] = rng.choice((function(), function(), word()))
    return FakeSource(memory), registers


def _run(seeds: range) -> dict[Trust, int]:
    """How often frames were found in which way. A failure names the machine."""
    seen = dict.fromkeys(Trust, 0)

    async def all_of_them() -> None:
        for seed in seeds:
            rng = random.Random(f"noise {seed}")
            source, registers = _machine(rng)
            module = fake_module("noise.sys", _IMAGE, _SIZE)
            known = None if rng.random() < 0.7 else frozenset(rng.sample(REGISTERS, 8))
            context = Structure("CONTEXT", registers, b"")
            names = Names([module], kernel=_IMAGE)
            try:
                stack = await walk(source, fake_target(0x8664, module), names, context, known=known, most=64)
            except Exception as error:
                raise AssertionError(f"machine {seed}") from error
            assert 1 <= len(stack.frames) <= 64, seed
            assert stack.ended, seed
            assert source.virtual.reads < 20_000, seed
            for frame in stack.frames:
                seen[frame.trust] += 1

    trio.run(all_of_them)
    return seen


def test_noise() -> None:
    seen = _run(range(60))
    assert seen[Trust.SCANNED] > 100 and seen[Trust.UNWOUND] > 5 and seen[Trust.LEAF] > 5, seen


@pytest.mark.slow
def test_more_noise() -> None:
    _run(range(1000, 1300))
