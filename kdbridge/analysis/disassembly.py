"""The instruction that did it and those behind it, disassembled, with the memory that it touches."""

from __future__ import annotations

import capstone

from kdbridge.discovery.notes import readable_end, try_read
from kdbridge.source import Source
from protocol.address import format_address
from protocol.arch import Architecture, MachineType

from .model import Instruction, MemoryOperand, Missing
from .names import Names
from .operands import Touch, touched_by
from .registers import Registers

__all__ = ["Disassembler"]

_CODE = 0x40
"""Bytes that are read for the instructions."""
_LONGEST, _SHOWN = 15, 4
"""Bytes of an instruction of x64, and of what is none."""
_MODES = {
    MachineType.AMD64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    MachineType.I386: (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    MachineType.ARM64: (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}


class Disassembler:
    """Reads code and puts it into words. `gs_base` is the KPCR's address where the processor is in the kernel."""

    def __init__(self, source: Source, names: Names, architecture: Architecture, gs_base: int | None = None) -> None:
        self._source = source
        self._names = names
        self._architecture = architecture
        self._gs_base = gs_base

    async def at(
        self, address: int, registers: Registers | None = None, count: int = 6
    ) -> tuple[tuple[Instruction, ...], tuple[Missing, ...]]:
        """`count` instructions from this address on, and what could not be found out.

        `registers` are those at the first of them: of the others, only operands that no register decides are told.
        """
        mode = _MODES.get(self._architecture.machine_type)
        if mode is None:
            return (), (Missing("the instruction", f"code of {self._architecture.name} is not disassembled"),)
        code = await readable_end(self._source, address, _CODE) if address else b""
        if not code:
            why = f"there is no code at {format_address(address)}, or it cannot be read"
            return (), (Missing("the instruction", why, ((address, 1),)),)
        decoder = capstone.Cs(*mode)
        decoder.detail = True
        found: list[Instruction] = []
        missing: list[Missing] = []
        at = address
        for one in decoder.disasm(code, address, count):
            touches = touched_by(one, self._architecture, registers if at == address else None, self._gs_base)
            operands: list[MemoryOperand] = []
            for touch in touches:
                if touch.address is not None:
                    operands.append(await self._operand(touch, touch.address))
                elif at == address:
                    missing.append(Missing(f"where {touch.expression} lies", touch.why))
            found.append(Instruction(at, bytes(one.bytes), f"{one.mnemonic} {one.op_str}".rstrip(), tuple(operands)))
            at += one.size
        rest = code[at - address :]
        if len(found) < count and len(rest) >= self._longest:
            wrong = rest[:_SHOWN]
            found.append(Instruction(at, wrong, f"no instruction: {wrong.hex(' ')}"))
        elif not found:
            why = f"the code at {format_address(address)} ends in memory that cannot be read"
            missing.append(Missing("the instruction", why, ((address + len(code), 1),)))
        return tuple(found), tuple(missing)

    @property
    def _longest(self) -> int:
        """Bytes of the longest instruction: with as many, it is no matter of memory that is missing."""
        return 4 if self._architecture.machine_type == MachineType.ARM64 else _LONGEST

    async def _operand(self, touch: Touch, address: int) -> MemoryOperand:
        content = await try_read(self._source, address, touch.size) if touch.size else None
        place = await self._names.place(address)
        return MemoryOperand(
            touch.expression, address, touch.access, touch.size, content, place if place.module else None
        )
