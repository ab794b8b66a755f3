"""x64 instructions of prologs and epilogs, each with what it does, and the unwind codes that describe them."""

from __future__ import annotations

import random
import struct

__all__ = [
    "FILLERS",
    "OPERATIONS",
    "REGISTERS",
    "Act",
    "Coded",
    "address_of",
    "call_register",
    "leave_frame",
    "load",
    "load_vector",
    "move_stack",
    "pop",
    "push",
    "save",
    "save_vector",
    "set_frame",
    "set_register",
    "unwind_alloc",
    "unwind_code",
    "unwind_push",
    "unwind_save",
    "unwind_vector",
]

Act = tuple[str, str, int] | None
"""What an instruction does to rsp, a non-volatile register or the stack: a verb, a register, a number.

"push" and "pop" a register; "move" rsp by a number; "frame": the register becomes rsp plus a number; "leave": rsp
becomes the register plus a number; "save" the register at rsp plus a number; "load" it from a base ("rbx rsp": rbx
from rsp plus a number); "set" it to a number. None: nothing that matters.
"""

Coded = tuple[bytes, Act]

REGISTERS = {
    "rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7,
    "r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15,
}  # fmt: skip

OPERATIONS = (
    "PUSH_NONVOL", "ALLOC_LARGE", "ALLOC_SMALL", "SET_FPREG", "SAVE_NONVOL", "SAVE_NONVOL_FAR", "EPILOG", "SPARE",
    "SAVE_XMM128", "SAVE_XMM128_FAR", "PUSH_MACHFRAME",
)  # fmt: skip

FILLERS = (
    bytes.fromhex("33c0"),  # xor eax,eax
    bytes.fromhex("8bca"),  # mov ecx,edx
    bytes.fromhex("488bc8"),  # mov rcx,rax
    bytes.fromhex("4885c0"),  # test rax,rax
    bytes.fromhex("448bc2"),  # mov r8d,edx
    bytes.fromhex("0fb6c8"),  # movzx ecx,al
    bytes.fromhex("488b4c2420"),  # mov rcx,[rsp+20h]
    bytes.fromhex("ba01000000"),  # mov edx,1
    bytes.fromhex("4533c9"),  # xor r9d,r9d
    bytes.fromhex("0f1f440000"),  # nop
)
"""Instructions that touch volatile registers only."""


def push(register: str) -> Coded:
    """push register"""
    number = REGISTERS[register]
    return bytes([0x41] * (number > 7) + [0x50 + (number & 7)]), ("push", register, 0)


def pop(register: str) -> Coded:
    """pop register"""
    number = REGISTERS[register]
    return bytes([0x41] * (number > 7) + [0x58 + (number & 7)]), ("pop", register, 0)


def move_stack(distance: int) -> Coded:
    """sub rsp,-distance or add rsp,distance"""
    operation, size = (0xEC, -distance) if distance < 0 else (0xC4, distance)
    if size < 0x80:
        return bytes([0x48, 0x83, operation, size]), ("move", "rsp", distance)
    return bytes([0x48, 0x81, operation]) + struct.pack("<I", size), ("move", "rsp", distance)


def set_frame(register: str, offset: int) -> Coded:
    """lea register,[rsp+offset]"""
    return _on_stack(0x8D, register, offset), ("frame", register, offset)


def leave_frame(register: str, offset: int) -> Coded:
    """lea rsp,[register+offset]"""
    return _memory(0x8D, 4, register, offset), ("leave", register, offset)


def save(register: str, offset: int) -> Coded:
    """mov [rsp+offset],register"""
    return _on_stack(0x89, register, offset), ("save", register, offset)


def load(register: str, base: str, offset: int) -> Coded:
    """mov register,[base+offset]"""
    code = _on_stack(0x8B, register, offset) if base == "rsp" else _memory(0x8B, REGISTERS[register], base, offset)
    return code, ("load", f"{register} {base}", offset)


