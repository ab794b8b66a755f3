"""Dump files as sources: pages where the file has them, in whatever order it does, and no register where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.errors import DumpError, TargetRefusedError
from kdbridge.memory.files import DumpFile
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile import encode_header
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.plan import plan_bitmap, plan_complete
from tests.dumps import HEADER, made_up_memory, rendered


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


def test_a_file_that_becomes_shorter_gives_no_page_that_is_not_there_any_more(tmp_path: Path) -> None:
    runs = (PageRun(0x10, 5), PageRun(0x20, 3))
    memory = made_up_memory(PageRuns(runs))
    path = tmp_path / "shorter.dmp"
    path.write_bytes(encode_header(replace(HEADER, physical_memory=runs)) + b"".join(memory.values()))
    with DumpFile(path) as dump:
        with path.open("r+b") as file:
            file.truncate(0x2000 + 6 * PAGE_SIZE + 100)
        assert dump.read_run(PageRun(0x10, 5)) == b"".join(memory[pfn] for pfn in range(0x10, 0x15))
        assert dump.page(0x20) == memory[0x20]
        for run in (PageRun(0x20, 2), PageRun(0x20, 3)):
            with pytest.raises(DumpError, match="shorter while it was read: frame 0x21 is not there any more"):
                dump.read_run(run)
        with pytest.raises(DumpError, match="frame 0x22 is not there any more"):
            dump.page(0x22)


@pytest.mark.parametrize("kind", [1, 5])
def test_deadfeed_is_a_mark_in_a_complete_dump_only(kind: int, tmp_path: Path) -> None:
    # 0xDEADFEED stands for what could not be read in type 1; elsewhere such a page is left out (dump-formats 2.2, 2.3).
    fill = bytes.fromhex("edfeadde") * 0x400
    runs = PageRuns([PageRun(1, 3)])
    plan = plan_complete(HEADER, runs) if kind == 1 else plan_bitmap(HEADER, runs, runs, DumpType.BITMAP_FULL)
    path = tmp_path / "filled.dmp"
    path.write_bytes(rendered(plan, {**made_up_memory(runs), 2: fill}))
    with DumpFile(path) as dump:
        assert dump.page(2) == (None if kind == 1 else fill)
        assert (2 in dump.held) is (kind != 1)
