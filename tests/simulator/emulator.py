"""A processor that carries on x64 code as capstone reads it, as far as functions' frames go: rsp, what is saved, calls.

It shares nothing with what made the code. Values that it cannot know are tokens: it says where the same one must lie.
"""

from __future__ import annotations

from collections.abc import Callable

import capstone
from capstone import x86

__all__ = ["NONVOLATILE", "Emulator", "Token"]

NONVOLATILE = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
_MEMORY, _REGISTER, _IMMEDIATE = x86.X86_OP_MEM, x86.X86_OP_REG, x86.X86_OP_IMM
_MOST = 5000
_MASK = (1 << 64) - 1


class Token:
    """A value that somebody else chose."""


Value = int | Token


class Emulator:
    """`read` gives code. Memory is what was written."""

    def __init__(self, read: Callable[[int, int], bytes | None]) -> None:
        self._read = read
        self._engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._engine.detail = True
        self.registers: dict[str, Value] = {name: Token() for name in NONVOLATILE}
        self.memory: dict[int, Value] = {}
        self.rip = 0
        self._equal = False

    @property
    def rsp(self) -> int:
        return self._known("rsp")

    def push(self, value: Value) -> None:
        self.registers["rsp"] = self.rsp - 8
        self.memory[self.rsp] = value

    def run_to(self, address: int) -> None:
        """Up to, not including, the instruction there."""
        for _ in range(_MOST):
            if self.rip == address:
                return
            self.step()
        raise AssertionError(f"it never comes to {address:#x}")

    def step(self) -> None:
        """One instruction."""
        data = self._read(self.rip, 16)
        assert data is not None, f"{self.rip:#x} is no code"
        instruction = next(self._engine.disasm(data, self.rip))
        self.rip += instruction.size
        self._carry_on(instruction)

    def _known(self, name: str) -> int:
        value = self.registers[name]
        assert isinstance(value, int), f"{name} should be known"
        return value

    def _place(self, one: capstone.CsInsn, number: int) -> int:
        memory = one.operands[number].mem
        if memory.base == x86.X86_REG_RIP:
            return self.rip + memory.disp
        assert not memory.index
        return self._known(one.reg_name(memory.base)) + memory.disp

    def _carry_on(self, one: capstone.CsInsn) -> None:
        operands = one.operands
        into = one.reg_name(operands[0].reg) if operands and operands[0].type == _REGISTER else ""
        match one.mnemonic:
            case "push":
                self.push(self.registers[into])
            case "pop":
                self.registers[into] = self.memory[self.rsp]
                self.registers["rsp"] = self.rsp + 8
            case "sub" | "add":
                assert into == "rsp"
                by = operands[1].imm
                self.registers["rsp"] = self.rsp + (by if one.mnemonic == "add" else -by)
            case "lea":
                self.registers[into] = self._place(one, 1)
            case "mov":
                self._move(one, into)
            case "call":
                self.push(self.rip)
                self.rip = operands[0].imm & _MASK if operands[0].type == _IMMEDIATE else self._known(into)
            case "jmp":
                self.rip = operands[0].imm & _MASK
            case "jne":
                self.rip = self.rip if self._equal else operands[0].imm & _MASK
            case "xor":
                self._equal = operands[0].reg == operands[1].reg
            case "movaps":
                if operands[0].type == _MEMORY:
                    place = self._place(one, 0)
                    assert place % 16 == 0, "it would fault"
                    self.memory[place] = self.memory[place + 8] = 0
            case "test" | "movzx" | "nop":
                pass
            case _:
                raise AssertionError(f"{one.address:#x}: {one.mnemonic} {one.op_str}")

    def _move(self, one: capstone.CsInsn, into: str) -> None:
        source = one.operands[1]
        if one.operands[0].type == _MEMORY:
            self.memory[self._place(one, 0)] = self.registers[one.reg_name(source.reg)]
        elif into in NONVOLATILE:
            if source.type == _IMMEDIATE:
                self.registers[into] = source.imm
            else:
                assert source.type == _MEMORY
                self.registers[into] = self.memory[self._place(one, 1)]
