"""What a plan says is written, read by three programs that other people wrote: every page, and the header."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.complete import complete_size
from protocol.dumpfile.header import DumpHeader, DumpType
from protocol.dumpfile.plan import DumpPlan, plan_bitmap, plan_complete
from protocol.errors import DumpFormatError
from tests.dumps import HEADER, made_up_memory, rendered, written
from tests.oracles import kdmp, leechcore, volatility
from tests.oracles.oracle import Oracle, OracleError

_RUNS = PageRuns([PageRun(1, 0x9E), PageRun(0x100, 0xEFF), PageRun(0x1010, 0x400)])
_END = 0x1500
_TORN = PageRuns(PageRun(page, 1 + page % 3) for page in range(1, 0x9E0, 7)) | PageRuns([PageRun(0x1200, 0x210)])
_KINDS = {1: DumpType.FULL, 5: DumpType.BITMAP_FULL, 6: DumpType.BITMAP_KERNEL}


def _plan(number: int, pages: PageRuns = _RUNS) -> DumpPlan:
    return plan_complete(HEADER, _RUNS) if number == 1 else plan_bitmap(HEADER, _RUNS, pages, _KINDS[number])


@pytest.fixture(scope="module")
def memory() -> dict[int, bytes]:
    """20 MiB of noise: LeechCore takes no file below 16."""
    return made_up_memory(_RUNS | _TORN)


def _agrees(oracle: Oracle, plan: DumpPlan, memory: dict[int, bytes]) -> None:
    assert list(oracle.pages()) == list(plan.pages.pages())
    wrong = [p for p in range(_END) if oracle.read_page(p) != (memory[p] if p in plan.pages else None)]
    assert wrong == []


@pytest.mark.parametrize("number", [1, 5, 6])
@pytest.mark.parametrize("oracle", [kdmp, volatility, leechcore], ids=lambda oracle: oracle.__name__.rpartition(".")[2])
def test_every_page_is_where_others_look_for_it(
    number: int, oracle: Any, memory: dict[int, bytes], tmp_path: Path
) -> None:
    plan = _plan(number)
    path = written(tmp_path / "made-up.dmp", plan, memory)
    assert path.stat().st_size == plan.total_size == plan.header.required_dump_space
    if (number, oracle) == (6, volatility):
        with pytest.raises(OracleError, match="unsupported dump format 0x6"), oracle.open_oracle(path):
            pass
        return
    with oracle.open_oracle(path) as opened:
        _agrees(opened, plan, memory)


@pytest.mark.parametrize(("number", "oracle"), [(5, kdmp), (5, volatility), (6, kdmp)])
def test_torn_bitmaps(number: int, oracle: Any, memory: dict[int, bytes], tmp_path: Path) -> None:
    plan = _plan(number, _TORN)
    assert len(plan.pages) > 300
    with oracle.open_oracle(written(tmp_path / "torn.dmp", plan, memory)) as opened:
        _agrees(opened, plan, memory)


def test_leechcore_reads_a_torn_bitmap_of_a_big_machine(tmp_path: Path) -> None:
    pages = PageRuns(PageRun(page, 9) for page in range(0x40000, 0x44000, 0x1F))
    plan = plan_bitmap(HEADER, PageRuns([PageRun(1, 0x50000)]), pages, DumpType.BITMAP_KERNEL)
    assert plan.total_size >= leechcore.LEAST_FILE_SIZE
    memory = made_up_memory(pages)
    with leechcore.open_oracle(written(tmp_path / "big.dmp", plan, memory)) as opened:
        assert list(opened.pages()) == list(pages.pages())
        assert [page for page in pages.pages() if opened.read_page(page) != memory[page]] == []
        assert opened.read_page(0x40009) is None


def test_42_runs_and_not_one_more(tmp_path: Path) -> None:
    runs = PageRuns(PageRun(16 * n + 1, 2) for n in range(42))
    memory = made_up_memory(runs)
    path = written(tmp_path / "many.dmp", plan_complete(HEADER, runs), memory)
    for module in (kdmp, volatility):
        opener: Any = module
        with opener.open_oracle(path) as oracle:
            assert list(oracle.pages()) == list(runs.pages())
            assert all(oracle.read_page(page) == content for page, content in memory.items())
    more = runs | PageRuns([PageRun(0x10000, 1)])
    with pytest.raises(DumpFormatError, match="from 1 to 42 runs of memory, not 43; a bitmap dump holds any number"):
        plan_complete(HEADER, more)
    bitmap = plan_bitmap(HEADER, more, more, DumpType.BITMAP_FULL)
    assert bitmap.header.physical_memory == ()
    assert bitmap.pages == more


def test_the_header_as_others_understand_it(tmp_path: Path) -> None:
    runs = PageRuns([PageRun(1, 2), PageRun(0x1AD, 1)])
    plan = plan_complete(HEADER, runs)
    path = written(tmp_path / "header.dmp", plan, made_up_memory(runs))
    ours = plan.header
    with kdmp.open_oracle(path) as oracle:
        theirs = oracle.parser.header
        assert (theirs.MajorVersion, theirs.MinorVersion) == (ours.major_version, ours.minor_version)
        assert theirs.DirectoryTableBase == ours.directory_table_base
        assert theirs.PfnDatabase == ours.pfn_database
        assert theirs.PsLoadedModuleList == ours.ps_loaded_module_list
        assert theirs.PsActiveProcessHead == ours.ps_active_process_head
        assert (theirs.MachineImageType, theirs.NumberProcessors) == (0x8664, 4)
        assert theirs.BugCheckCode == ours.bug_check_code
        assert tuple(theirs.BugCheckCodeParameter) == ours.bug_check_parameters
        assert theirs.KdDebuggerDataBlock == ours.kd_debugger_data_block
        assert theirs.PhysicalMemoryBlock.NumberOfRuns == 2
        assert theirs.PhysicalMemoryBlock.NumberOfPages == 3
        assert theirs.RequiredDumpSpace == path.stat().st_size
        assert (theirs.SystemTime, theirs.SystemUpTime) == (ours.system_time, ours.system_up_time)
        assert (theirs.ProductType, theirs.SuiteMask) == (ours.product_type, ours.suite_mask)
        assert (theirs.WriterStatus, theirs.KdSecondaryVersion) == (0, 0)
        assert theirs.BootId == 0xD
    with volatility.open_oracle(path) as oracle:
        said = oracle.header
        assert int(said.DumpType) == 1
        assert int(said.DirectoryTableBase) == ours.directory_table_base
        assert int(said.MinorVersion) == 19041
        assert int(said.KdDebuggerDataBlock) == ours.kd_debugger_data_block
        assert int(said.SystemTime) == ours.system_time
        assert int(said.SystemUpTime) == ours.system_up_time
        assert int(said.PhysicalMemoryBlockBuffer.NumberOfRuns) == 2


@pytest.mark.parametrize("number", [1, 5, 6])
def test_pages_may_come_in_any_order(number: int) -> None:
    runs = PageRuns([PageRun(3, 9), PageRun(0x40, 5)])
    memory = made_up_memory(runs)
    plan = plan_complete(HEADER, runs) if number == 1 else plan_bitmap(HEADER, runs, runs, _KINDS[number])
    file = bytearray(b"".join(plan.prefix()).ljust(plan.total_size, b"?"))
    index = plan.index()
    order = list(memory)
    random.Random(7).shuffle(order)
    for page in order:
        offset = index.offset_of(page)
        assert offset is not None
        file[offset : offset + PAGE_SIZE] = memory[page]
    assert file == rendered(plan, memory)


def test_bitmaps_are_sized_by_memory_and_aligned_for_leechcore() -> None:
    some = PageRuns([PageRun(5, 1)])
    plan = plan_bitmap(HEADER, PageRuns([PageRun(0, 0x1000001)]), some, DumpType.BITMAP_KERNEL)
    assert plan.bitmap is not None
    assert plan.bitmap.bit_count == 0x1000040  # a whole number of 64-bit words
    assert plan.first_page_offset == 0x203000
    assert sum(map(len, plan.prefix())) == plan.first_page_offset
    assert plan.total_size == 0x204000


def test_a_dump_of_nothing_is_refused() -> None:
    with pytest.raises(DumpFormatError, match=r"from 1 to 42 runs of memory, not 0$"):
        plan_complete(HEADER, PageRuns())
    with pytest.raises(DumpFormatError, match="at least one page"):
        plan_bitmap(HEADER, _RUNS, PageRuns(), DumpType.BITMAP_FULL)
    with pytest.raises(DumpFormatError, match="type A has no such bitmap"):
        plan_bitmap(HEADER, _RUNS, _RUNS, DumpType.COMPLETE_RANGES)


def test_a_bitmap_that_no_reader_would_believe_is_refused() -> None:
    far = PageRuns([PageRun(1 << 33, 1)])
    with pytest.raises(DumpFormatError, match=r"a bitmap of 0x200000040 bits is not believable"):
        plan_bitmap(HEADER, _RUNS | far, _RUNS, DumpType.BITMAP_FULL)


def test_a_32_bit_header_holds_86_runs() -> None:
    header = DumpHeader(bits=32, pae_enabled=False)
    runs = PageRuns(PageRun(2 * n, 1) for n in range(86))
    plan = plan_complete(header, runs)
    assert (plan.first_page_offset, plan.total_size) == (0x1000, 0x1000 + 86 * PAGE_SIZE)
    assert complete_size(plan.header) == plan.total_size
    with pytest.raises(DumpFormatError, match="from 1 to 86 runs"):
        plan_complete(header, runs | PageRuns([PageRun(0x1000, 1)]))


def test_what_the_caller_claims_of_pages_is_not_carried_over() -> None:
    stale = replace(HEADER, claimed_pages=5, surplus_runs=3, required_dump_space=1)
    assert plan_complete(stale, _RUNS).header == plan_complete(HEADER, _RUNS).header
