"""The order of discovery: each step says what it found and how, or what is missing and what that costs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from kdbridge.file_facts import told_by_file
from kdbridge.source import Source, require_architecture
from kdbridge.target import Finding, Kdbg, Processor, SharedData, Target
from protocol.address import PAGE_SIZE, PageRuns
from protocol.arch import Architecture, pointer_size_of
from protocol.errors import LayoutError
from protocol.layouts.kernel import KERNEL_LAYOUTS, LARGEST_RUN_COUNT, parse_physical_memory_descriptor

from .kdbg import find_kdbg
from .modules import find_modules, find_unloaded_modules, listed_modules
from .notes import Notes, try_read, try_read_pointer
from .processes import links_offset_of
from .processors import find_processors

__all__ = ["LookedAgain", "discover", "find_memory_runs", "look_again"]

_SHARED_DATA = 0x400
_EPROCESS_LINKS = 0x600
"""Bytes before the links of an EPROCESS in which its beginning lies."""


async def discover(
    source: Source, report: Callable[[Finding], None] | None = None, *, first_look: bool = False
) -> Target:
    """Find out all about a stopped machine, a Snapshot or a dump.

    With `first_look` as little as tells why it stopped: no registers but those of the processor that did, and of
    modules only where they lie (`name_reader` reads a name). Over a slow line and for a machine with many of both that
    is a small part of the time.
    What cannot be found is a finding, not an error. Raises TargetLostError and TransportLostError when the target
    goes away meanwhile, and TargetRefusedError when it is of an architecture that this program does not know.
    """
    notes = Notes(report)
    version = await source.version()
    architecture = require_architecture(version.machine_type, source.name)
    kind = "checked" if version.checked else "free"
    notes.found("version", f"{architecture.name}, build {version.build}, {kind}, kernel at {version.kern_base:#x}")
    kdbg = await find_kdbg(source, version, notes)
    shared = await _shared_data(source, architecture, notes)
    processors = await find_processors(source, architecture, kdbg, shared, notes, stopped_only=first_look)
    root = await _directory_table_base(source, architecture, kdbg, processors, notes)
    runs = await _memory_runs(source, kdbg, notes, architecture.pointer_size)
    code, parameters = await _bug_check(source, kdbg, notes, architecture.pointer_size)
    listed = listed_modules(source, notes)
    modules, unloaded = listed or ((), ())
    # A small dump may have its lists in its memory all the same, where it lost those of its own.
    modules = modules or await find_modules(source, version, kdbg, notes, names=not first_look)
    unloaded = unloaded if listed is not None else await find_unloaded_modules(source, kdbg, notes, version)
    if source.physical is None and listed is not None:
        notes.missing("physical memory", "a small dump holds pieces of memory by virtual address, and no pages")
    elif source.physical is None:
        notes.missing("physical memory", "the target refuses physical reads; only what is mapped can be read")
    return Target(
        version=version,
        stop=source.stop,
        kdbg=kdbg,
        processors=processors,
        directory_table_base=root,
        runs=runs,
        bug_check_code=code,
        bug_check_parameters=parameters,
        modules=modules,
        unloaded_modules=unloaded,
        shared_data=shared,
        build_lab=await _build_lab(source, kdbg, notes),
        break_status=_break_status(source, architecture, kdbg, processors),
        findings=tuple(notes.findings),
    )


async def find_memory_runs(source: Source) -> PageRuns | None:
    """The frames of RAM alone, by few and small reads; None: not to be found out."""
    notes = Notes(None)
    version = await source.version()
    width = pointer_size_of(version.machine_type)
    return await _memory_runs(source, await find_kdbg(source, version, notes), notes, width)


@dataclass(frozen=True, slots=True)
class LookedAgain:
    """What tells one stop of one machine from another. None: it cannot be read (any more)."""

    kdbg: Kdbg | None
    shared_data: SharedData | None
    bug_check: tuple[int, int, int, int, int] | None
    """Code and parameters."""


async def look_again(source: Source, before: Target) -> LookedAgain:
    """Read anew what discovery had found on this machine, by few and small reads. What it had not found is None."""
    notes = Notes(None)
    architecture = require_architecture(before.version.machine_type, source.name)
    kdbg = await find_kdbg(source, before.version, notes) if before.kdbg is not None else None
    shared = await _shared_data(source, architecture, notes) if before.shared_data is not None else None
    code, parameters = await _bug_check(source, kdbg, notes, architecture.pointer_size)
    return LookedAgain(kdbg, shared, None if code is None else (code, *parameters))


async def _shared_data(source: Source, architecture: Architecture, notes: Notes) -> SharedData | None:
    data = await try_read(source, architecture.fixed_shared_data, _SHARED_DATA)
    told = told_by_file(source)
    if data is None and told is not None and told.shared_data is not None:
        notes.found("shared data", "times and product type, by the file's header")
        return told.shared_data
    if data is None:
        notes.missing("shared data", "KUSER_SHARED_DATA cannot be read: no times, no product type")
        return None
    at = architecture.shared_data_offsets

    def number(name: str, size: int = 4) -> int:
        return int.from_bytes(data[at[name] : at[name] + size], "little")

    root = data[at["nt_system_root"] : at["nt_system_root"] + 520].decode("utf-16-le", "replace").split("\0")[0]
    return SharedData(
        system_time=number("system_time", 8),
        interrupt_time=number("interrupt_time", 8),
        nt_major_version=number("nt_major_version"),
        nt_minor_version=number("nt_minor_version"),
        nt_build_number=number("nt_build_number"),
        product_type=number("nt_product_type"),
        suite_mask=number("suite_mask"),
        system_root=root,
        active_processor_count=number("active_processor_count"),
    )


async def _directory_table_base(
    source: Source, architecture: Architecture, kdbg: Kdbg | None, processors: tuple[Processor, ...], notes: Notes
) -> int | None:
    """System's, of its EPROCESS; else a processor's CR3. The kernel half is the same in both."""
    step = "directory table base"
    mask, width = architecture.paging.root_mask, architecture.pointer_size
    if source.physical is not None and kdbg is not None and kdbg.block["offset_eprocess_directory_table_base"]:
        offset = kdbg.block["offset_eprocess_directory_table_base"]
        link = await try_read_pointer(source, kdbg.block["ps_active_process_head"], width)
        # Where the links lie in an EPROCESS is not told: System is the one whose process id, before them, is 4.
        if link and architecture.is_kernel_address(link):
            before = await try_read(source, link - _EPROCESS_LINKS, _EPROCESS_LINKS) or b""
            links = links_offset_of(before, offset, mask, width)
            if links is not None:
                start = len(before) - links + offset
                value = int.from_bytes(before[start : start + width], "little")
                notes.found(step, f"{value:#x}, of the System process")
                return value
    stopped = source.stop.processor if source.stop is not None else 0
    register = architecture.directory_table_base
    for processor in sorted(processors, key=lambda p: p.number != stopped):
        if processor.special_registers is not None and register is not None:
            value = processor.special_registers[register]
            if value & mask:
                notes.found(step, f"{value:#x}, {register} of processor {processor.number}")
                return value
    told = told_by_file(source)
    if told is not None and told.directory_table_base & mask:
        notes.found(step, f"{told.directory_table_base:#x}, by the file's header")
        return told.directory_table_base
    notes.missing(step, "no processor told its own: page tables cannot be walked, no kernel dump is possible")
    return None


async def _memory_runs(source: Source, kdbg: Kdbg | None, notes: Notes, width: int) -> PageRuns | None:
    step = "physical memory runs"
    told = told_by_file(source)
    found, problem = await _descriptor(source, kdbg, width)
    if found is None and told is not None and told.runs is not None:
        notes.found(step, f"{_amount(told.runs)}, by the file's header")
        return told.runs
    if found is None:
        notes.missing(step, problem)
        return None
    notes.found(step, f"{_amount(found)}, by MmPhysicalMemoryBlock")
    return found


def _amount(runs: PageRuns) -> str:
    return f"{len(runs)}, {runs.page_count * PAGE_SIZE / (1 << 20):,.0f} MiB"


async def _descriptor(source: Source, kdbg: Kdbg | None, width: int) -> tuple[PageRuns | None, str]:
    """The runs of MmPhysicalMemoryBlock, or why there are none."""
    if kdbg is None:
        return None, "unknown without the KDBG: no complete dump is possible"
    layouts = KERNEL_LAYOUTS[width]
    address = await try_read_pointer(source, kdbg.block["mm_physical_memory_block"], width)
    head = await try_read(source, address or 0, layouts.descriptor.size)
    if not address or head is None:
        return None, "MmPhysicalMemoryBlock cannot be read: no complete dump is possible"
    count = min(int.from_bytes(head[:4], "little"), LARGEST_RUN_COUNT)
    data = await try_read(source, address, layouts.descriptor.size + layouts.run.size * count)
    try:
        return parse_physical_memory_descriptor(data or b"", address, width), ""
    except LayoutError as error:
        return None, f"{error}: no complete dump is possible"


async def _bug_check(
    source: Source, kdbg: Kdbg | None, notes: Notes, width: int
) -> tuple[int | None, tuple[int, int, int, int]]:
    """Code and parameters: five words of the kernel's; where a file has them not, or none of them, its header's."""
    data = await try_read(source, kdbg.block["ki_bugcheck_data"], 5 * width) if kdbg is not None else None
    told = told_by_file(source)
    words = None if data is None else struct.unpack("<5Q" if width == 8 else "<5I", data)
    if told is not None and (words is None or (told.bug_check[0] and not words[0])):
        notes.found("bug check", f"{told.bug_check[0]:#x}, by the file's header")
        return told.bug_check[0], told.bug_check[1:]
    if words is None:
        notes.missing("bug check", "KiBugCheckData cannot be read: whether there was one is not known")
        return None, (0, 0, 0, 0)
    code, one, two, three, four = words
    code &= 0xFFFF_FFFF
    notes.found("bug check", f"{code:#x}" if code else "none")
    return code, (one, two, three, four)


async def _build_lab(source: Source, kdbg: Kdbg | None, notes: Notes) -> str:
    data = await try_read(source, kdbg.block["nt_build_lab"], 128) if kdbg is not None else None
    text = (data or b"").split(b"\0")[0]
    if not text:
        notes.missing("build lab", "NtBuildLab cannot be read")
    return text.decode("ascii", "replace")


def _break_status(
    source: Source, architecture: Architecture, kdbg: Kdbg | None, processors: tuple[Processor, ...]
) -> int | None:
    """The argument of DbgBreakPointWithStatus, where the stopped processor stands on its int3."""
    if kdbg is None or source.stop is None:
        return None
    place = kdbg.block["breakpoint_with_status"]
    for processor in processors:
        context = processor.context
        if context is not None and context[architecture.program_counter] == place == source.stop.program_counter:
            return context[architecture.first_argument] & 0xFFFF_FFFF
    return None
