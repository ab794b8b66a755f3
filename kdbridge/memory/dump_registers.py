"""Registers out of a dump: where a debugger finds them in its memory, else what its header repeats of them."""

from __future__ import annotations

from kdbridge.discovery.kdbg import block_at, find_kdbg
from kdbridge.discovery.notes import Notes, try_read, try_read_pointer
from kdbridge.errors import TargetRefusedError
from kdbridge.source import Source
from protocol.arch import Architecture
from protocol.structure import Structure

__all__ = ["DumpRegisters", "context_of_header"]

_MOST_PROCESSORS = 2048
_CONTEXT_SINCE = 0x33A
"""A KDBG longer than this has OffsetPrcbContext (Windows 7)."""
_UNSET = b"PAGE"
_OLD_STATE = {4: 0x1C}
"""KPRCB.ProcessorState of x86 kernels whose KDBG does not say where it is: Windows XP (kd-protocol 5.5, 6.2)."""


def context_of_header(raw: bytes, architecture: Architecture) -> Structure | None:
    """The CONTEXT in a dump's header; None where none was put there, or it has no room for this architecture's."""
    data = raw[: architecture.context.size]
    if len(data) < architecture.context.size or not any(data) or data[:16] == _UNSET * 4:
        return None
    return architecture.context.decode(data)


class DumpRegisters:
    """The processors of one dump, through its KDBG and KiProcessorBlock. The KDBG is looked for once."""

    def __init__(self, source: Source, kdbg_address: int, header_context: Structure | None) -> None:
        """`kdbg_address` is what the header says; where no KDBG is there it is searched for."""
        self._source = source
        self._address = kdbg_address
        self._header_context = header_context
        self._block: Structure | None = None
        self._looked = False

    async def _kdbg(self, pointer_size: int) -> Structure | None:
        if not self._looked:
            self._looked = True
            found = await block_at(self._source, self._address, pointer_size)
            if found is None:
                found = await find_kdbg(self._source, await self._source.version(), Notes(None))
            self._block = None if found is None else found.block
        return self._block

    async def context(self, processor: int, architecture: Architecture) -> Structure:
        """A processor's CONTEXT; of the first, the header's where memory has none. TargetRefusedError: there is none.

        A KPRCB points to it since Windows 7, and held it before.
        """
        block = await self._kdbg(architecture.pointer_size)
        found = None if block is None else await self._in_memory(processor, block, architecture)
        if found is not None:
            return found
        if processor == 0 and self._header_context is not None:
            return self._header_context
        if block is None:
            raise TargetRefusedError(f"{self._source.name} holds no readable KDBG", api="KDBG", status=0)
        raise TargetRefusedError(
            f"{self._source.name} holds no registers of processor {processor}", api="CONTEXT", status=0
        )

    async def _in_memory(self, processor: int, block: Structure, architecture: Architecture) -> Structure | None:
        width = architecture.pointer_size
        prcb = await self._prcb(processor, block, width)
        if not prcb:
            return None
        if block["offset_prcb_context"] and block["size"] > _CONTEXT_SINCE:
            place = await try_read_pointer(self._source, prcb + block["offset_prcb_context"], width)
        else:
            offset = _state_offset(block, width)
            place = prcb + offset if offset else None
        data = await try_read(self._source, place or 0, architecture.context.size)
        if data is None:
            return None
        found = architecture.context.decode(data)
        base = architecture.context_flags_base
        if _is_told(block) or found[architecture.context_flags] & base == base:
            return found
        return None

    async def special_registers(self, processor: int, architecture: Architecture) -> Structure:
        """A processor's KSPECIAL_REGISTERS, from its KPRCB. TargetRefusedError: there are none."""
        layout, width = architecture.special_registers, architecture.pointer_size
        block = await self._kdbg(width)
        prcb = 0 if block is None else await self._prcb(processor, block, width)
        if block is not None and prcb:
            offset = block["offset_prcb_proc_state_special_reg"]
            if not offset and not _is_told(block) and _state_offset(block, width):
                offset = _state_offset(block, width) + architecture.context.size
            for size in (layout.size, architecture.special_registers_least):
                data = await try_read(self._source, prcb + offset, size) if offset else None
                if data is not None:
                    return layout.decode(data, least=architecture.special_registers_least)
        raise TargetRefusedError(
            f"{self._source.name} holds no special registers of processor {processor}",
            api="KSPECIAL_REGISTERS", status=0,
        )  # fmt: skip

    async def _prcb(self, processor: int, block: Structure, width: int) -> int:
        if not 0 <= processor < _MOST_PROCESSORS or not block["ki_processor_block"]:
            return 0
        return await try_read_pointer(self._source, block["ki_processor_block"] + width * processor, width) or 0


def _is_told(block: Structure) -> bool:
    """Whether this KDBG is long enough to say where a processor's state lies."""
    return block.has("offset_prcb_proc_state_context")


def _state_offset(block: Structure, width: int) -> int:
    return block["offset_prcb_proc_state_context"] if _is_told(block) else _OLD_STATE.get(width, 0)
