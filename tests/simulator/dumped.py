"""A simulated kernel as dump files, written by `protocol.dumpfile` and without kdbridge: for outside readers."""

from __future__ import annotations

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRuns
from protocol.dumpfile import DumpType, plan_bitmap, plan_complete
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.plan import DumpPlan
from simulator.image import MemoryImage
from simulator.kernel import SimulatedKernel

__all__ = ["dump_plan", "header_of", "with_true_contexts"]


def with_true_contexts(kernel: SimulatedKernel) -> MemoryImage:
    """Its memory, with every processor's CONTEXT where readers of dumps look for it."""
    image = kernel.image.copy()
    for processor in kernel.processors:
        context = processor.context()
        for at in range(0, len(context), 16):  # it may lie across a page boundary
            place = kernel.tables.translate(processor.context_address + at)
            assert place is not None and image.write(place, context[at : at + 16])
    return image


def header_of(kernel: SimulatedKernel) -> DumpHeader:
    stopped = kernel.processors[kernel.stopped_processor]
    code, *parameters = kernel.bug_check
    pfn_database = kernel.symbols["MmPfnDatabase"]
    return DumpHeader(
        minor_version=kernel.version.minor_version,
        directory_table_base=kernel.directory_table_base,
        pfn_database=pfn_database,
        ps_loaded_module_list=kernel.version.ps_loaded_module_list,
        ps_active_process_head=kernel.symbols["PsActiveProcessHead"],
        machine_image_type=0x8664,
        number_processors=len(kernel.processors),
        bug_check_code=code,
        bug_check_parameters=(parameters[0], parameters[1], parameters[2], parameters[3]),
        kd_debugger_data_block=kernel.kdbg_address,
        context_record=stopped.context(),
        exception=ExceptionRecord(0x80000003, 1, 0, stopped.context_values["rip"]).encode(64),
        system_time=kernel.system_time,
        system_up_time=kernel.options.uptime,
    )


def dump_plan(kernel: SimulatedKernel, kind: int) -> tuple[DumpPlan, dict[int, bytes]]:
    """A plan for type 1, 5 or 6, and the pages it wants; a kernel dump takes what is mapped in the kernel half."""
    image, runs = with_true_contexts(kernel), kernel.image.runs
    if kind == 1:
        plan = plan_complete(header_of(kernel), runs)
    else:
        pages = runs - PageRuns.from_pages(kernel.image.unreadable)
        if kind == 6:
            mapped = {
                page
                for leaf in kernel.tables.mapped(slots=range(256, 512))
                for page in range(leaf.physical >> PAGE_SHIFT, leaf.physical + leaf.size >> PAGE_SHIFT)
            }
            tables = {page for process in kernel.processes for page in process.tables.pages}
            pages = pages & PageRuns.from_pages((mapped | tables) & set(pages.pages()))
        plan = plan_bitmap(header_of(kernel), runs, pages, DumpType(kind))
    memory = {pfn: image.read_page(pfn) or UNREADABLE_PAGE for pfn in plan.pages.pages()}
    assert all(len(page) == PAGE_SIZE for page in memory.values())
    return plan, memory
