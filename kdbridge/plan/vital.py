"""The pages without which a debugger opens nothing (dump-formats 3.3), found by their virtual addresses."""

from __future__ import annotations

from collections.abc import Iterator

from kdbridge.errors import MemoryFault, TargetRefusedError
from kdbridge.memory.translate import Translator
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns
from protocol.arch import Architecture, architecture_of

__all__ = ["vital_pages", "vital_ranges"]

_STACK = 0x6000
_HEADERS = PAGE_SIZE
_THREAD = 0x1000
_UNLOADED = 50 * 0x28
_LARGEST_TABLE = 1 << 20


def vital_ranges(target: Target, architecture: Architecture) -> Iterator[tuple[int, int]]:
    """(virtual address, size) of all that must be there, as far as discovery knows where it is."""
    yield target.version.kern_base, _HEADERS
    yield architecture.fixed_shared_data, PAGE_SIZE
    if target.version.ps_loaded_module_list:
        yield target.version.ps_loaded_module_list, 16
    if target.kdbg is not None:
        block = target.kdbg.block
        yield target.kdbg.address, len(block.raw)
        yield block["ki_bugcheck_data"], 40
        yield block["nt_build_lab"], 256
        yield block["ki_processor_block"], 8 * max(len(target.processors), 1)
        yield block["mm_unloaded_drivers"], 8
        yield block["mm_last_unloaded_driver"], 4
        yield block["mm_physical_memory_block"], 8
        yield block["saved_context"], architecture.context.size
        yield block["ps_active_process_head"], 16
    for processor in target.processors:
        if processor.prcb:
            size = 0 if target.kdbg is None else target.kdbg.block["size_prcb"]
            yield processor.prcb - 0x180, 0x180 + max(size, PAGE_SIZE)
        if processor.context_address:
            yield processor.context_address, architecture.context.size
        if processor.special_registers is not None:
            special = processor.special_registers
            for base, limit in architecture.descriptor_tables:
                yield special[base], special[limit] + 1
        if processor.context is not None:
            stack = processor.context[architecture.stack_pointer]
            yield stack & ~(PAGE_SIZE - 1), _STACK
            yield processor.context[architecture.program_counter] & ~(PAGE_SIZE - 1), PAGE_SIZE
    if target.stop is not None and target.stop.thread:
        yield target.stop.thread, _THREAD
    for module in target.modules:
        yield module.entry_address, 0xA0
        yield module.base, _HEADERS


async def vital_pages(source: Source, target: Target) -> PageRuns:
    """The frames of all that, and of the page tables on the way. What is not mapped is left out."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or target.directory_table_base is None or source.physical is None:
        return PageRuns()
    translator = Translator(source.physical, architecture.paging, target.directory_table_base, runs=target.runs)
    # Each processor's own root: a debugger that switches to a processor walks from there, and warns where it is gone.
    register = architecture.directory_table_base
    roots = [p.special_registers[register] for p in target.processors if p.special_registers is not None and register]
    frames = {(root & architecture.paging.root_mask) >> PAGE_SHIFT for root in (target.directory_table_base, *roots)}
    for address, size in vital_ranges(target, architecture):
        if not address or not architecture.paging.is_canonical(address):
            continue
        for page in range(address & ~(PAGE_SIZE - 1), address + min(size, _LARGEST_TABLE), PAGE_SIZE):
            try:
                found = await translator.translate(page & (1 << 64) - 1)
            except (MemoryFault, TargetRefusedError):
                continue
            frames.update(found.tables)
            if found.physical is not None:
                frames.add(found.physical >> PAGE_SHIFT)
    runs = PageRuns.from_pages(frames)
    return runs if target.runs is None else runs & target.runs
