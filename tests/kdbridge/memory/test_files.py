"""Dump files as sources: pages where the file has them, in whatever order it does, and no register where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.errors import TargetRefusedError
from kdbridge.memory.files import DumpFile
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import encode_header
from protocol.dumpfile.complete import UNREADABLE_PAGE
from tests.dumps import HEADER, made_up_memory


def test_runs_that_touch_may_lie_apart_in_the_file(tmp_path: Path) -> None:
    # Frames 0x10 to 0x14, then those before them: one run of memory, in two pieces.
    runs = (PageRun(0x10, 5), PageRun(0x8, 8))
    memory = made_up_memory(PageRuns(runs))
    memory[0x12] = memory[0x9] = UNREADABLE_PAGE
    header = encode_header(replace(HEADER, physical_memory=runs))
    order = [page for run in runs for page in range(run.base_page, run.end_page)]
    path = tmp_path / "apart.dmp"
    path.write_bytes(header + b"".join(memory[page] for page in order))
    with DumpFile(path) as dump:
        assert dump.stored == PageRuns([PageRun(0x8, 13)])
        assert dump.unreadable == PageRuns.from_pages([0x9, 0x12])
        assert dump.held == dump.stored - dump.unreadable
        assert {page: dump.page(page) for page in memory} == {
            page: None if data == UNREADABLE_PAGE else data for page, data in memory.items()
        }
        assert dump.read_run(PageRun(0xA, 8)) == b"".join(memory[page] for page in range(0xA, 0x12))


async def test_a_header_too_small_for_registers_has_none(tmp_path: Path) -> None:
    pointers = ("pfn_database", "ps_loaded_module_list", "ps_active_process_head", "kd_debugger_data_block")
    # A 32-bit header that names a 64-bit machine: its CONTEXT has 1,200 bytes where x64 has 1,232.
    header = replace(
        HEADER,
        bits=32,
        bug_check_parameters=(1, 2, 3, 4),
        context_record=b"\1" * 1200,
        physical_memory=(PageRun(1, 1),),
        **dict.fromkeys(pointers, 0x80001000),  # type: ignore[arg-type]
    )
    path = tmp_path / "narrow.dmp"
    path.write_bytes(encode_header(header) + bytes(PAGE_SIZE))
    with DumpFile(path) as dump, pytest.raises(TargetRefusedError):
        await dump.context(0)
