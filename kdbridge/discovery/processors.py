"""Processors: by KiProcessorBlock, never by what a state change says of them (its fields may be garbage)."""

from __future__ import annotations

from kdbridge.errors import TargetRefusedError
from kdbridge.file_facts import told_by_file
from kdbridge.source import Source
from kdbridge.target import Kdbg, Processor, SharedData
from protocol.arch import Architecture

from .notes import Notes, try_read, try_read_pointer

__all__ = ["find_processors"]

_MOST_PROCESSORS = 2048
_STEP = "processors"


async def find_processors(
    source: Source,
    architecture: Architecture,
    kdbg: Kdbg | None,
    shared: SharedData | None,
    notes: Notes,
    *,
    stopped_only: bool = False,
) -> tuple[Processor, ...]:
    """Every processor with its registers and the place where a dump's readers look for them.

    With `stopped_only` there are no registers but those of the one that stopped, if it is clear which that is.
    """
    claimed = _claimed_count(source, shared)
    prcbs = await _prcbs(source, architecture, kdbg, claimed)
    if not prcbs:
        notes.missing(
            _STEP, f"KiProcessorBlock cannot be read; asking {claimed} processors for their registers all the same"
        )
        prcbs = [None] * claimed
    processors: list[Processor] = []
    silent: list[int] = []
    alone = await _stopped(source, architecture, len(prcbs)) if stopped_only else None
    for number, prcb in enumerate(prcbs):
        if alone is not None and number != alone:
            processors.append(Processor(number, prcb, None, None, None))
            continue
        try:
            context = await source.context(number)
        except TargetRefusedError:
            context = None
            silent.append(number)
        try:
            special = await source.special_registers(number)
        except TargetRefusedError:
            special = None
        address = await _context_address(source, architecture, kdbg, prcb)
        processors.append(Processor(number, prcb, address, context, special))
    if kdbg is not None and any(prcbs):
        notes.found(_STEP, f"{len(processors)}, by KiProcessorBlock at {kdbg.block['ki_processor_block']:#x}")
    told = told_by_file(source)
    if told is not None and any(one.context is told.context is not None for one in processors):
        notes.missing("registers", "those of processor 0 are the header's, which may be another's: memory has none")
    if silent:
        notes.missing("registers", f"the target gives none of processor {_listed(silent)}")
    if any(one.prcb is not None and one.context_address is None for one in processors if alone in (None, one.number)):
        notes.missing("registers", "a KPRCB names no CONTEXT: a debugger that opens the dump will not find registers")
    return tuple(processors)


async def _stopped(source: Source, architecture: Architecture, count: int) -> int | None:
    """Which one stopped, where it stands as the stop says: its number may be garbage."""
    stop = source.stop
    if stop is None or not 0 <= stop.processor < count:
        return None
    try:
        context = await source.context(stop.processor)
    except TargetRefusedError:
        return None
    return stop.processor if context[architecture.program_counter] == stop.program_counter else None


def _claimed_count(source: Source, shared: SharedData | None) -> int:
    """How many there should be: KUSER_SHARED_DATA, else the state change, else one."""
    if shared is not None and 1 <= shared.active_processor_count <= _MOST_PROCESSORS:
        return shared.active_processor_count
    if source.stop is not None and 1 <= source.stop.number_processors <= _MOST_PROCESSORS:
        return source.stop.number_processors
    return 1


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 16} more" if len(numbers) > 16 else ""
    return ", ".join(map(str, numbers[:16])) + more


async def _prcbs(source: Source, architecture: Architecture, kdbg: Kdbg | None, claimed: int) -> list[int | None]:
    if kdbg is None or not kdbg.block["ki_processor_block"]:
        return []
    address, width = kdbg.block["ki_processor_block"], architecture.pointer_size
    data = await try_read(source, address, width * claimed)
    if data is not None:
        words: list[int | None] = [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]
    else:
        # What lies in two pages, or in pieces of a small dump, may be there in part.
        words = [await try_read_pointer(source, address + width * number, width) for number in range(min(claimed, 64))]
    if not any(words):
        return []
    ends = (
        number for number, word in enumerate(words) if word is not None and not architecture.is_kernel_address(word)
    )
    return words[: next(ends, len(words))]  # null ends the list


async def _context_address(
    source: Source, architecture: Architecture, kdbg: Kdbg | None, prcb: int | None
) -> int | None:
    if kdbg is None or prcb is None:
        return None
    block = kdbg.block
    if block.has("offset_prcb_max_breakpoints") and block["offset_prcb_context"]:
        place = prcb + block["offset_prcb_context"]
        return await try_read_pointer(source, place, architecture.pointer_size) or None
    if block["offset_prcb_proc_state_context"]:
        return prcb + block["offset_prcb_proc_state_context"]
    return None
