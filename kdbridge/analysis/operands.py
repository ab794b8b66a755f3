"""Which memory a disassembled instruction touches, as far as the registers that are known tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capstone import arm64, x86

from protocol.arch import Architecture, MachineType

from .registers import Registers

__all__ = ["Touch", "touched_by"]

_STRUCTURED = 64
"""More bytes than this no operand is said to have."""
_WORDS = {1: "read", 2: "write", 3: "read and write"}


@dataclass(frozen=True, slots=True)
class Touch:
    """Memory that an instruction touches; `address` is None where a register is not known, and `why` says which."""

    expression: str
    address: int | None
    access: str
    size: int
    why: str = ""


def touched_by(
    instruction: Any, architecture: Architecture, registers: Registers | None, gs_base: int | None = None
) -> Iterator[Touch]:
    """The memory that one of capstone's instructions touches. Without registers, what is relative to it alone."""
    if architecture.machine_type == MachineType.ARM64:
        yield from _of_arm64(instruction, registers)
    else:
        yield from _of_x86(instruction, architecture, registers, gs_base)


_TOUCH_NOTHING = frozenset(
    {
        x86.X86_INS_LEA, x86.X86_INS_NOP, x86.X86_INS_PREFETCH, x86.X86_INS_PREFETCHNTA, x86.X86_INS_PREFETCHT0,
        x86.X86_INS_PREFETCHT1, x86.X86_INS_PREFETCHT2, x86.X86_INS_PREFETCHW, x86.X86_INS_INVLPG,
    }
)  # fmt: skip
"""They have an address, and no access that can fail."""
_PUSHES = frozenset({x86.X86_INS_PUSH, x86.X86_INS_PUSHFQ, x86.X86_INS_PUSHFD, x86.X86_INS_CALL})
_POPS = frozenset({x86.X86_INS_POP, x86.X86_INS_POPFQ, x86.X86_INS_POPFD, x86.X86_INS_RET})


def _of_x86(
    instruction: Any, architecture: Architecture, registers: Registers | None, gs_base: int | None
) -> Iterator[Touch]:
    width = architecture.pointer_size
    mask = (1 << 8 * width) - 1
    if instruction.id not in _TOUCH_NOTHING:
        for operand in instruction.operands:
            if operand.type != x86.X86_OP_MEM:
                continue
            memory = operand.mem
            parts = {
                instruction.reg_name(register): factor
                for register, factor in ((memory.base, 1), (memory.index, memory.scale))
                if register
            }
            if memory.base and memory.base == memory.index:
                parts = {instruction.reg_name(memory.base): 1 + memory.scale}
            total, why = memory.disp, ""
            for name, factor in parts.items():
                value = _x86_value(name, instruction, architecture, registers)
                if value is None:
                    why = why or f"{name} is not known there"
                else:
                    total += value * factor
            segment = instruction.reg_name(memory.segment) if memory.segment else ""
            if segment in ("gs", "fs"):
                base = gs_base if segment == "gs" and width == 8 else None
                if base is None:
                    why = why or f"the base of {segment} is not known there"
                total += base or 0
            if registers is None and (segment or any(name != "rip" for name in parts)):
                continue
            yield Touch(
                _expression(instruction, memory, segment),
                None if why else total & mask,
                _WORDS.get(operand.access, "read"),
                operand.size if operand.size <= _STRUCTURED else 0,
                why,
            )
    pointer = registers.context[architecture.stack_pointer] if registers is not None else None
    if pointer is not None:
        name = architecture.stack_pointer
        if instruction.id in _PUSHES:
            yield Touch(f"[{name} - {width}]", pointer - width & mask, "write", width)
        elif instruction.id in _POPS:
            yield Touch(f"[{name}]", pointer, "read", width)


def _expression(instruction: Any, memory: Any, segment: str) -> str:
    """The operand as capstone writes it, without its size."""
    parts = [instruction.reg_name(memory.base)] if memory.base else []
    if memory.index:
        parts.append(instruction.reg_name(memory.index) + (f"*{memory.scale}" if memory.scale > 1 else ""))
    text = " + ".join(parts)
    if not parts:
        text = f"{memory.disp & (1 << 64) - 1:#x}"
    elif memory.disp:
        text += f" {'-' if memory.disp < 0 else '+'} {abs(memory.disp):#x}"
    return f"{segment}:[{text}]" if segment else f"[{text}]"