def save_vector(number: int, offset: int) -> Coded:
    """movaps [rsp+offset],xmm"""
    return _vector(0x29, number, "rsp", offset), None


def load_vector(number: int, base: str, offset: int) -> Coded:
    """movaps xmm,[base+offset]"""
    return _vector(0x28, number, base, offset), None


def set_register(register: str, value: int) -> Coded:
    """mov register,value (31 bits)"""
    number = REGISTERS[register]
    code = bytes([0x49 if number > 7 else 0x48, 0xC7, 0xC0 | number & 7]) + struct.pack("<I", value)
    return code, ("set", register, value)


def address_of(register: str) -> bytes:
    """lea register,[rip+…], the distance still to come"""
    number = REGISTERS[register]
    return bytes([0x4C if number > 7 else 0x48, 0x8D, 5 | (number & 7) << 3]) + bytes(4)


def call_register(register: str) -> bytes:
    """call register"""
    number = REGISTERS[register]
    return bytes([0x41] * (number > 7) + [0xFF, 0xD0 | number & 7])


def unwind_code(operation: int, info: int = 0, extra: bytes = b"") -> bytes:
    """An unwind code without its offset: operation and info, and what follows."""
    return bytes([operation | info << 4]) + extra


def unwind_push(register: str) -> bytes:
    """UWOP_PUSH_NONVOL"""
    return unwind_code(0, REGISTERS[register])


def unwind_alloc(size: int, rng: random.Random) -> bytes:
    """UWOP_ALLOC_SMALL or one of the two UWOP_ALLOC_LARGE: any that can say it."""
    forms = [unwind_code(1, 1, struct.pack("<I", size))]
    if size // 8 <= 0xFFFF:
        forms.append(unwind_code(1, 0, struct.pack("<H", size // 8)))
    if size <= 128:
        forms.append(unwind_code(2, size // 8 - 1))
    return rng.choice(forms)


def unwind_save(register: str, offset: int, *, far: bool) -> bytes:
    """UWOP_SAVE_NONVOL, or _FAR where wanted or needed."""
    if far or offset // 8 > 0xFFFF:
        return unwind_code(5, REGISTERS[register], struct.pack("<I", offset))
    return unwind_code(4, REGISTERS[register], struct.pack("<H", offset // 8))


def unwind_vector(number: int, offset: int, *, far: bool) -> bytes:
    """UWOP_SAVE_XMM128, or _FAR."""
    if far:
        return unwind_code(9, number, struct.pack("<I", offset))
    return unwind_code(8, number, struct.pack("<H", offset // 16))


def _on_stack(operation: int, register: str, offset: int) -> bytes:
    number = REGISTERS[register]
    head = bytes([0x4C if number > 7 else 0x48, operation])
    if offset < 0x80:
        return head + bytes([0x44 | (number & 7) << 3, 0x24, offset])
    return head + bytes([0x84 | (number & 7) << 3, 0x24]) + struct.pack("<I", offset)


def _memory(operation: int, number: int, base: str, offset: int) -> bytes:
    """A base that is neither rsp nor r12."""
    at = REGISTERS[base]
    head = bytes([0x48 | (number > 7) << 2 | (at > 7), operation])
    if -0x80 <= offset < 0x80:
        return head + bytes([0x40 | (number & 7) << 3 | at & 7]) + struct.pack("<b", offset)
    return head + bytes([0x80 | (number & 7) << 3 | at & 7]) + struct.pack("<i", offset)


def _vector(operation: int, number: int, base: str, offset: int) -> bytes:
    at = REGISTERS[base]
    prefix = (number > 7) << 2 | (at > 7)
    head = bytes([0x40 | prefix] * (prefix > 0) + [0x0F, operation])
    if base == "rsp":
        return head + bytes([0x84 | (number & 7) << 3, 0x24]) + struct.pack("<i", offset)
    return head + bytes([0x80 | (number & 7) << 3 | at & 7]) + struct.pack("<i", offset)
