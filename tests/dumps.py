"""Small dumps for tests: made up memory, written by a plan, and files that are bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from kdbridge.memory.files import DumpFile
from protocol.address import PAGE_SIZE, PageRuns
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.layout import ReadFile
from protocol.dumpfile.plan import DumpPlan
from simulator.paging import PageTables

__all__ = ["HEADER", "made_up_memory", "place_in", "reader", "rendered", "written"]

HEADER = DumpHeader(
    minor_version=19041,
    directory_table_base=0x1AD000,
    pfn_database=0xFFFFF804_12002600,
    ps_loaded_module_list=0xFFFFF804_12002390,
    ps_active_process_head=0xFFFFF804_12002200,
    machine_image_type=0x8664,
    number_processors=4,
    bug_check_code=0xD1,
    bug_check_parameters=(0x11, 0x22, 0x33, 0xFFFFF804_12001234),
    kd_debugger_data_block=0xFFFFF804_12001B20,
    context_record=bytes(3000),
    system_time=0x01D707F2_3DBB3399,
    system_up_time=0x023BC1E9,
    comment="made up",
    product_type=3,
    suite_mask=0x110,
    writer_status=0,
    kd_secondary_version=0,
    attributes=0,
    boot_id=0xD,
)
"""A header in which no two fields are alike."""


def made_up_memory(runs: PageRuns, seed: int = 1) -> dict[int, bytes]:
    """Pages of noise by frame number; all differ."""
    noise = random.Random(seed)
    return {page: noise.randbytes(PAGE_SIZE) for page in runs.pages()}


def rendered(plan: DumpPlan, memory: Mapping[int, bytes]) -> bytes:
    """The whole file, in memory."""
    return b"".join([*plan.prefix(), *(memory[page] for page in plan.pages.pages()), plan.secondary])


def written(path: Path, plan: DumpPlan, memory: Mapping[int, bytes] | Callable[[int], bytes]) -> Path:
    """The whole file, page by page on disk."""
    page_of = memory if callable(memory) else memory.__getitem__
    with path.open("wb") as file:
        file.writelines(plan.prefix())
        file.writelines(page_of(page) for page in plan.pages.pages())
        file.write(plan.secondary)
    return path


def place_in(path: Path, tables: PageTables, address: int) -> int:
    """Where the byte at this virtual address of a simulated machine lies in a dump of it that holds pages."""
    physical = tables.translate(address)
    assert physical is not None
    with DumpFile(path) as dump:
        offset = dump.layout.pages.offset_of(physical // PAGE_SIZE)
    assert offset is not None
    return offset + physical % PAGE_SIZE


def reader(data: bytes) -> ReadFile:
    """A file that is these bytes."""
    return lambda offset, size: data[offset : offset + size]