def _x86_value(name: str, instruction: Any, architecture: Architecture, registers: Registers | None) -> int | None:
    if name in ("rip", "eip"):
        return int(instruction.address) + int(instruction.size)
    if registers is None:
        return None
    if name in registers.known:
        return registers.context[name]
    # 32-bit halves, which an address may be made of in 64-bit code too.
    whole = name[:-1] if name.endswith("d") and name[1:-1].isdigit() else "r" + name[1:]
    if architecture.pointer_size == 8 and whole in registers.known:
        return registers.context[whole] & 0xFFFF_FFFF
    return None


def _of_arm64(instruction: Any, registers: Registers | None) -> Iterator[Touch]:
    literal = instruction.mnemonic.startswith("ldr") and len(instruction.operands) == 2
    for number, operand in enumerate(instruction.operands):
        size = _arm64_size(instruction)
        if literal and number == 1 and operand.type == arm64.ARM64_OP_IMM:
            yield Touch(f"[{operand.imm:#x}]", operand.imm & (1 << 64) - 1, "read", size)
        if (
            operand.type != arm64.ARM64_OP_MEM
            or registers is None
            or instruction.mnemonic.startswith(("prfm", "prfum"))
        ):
            continue
        memory = operand.mem
        base, index = instruction.reg_name(memory.base), instruction.reg_name(memory.index) if memory.index else ""
        start, step = _arm64_value(base, registers), _arm64_value(index, registers) if index else 0
        why = next(
            (f"{name} is not known there" for name, value in ((base, start), (index, step)) if value is None), ""
        )
        if operand.ext in (arm64.ARM64_EXT_SXTW, arm64.ARM64_EXT_SXTX) and step is not None:
            bits = 32 if operand.ext == arm64.ARM64_EXT_SXTW else 64
            step -= (step >> bits - 1 & 1) << bits
        if operand.shift.type == arm64.ARM64_SFT_LSL and step is not None:
            step <<= operand.shift.value
        address = None if start is None or step is None else start + step + memory.disp & (1 << 64) - 1
        text = instruction.op_str[instruction.op_str.find("[") :].split("]")[0] + "]"
        yield Touch(text, address, _arm64_access(instruction.mnemonic), size, why)


def _arm64_value(name: str, registers: Registers) -> int | None:
    if name in ("xzr", "wzr"):
        return 0
    name = {"x29": "fp", "x30": "lr", "w29": "fp", "w30": "lr", "wsp": "sp"}.get(name, name)
    whole = "x" + name[1:] if name.startswith("w") else name
    if whole not in registers.known:
        return None
    return registers.context[whole] & (0xFFFF_FFFF if name.startswith("w") else (1 << 64) - 1)


def _arm64_access(mnemonic: str) -> str:
    """Capstone says of stores that they read, too."""
    if mnemonic.startswith("st"):
        return "write"
    if mnemonic.startswith(("cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin")):
        return "read and write"
    return "read"


def _arm64_size(instruction: Any) -> int:
    """Bytes that a load or store touches: by its mnemonic, else by the registers that it moves."""
    name = (
        instruction.mnemonic.rstrip("alr") if instruction.mnemonic.startswith(("cas", "swp")) else instruction.mnemonic
    )
    if name.endswith("b"):
        return 1
    if name.endswith("h"):
        return 2
    if name.endswith("sw"):
        return 4
    first = instruction.reg_name(instruction.operands[0].reg) or "x"
    if name.startswith("st") and "x" in name[2:] and len(instruction.operands) > 2:
        first = instruction.reg_name(instruction.operands[1].reg) or "x"  # before it, the status of an exclusive store
    size = {"w": 4, "b": 1, "h": 2, "s": 4, "d": 8, "q": 16}.get(first[0], 8) if first not in ("sp", "fp") else 8
    return 2 * size if name in ("ldp", "stp", "ldnp", "stnp", "ldxp", "ldaxp") else size
