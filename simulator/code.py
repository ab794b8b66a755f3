"""Machine code that disassembles and unwinds: functions with prologs, calls, and the UNWIND_INFO that fits."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from .errors import SimulationError
from .unwind_rows import UnwindRow

__all__ = ["NONVOLATILE", "TRAP_FRAME_SIZE", "AssembledFunction", "Fixup", "Function", "MadeCode", "assemble"]

_REGISTERS = {
    "rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7,
    "r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15,
}  # fmt: skip

NONVOLATILE = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
"""Registers that a function must give back as it found them."""

TRAP_FRAME_SIZE = 0x158
"""What a trap handler allocates below the pushed rbp: with it, the error code and the machine frame, a KTRAP_FRAME."""

_PUSH_NONVOL, _ALLOC_LARGE, _ALLOC_SMALL, _SET_FPREG, _SAVE_NONVOL, _PUSH_MACHFRAME = 0, 1, 2, 3, 4, 10

_FILLERS = (
    bytes.fromhex("33c0"),  # xor eax,eax
    bytes.fromhex("8bca"),  # mov ecx,edx
    bytes.fromhex("488bc8"),  # mov rcx,rax
    bytes.fromhex("4885c0"),  # test rax,rax
    bytes.fromhex("448bc2"),  # mov r8d,edx
    bytes.fromhex("0fb6c8"),  # movzx ecx,al
    bytes.fromhex("488b4c2420"),  # mov rcx,[rsp+20h]
    bytes.fromhex("ba01000000"),  # mov edx,1
    bytes.fromhex("85c0740233c0"),  # test eax,eax / je +2 / xor eax,eax
    bytes.fromhex("4533c9"),  # xor r9d,r9d
)


@dataclass(frozen=True, slots=True)
class Fixup:
    """Four bytes at `offset` that must become the distance to `target` (through an import slot if `imported`)."""

    offset: int
    target: str
    imported: bool


@dataclass(frozen=True, slots=True)
class MadeCode:
    """A function's code that comes ready, with unwind data that fit it."""

    code: bytes
    fixups: tuple[Fixup, ...] = ()
    rows: tuple[UnwindRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """How a function looks from outside: what it saves, how much stack it takes, whom it calls.

    `calls` name functions of the same image, or "module!function". A function with `literal` code is a leaf: it has
    no unwind data. `event` is an instruction that stops: a memory read that faults, or an int3. One that was `made`
    elsewhere is what it was made to be.
    """

    name: str
    calls: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()
    locals: int = 0x28
    saves: tuple[tuple[str, int], ...] = ()
    frame_offset: int | None = None
    machine_frame: bool = False
    homes: bool = False
    literal: bytes | None = None
    event: bytes = b""
    exported: bool = True
    made: MadeCode | None = None

    @classmethod
    def trap(cls, name: str, *calls: str) -> Function:
        """An interrupt or exception handler: the processor pushed a machine frame, the rest is a KTRAP_FRAME."""
        return cls(
            name,
            calls,
            pushes=("rbp",),
            locals=TRAP_FRAME_SIZE,
            frame_offset=0x80,
            machine_frame=True,
            exported=False,
        )


@dataclass(frozen=True, slots=True)
class AssembledFunction:
    """Code with holes for addresses, and where things lie in it."""

    function: Function
    code: bytes
    fixups: tuple[Fixup, ...]
    return_sites: dict[str, int] = field(default_factory=dict)
    """Callee to the offset of the instruction behind the call."""
    event_offset: int | None = None
    rows: tuple[UnwindRow, ...] = ()
    """Its unwind data; a leaf has none."""


def _push(register: str) -> bytes:
    number = _REGISTERS[register]
    return bytes([0x41, 0x50 + number - 8]) if number > 7 else bytes([0x40, 0x50 + number])


def _pop(register: str) -> bytes:
    number = _REGISTERS[register]
    return bytes([0x41, 0x58 + number - 8]) if number > 7 else bytes([0x58 + number])


def _move_stack(opcode: int, size: int) -> bytes:
    """sub rsp,size (opcode EC) or add rsp,size (C4)."""
    if size < 0x80:
        return bytes([0x48, 0x83, opcode, size])
    return bytes([0x48, 0x81, opcode]) + struct.pack("<I", size)


def _move_saved(opcode: int, register: str, offset: int) -> bytes:
    """mov [rsp+offset],register (opcode 89) or back (8B)."""
    number = _REGISTERS[register]
    rex = 0x4C if number > 7 else 0x48
    return bytes([rex, opcode, 0x84 | (number & 7) << 3, 0x24]) + struct.pack("<I", offset)


def _unwind_info(function: Function, prolog: list[tuple[int, int, int, int | None]], size: int) -> bytes:
    """UNWIND_INFO version 1 of prolog steps (offset behind the instruction, operation, info, extra slot)."""
    slots = b""
    count = 0
    for offset, operation, info, extra in reversed(prolog):
        slots += bytes([offset, operation | info << 4])
        count += 1
        if extra is not None:
            slots += struct.pack("<H", extra)
            count += 1
    if count % 2:
        slots += b"\0\0"
    frame = 0 if function.frame_offset is None else _REGISTERS["rbp"] | function.frame_offset // 16 << 4
    return bytes([1, size, count, frame]) + slots


def assemble(function: Function, rng: random.Random) -> AssembledFunction:
    """Code and unwind data of one function."""
    if function.literal is not None:
        return AssembledFunction(function, function.literal, ())
    if function.made is not None:
        return AssembledFunction(function, function.made.code, function.made.fixups, rows=function.made.rows)
    entry_misalignment = 0 if function.machine_frame else 8
    if (entry_misalignment + 8 * len(function.pushes) + function.locals) % 16:
        raise SimulationError(f"{function.name}: the stack would not be aligned at its calls")
    code = bytearray()
    steps: list[tuple[int, int, int, int | None]] = []
    if function.machine_frame:
        steps.append((0, _PUSH_MACHFRAME, 1, None))
    if function.homes:
        code += bytes.fromhex("48894c2408 4889542410 4c89442418 4c894c2420")
    for register in function.pushes:
        code += _push(register)
        steps.append((len(code), _PUSH_NONVOL, _REGISTERS[register], None))
    if function.locals:
        code += _move_stack(0xEC, function.locals)
        if function.locals <= 0x80:
            steps.append((len(code), _ALLOC_SMALL, function.locals // 8 - 1, None))
        else:
            steps.append((len(code), _ALLOC_LARGE, 0, function.locals // 8))
    if function.frame_offset is not None:
        code += bytes.fromhex("488dac24") + struct.pack("<I", function.frame_offset)
        steps.append((len(code), _SET_FPREG, 0, None))
    for register, offset in function.saves:
        code += _move_saved(0x89, register, offset)
        steps.append((len(code), _SAVE_NONVOL, _REGISTERS[register], offset // 8))
    prolog_size = len(code)

    def fill() -> None:
        for _ in range(rng.randrange(2, 12)):
            code.extend(rng.choice(_FILLERS))

    fixups: list[Fixup] = []
    return_sites: dict[str, int] = {}
    event_offset = None
    fill()
    for target in function.calls:
        imported = "!" in target
        code += bytes.fromhex("ff15") if imported else b"\xe8"
        fixups.append(Fixup(len(code), target, imported))
        code += bytes(4)
        return_sites[target] = len(code)
        fill()
    if function.event:
        event_offset = len(code)
        code += function.event
        fill()
    for register, offset in function.saves:
        code += _move_saved(0x8B, register, offset)
    if function.locals:
        code += _move_stack(0xC4, function.locals)
    for register in reversed(function.pushes):
        code += _pop(register)
    code += bytes.fromhex("4883c408 48cf") if function.machine_frame else b"\xc3"
    row = UnwindRow(0, len(code), _unwind_info(function, steps, prolog_size))
    return AssembledFunction(function, bytes(code), tuple(fixups), return_sites, event_offset, (row,))
