"""Kernel structures that a debugger walks without symbols: lists, names, modules, runs (kd-protocol 7.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import construct as cs

from protocol.address import PageRun, PageRuns
from protocol.errors import LayoutError
from protocol.structure import StructureLayout

from .kernel32 import (
    KLDR_DATA_TABLE_ENTRY32,
    LIST_ENTRY32,
    PHYSICAL_MEMORY_DESCRIPTOR32,
    PHYSICAL_MEMORY_RUN32,
    UNLOADED_DRIVER32,
)

__all__ = [
    "KERNEL_LAYOUTS",
    "KLDR_DATA_TABLE_ENTRY64",
    "LARGEST_NAME",
    "LARGEST_RUN_COUNT",
    "LIST_ENTRY64",
    "PHYSICAL_MEMORY_DESCRIPTOR64",
    "PHYSICAL_MEMORY_RUN64",
    "UNLOADED_DRIVER64",
    "UNLOADED_DRIVER_SLOTS",
    "KernelLayouts",
    "encode_physical_memory_descriptor",
    "parse_physical_memory_descriptor",
]

LARGEST_NAME = 2048
"""Bytes of a UNICODE_STRING that are still believed; a damaged list holds huge ones."""

LARGEST_RUN_COUNT = 4096
"""More runs than this are not believed. Real machines have a few dozen; hot-added memory makes a few hundred."""

UNLOADED_DRIVER_SLOTS = 50
"""Entries in the ring at *MmUnloadedDrivers (size unconfirmed: stop at empty names)."""

LIST_ENTRY64 = StructureLayout(
    "LIST_ENTRY", cs.Struct("flink" / cs.Int64ul, "blink" / cs.Int64ul), {"flink": 0, "blink": 8}, 16
)

_MODULE = cs.Struct(
    "flink" / cs.Int64ul,
    "blink" / cs.Int64ul,
    "exception_table" / cs.Int64ul,
    "exception_table_size" / cs.Int32ul,
    cs.Padding(0x14),
    "dll_base" / cs.Int64ul,
    "entry_point" / cs.Int64ul,
    "size_of_image" / cs.Int32ul,
    cs.Padding(4),
    "full_dll_name_length" / cs.Int16ul,
    "full_dll_name_maximum" / cs.Int16ul,
    cs.Padding(4),
    "full_dll_name" / cs.Int64ul,
    "base_dll_name_length" / cs.Int16ul,
    "base_dll_name_maximum" / cs.Int16ul,
    cs.Padding(4),
    "base_dll_name" / cs.Int64ul,
    "flags" / cs.Int32ul,
    "load_count" / cs.Int16ul,
    cs.Padding(2),
    "section_pointer" / cs.Int64ul,
    "check_sum" / cs.Int32ul,
    cs.Padding(0xC),
    "loaded_imports" / cs.Int64ul,
    cs.Padding(8),
    "size_of_image_not_rounded" / cs.Int32ul,
    "time_date_stamp" / cs.Int32ul,
)

KLDR_DATA_TABLE_ENTRY64 = StructureLayout(
    "KLDR_DATA_TABLE_ENTRY",
    _MODULE,
    {
        "exception_table": 0x10,
        "exception_table_size": 0x18,
        "dll_base": 0x30,
        "entry_point": 0x38,
        "size_of_image": 0x40,
        "full_dll_name_length": 0x48,
        "full_dll_name": 0x50,
        "base_dll_name_length": 0x58,
        "base_dll_name": 0x60,
        "flags": 0x68,
        "load_count": 0x6C,
        "section_pointer": 0x70,
        "check_sum": 0x78,
        "loaded_imports": 0x88,
        "size_of_image_not_rounded": 0x98,
        "time_date_stamp": 0x9C,
    },
    0xA0,
)
"""Windows 10's shape; what lies behind CheckSum is unconfirmed before, so old timestamps come from the PE header."""

_UNLOADED = cs.Struct(
    "name_length" / cs.Int16ul,
    "name_maximum" / cs.Int16ul,
    cs.Padding(4),
    "name" / cs.Int64ul,
    "start_address" / cs.Int64ul,
    "end_address" / cs.Int64ul,
    "current_time" / cs.Int64ul,
)

