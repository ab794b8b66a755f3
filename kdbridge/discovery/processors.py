"""Processors: by KiProcessorBlock, never by what a state change says of them (its fields may be garbage)."""

from __future__ import annotations

import struct

from kdbridge.errors import TargetRefusedError
from kdbridge.source import Source
from kdbridge.target import Kdbg, Processor, SharedData
from protocol.arch import Architecture

from .notes import Notes, try_read, try_read_pointer

__all__ = ["find_processors"]

_MOST_PROCESSORS = 2048
_STEP = "processors"


async def find_processors(
    source: Source, architecture: Architecture, kdbg: Kdbg | None, shared: SharedData | None, notes: Notes
) -> tuple[Processor, ...]:
    """Every processor with its registers and the place where a dump's readers look for them."""
    claimed = _claimed_count(source, shared)
    prcbs = await _prcbs(source, kdbg, claimed)
    if not prcbs:
        notes.missing(
            _STEP, f"KiProcessorBlock cannot be read; asking {claimed} processors for their registers all the same"
        )
        prcbs = [None] * claimed
    processors: list[Processor] = []
    silent: list[int] = []
    for number, prcb in enumerate(prcbs):
        try:
            context = await source.context(number)
        except TargetRefusedError:
            context = None
            silent.append(number)
        try:
            special = await source.special_registers(number)
        except TargetRefusedError:
            special = None
        address = await _context_address(source, kdbg, prcb)
        processors.append(Processor(number, prcb, address, context, special))
    if kdbg is not None and prcbs[0] is not None:
        notes.found(_STEP, f"{len(processors)}, by KiProcessorBlock at {kdbg.block['ki_processor_block']:#x}")
    if silent:
        notes.missing("registers", f"the target gives none of processor {', '.join(map(str, silent))}")
    if any(processor.prcb is not None and processor.context_address is None for processor in processors):
        notes.missing("registers", "a KPRCB names no CONTEXT: a debugger that opens the dump will not find registers")
    return tuple(processors)


def _claimed_count(source: Source, shared: SharedData | None) -> int:
    """How many there should be: KUSER_SHARED_DATA, else the state change, else one."""
    if shared is not None and 1 <= shared.active_processor_count <= _MOST_PROCESSORS:
        return shared.active_processor_count
    if source.stop is not None and 1 <= source.stop.number_processors <= _MOST_PROCESSORS:
        return source.stop.number_processors
    return 1


async def _prcbs(source: Source, kdbg: Kdbg | None, claimed: int) -> list[int | None]:
    if kdbg is None or not kdbg.block["ki_processor_block"]:
        return []
    address = kdbg.block["ki_processor_block"]
    data = await try_read(source, address, 8 * claimed)
    if data is None:
        data = await try_read(source, address, 8) or b""
    prcbs: list[int | None] = []
    for value in struct.unpack(f"<{len(data) // 8}Q", data):
        if not value >> 47:
            break  # null ends the list
        prcbs.append(value)
    return prcbs


async def _context_address(source: Source, kdbg: Kdbg | None, prcb: int | None) -> int | None:
    if kdbg is None or prcb is None:
        return None
    block = kdbg.block
    if block.has("offset_prcb_max_breakpoints") and block["offset_prcb_context"]:
        return await try_read_pointer(source, prcb + block["offset_prcb_context"]) or None
    if block["offset_prcb_proc_state_context"]:
        return prcb + block["offset_prcb_proc_state_context"]
    return None