UNLOADED_DRIVER64 = StructureLayout(
    "MM_UNLOADED_DRIVER", _UNLOADED, {"name": 8, "start_address": 0x10, "end_address": 0x18, "current_time": 0x20}, 0x28
)

PHYSICAL_MEMORY_DESCRIPTOR64 = StructureLayout(
    "PHYSICAL_MEMORY_DESCRIPTOR",
    cs.Struct("number_of_runs" / cs.Int32ul, cs.Padding(4), "number_of_pages" / cs.Int64ul),
    {"number_of_runs": 0, "number_of_pages": 8},
    0x10,
)
PHYSICAL_MEMORY_RUN64 = StructureLayout(
    "PHYSICAL_MEMORY_RUN",
    cs.Struct("base_page" / cs.Int64ul, "page_count" / cs.Int64ul),
    {"base_page": 0, "page_count": 8},
    0x10,
)


@dataclass(frozen=True, slots=True)
class KernelLayouts:
    """The structures of kernels whose pointers have one width. Fields of the same name mean the same in both."""

    pointer_size: int
    list_entry: StructureLayout
    module: StructureLayout
    unloaded_driver: StructureLayout
    descriptor: StructureLayout
    run: StructureLayout


KERNEL_LAYOUTS: Mapping[int, KernelLayouts] = {
    8: KernelLayouts(
        8, LIST_ENTRY64, KLDR_DATA_TABLE_ENTRY64, UNLOADED_DRIVER64, PHYSICAL_MEMORY_DESCRIPTOR64, PHYSICAL_MEMORY_RUN64
    ),
    4: KernelLayouts(
        4, LIST_ENTRY32, KLDR_DATA_TABLE_ENTRY32, UNLOADED_DRIVER32, PHYSICAL_MEMORY_DESCRIPTOR32, PHYSICAL_MEMORY_RUN32
    ),
}
"""By the size of a pointer."""

_HIGHEST_PAGE = 1 << 40  # 52 bits of physical address


def parse_physical_memory_descriptor(data: bytes, address: int | None = None, pointer_size: int = 8) -> PageRuns:
    """The runs of *MmPhysicalMemoryBlock; data must reach to the last run.

    Raises LayoutError when they overlap, go backwards, or do not add up to NumberOfPages.
    """
    layouts = KERNEL_LAYOUTS[pointer_size]
    name = layouts.descriptor.name
    head = layouts.descriptor.decode(data, address=address)
    count = head["number_of_runs"]
    if not 1 <= count <= LARGEST_RUN_COUNT:
        raise LayoutError(name, f"{count} runs are not believable", address)
    size = layouts.run.size
    runs: list[PageRun] = []
    for at in range(layouts.descriptor.size, layouts.descriptor.size + count * size, size):
        run = layouts.run.decode(data[at : at + size], address=address)
        runs.append(PageRun(run["base_page"], run["page_count"]))
        if run["base_page"] + run["page_count"] > _HIGHEST_PAGE or not run["page_count"]:
            raise LayoutError(name, f"run {len(runs) - 1} ({runs[-1]}) is not memory", address)
        if len(runs) > 1 and runs[-1].base_page < runs[-2].end_page:
            raise LayoutError(name, f"run {len(runs) - 1} ({runs[-1]}) does not lie behind the one before", address)
    if sum(run.page_count for run in runs) != head["number_of_pages"]:
        raise LayoutError(name, f"its runs do not add up to NumberOfPages {head['number_of_pages']:#x}", address)
    return PageRuns(runs)


def encode_physical_memory_descriptor(runs: list[PageRun]) -> bytes:
    """The descriptor with these runs, as the kernel keeps it."""
    head = {"number_of_runs": len(runs), "number_of_pages": sum(run.page_count for run in runs)}
    return PHYSICAL_MEMORY_DESCRIPTOR64.encode(head) + b"".join(
        PHYSICAL_MEMORY_RUN64.encode({"base_page": run.base_page, "page_count": run.page_count}) for run in runs
    )
