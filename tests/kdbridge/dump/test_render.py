"""Rendering: the file says what the simulator knows, page by page; and nothing half done is left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.dump import DumpKind, DumpLayoutChoice, render
from kdbridge.errors import DumpError
from kdbridge.memory.files import DumpFile
from kdbridge.plan import kernel_plan
from kdbridge.progress import Progress
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE, PageRun, PageRuns, VirtualAddress
from protocol.arch import AMD64
from simulator.kernel import SimulatedKernel
from tests.kdbridge.captured import capture, machine
from tests.kdbridge.simulated import SimulatedSource

_DEADFEED = bytes.fromhex("edfeadde") * 1024
_COMPLETE, _KERNEL = DumpKind.COMPLETE, DumpKind.KERNEL
_AUTO, _RUNS, _BITMAP = DumpLayoutChoice.AUTO, DumpLayoutChoice.RUNS, DumpLayoutChoice.BITMAP


@pytest.fixture(scope="module")
def bug_check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatedKernel, Snapshot]]:
    """One machine and its Snapshot, which nobody here changes."""
    kernel = machine()
    with trio.run(capture, tmp_path_factory.mktemp("render") / "snapshot", kernel) as snapshot:
        yield kernel, snapshot


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _number(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _overlaid(kernel: SimulatedKernel) -> dict[int, bytes]:
    """Pages that must differ from memory: each processor's true CONTEXT laid where readers look for it."""
    pages: dict[int, bytearray] = {}

    def lay(address: int, data: bytes) -> None:
        for at, byte in enumerate(data):
            physical = kernel.tables.translate(address + at)
            assert physical is not None
            pfn = physical >> 12
            if pfn not in pages:
                content = kernel.image.read_page(pfn)
                assert content is not None
                pages[pfn] = bytearray(content)
            pages[pfn][physical & 0xFFF] = byte

    for processor in kernel.processors:
        lay(processor.context_address, processor.context())
    if kernel.kdbg_key is not None:
        lay(kernel.kdbg_address, kernel.kdbg.raw)
    return {pfn: bytes(page) for pfn, page in pages.items()}


def _assert_pages(path: Path, kernel: SimulatedKernel, expected: PageRuns) -> None:
    changed = _overlaid(kernel)
    with DumpFile(path) as dump:
        assert dump.held == expected
        for pfn in expected.pages():
            truth = changed.get(pfn) or kernel.image.read_page(pfn)
            assert dump.page(pfn) == truth, f"frame {pfn:#x}"


# ---- header -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"build": 3790}, {"stopped_processor": 2, "stop": "breakpoint"}], ids=str)
async def test_the_header_says_what_the_machine_is(options: dict, tmp_path: Path) -> None:
    """Fields by their offsets in dump-formats 1.1."""
    kernel = machine(**options)
    out = tmp_path / "out.dmp"
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        await render(snapshot, snapshot.target, out, comment="from a test")
    data = out.read_bytes()[:0x2000]
    assert data[:8] == b"PAGEDU64"
    assert (_number(data, 8, 4), _number(data, 12, 4)) == (kernel.version.major_version, kernel.options.build)
    assert _number(data, 0x10) == kernel.directory_table_base
    assert _number(data, 0x18) == kernel.kdbg["mm_pfn_database"]
    assert _number(data, 0x20) == kernel.symbols["PsLoadedModuleList"]
    assert _number(data, 0x28) == kernel.symbols["PsActiveProcessHead"]
    assert (_number(data, 0x30, 4), _number(data, 0x34, 4)) == (0x8664, len(kernel.processors))
    assert (_number(data, 0x38, 4), *(_number(data, 0x40 + 8 * n) for n in range(4))) == kernel.bug_check
    assert _number(data, 0x80) == kernel.kdbg_address
    runs = kernel.image.runs
    assert (_number(data, 0x88, 4), _number(data, 0x90)) == (len(runs), runs.page_count)
    listed = [PageRun(_number(data, 0x98 + 16 * n), _number(data, 0xA0 + 16 * n)) for n in range(len(runs))]
    assert listed == list(runs)
    stopped = kernel.processors[kernel.stopped_processor]
    context = AMD64.context.decode(data[0x348 : 0x348 + AMD64.context.size])
    assert {name: context[name] for name in stopped.context_values} == stopped.context_values
    assert _number(data, 0xF00, 4) == 0x80000003
    assert _number(data, 0xF10) == stopped.context_values["rip"]
    assert _number(data, 0xF98, 4) == 1
    assert _number(data, 0xFA0) == out.stat().st_size == 0x2000 + runs.page_count * PAGE_SIZE
    assert (_number(data, 0xFA8), _number(data, 0x1030)) == (kernel.options.system_time, kernel.options.uptime)
    assert data[0xFB0 : 0xFB0 + 12] == b"from a test\0"
    assert (_number(data, 0x1040, 4), _number(data, 0x1044, 4)) == (1, 0x110)


@pytest.mark.parametrize(
    ("comment", "written"),
    [
        ("", b"kdbridge"),
        ("plain", b"plain"),
        ("Ärger in Köln", b"?rger in K?ln"),
        ("a\0b", b"a?b"),
        ("x" * 500, b"x" * 127),
    ],
)
async def test_a_comment_is_ascii_and_ends_within_its_field(
    comment: str, written: bytes, bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    _, snapshot = bug_check
    out = tmp_path / "out.dmp"
    await render(snapshot, snapshot.target, out, comment=comment)
    field = out.read_bytes()[0xFB0 : 0xFB0 + 128]
    assert field[: len(written) + 1] == written + b"\0"
    assert field[127] in (0, 0x50, 0x45), "never a comment without its end"


async def test_the_comment_says_that_a_kdbg_was_decoded(tmp_path: Path) -> None:
    kernel = machine(build=22621, encoded_kdbg=True, stop="breakpoint")
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        await render(snapshot, snapshot.target, tmp_path / "out.dmp")
    _assert_pages(tmp_path / "out.dmp", kernel, kernel.image.runs)
    assert b"KDBG decoded by kdbridge\0" in (tmp_path / "out.dmp").read_bytes()[0xFB0:0x1030]


# ---- pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "kind"), [(_RUNS, 1), (_BITMAP, 5), (_AUTO, 1)])
async def test_every_page_of_a_complete_dump(
    layout: DumpLayoutChoice, kind: int, bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    kernel, snapshot = bug_check
    out = tmp_path / "out.dmp"
    rendered = await render(snapshot, snapshot.target, out, layout=layout)
    assert (rendered.dump_type, rendered.size) == (kind, out.stat().st_size)
    assert (rendered.pages, rendered.unreadable, rendered.missing) == (kernel.image.runs.page_count, 0, 0)
    assert (rendered.overlaid, rendered.shortcomings) == (len(_overlaid(kernel)), ())
    _assert_pages(out, kernel, kernel.image.runs)


async def test_every_page_of_a_kernel_dump(tmp_path: Path) -> None:
    kernel = machine(processors=2)
    out = tmp_path / "out.dmp"
    with await capture(tmp_path / "snapshot", kernel, kernel_plan) as snapshot:
        rendered = await render(snapshot, snapshot.target, out, kind=_KERNEL)
        held = snapshot.held
    assert (rendered.dump_type, rendered.pages, rendered.missing) == (6, held.page_count, 0)
    _assert_pages(out, kernel, held)
    assert out.read_bytes()[0x2000:0x2008] == b"SDMPDUMP"


async def test_a_kernel_dump_out_of_a_complete_capture_is_the_same_one(
    bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    kernel, snapshot = bug_check
    await render(snapshot, snapshot.target, tmp_path / "a.dmp", kind=_KERNEL)
    with await capture(tmp_path / "kernel only", kernel, kernel_plan) as only:
        await render(only, only.target, tmp_path / "b.dmp", kind=_KERNEL)
    assert (tmp_path / "a.dmp").read_bytes() == (tmp_path / "b.dmp").read_bytes()


@pytest.mark.parametrize(("count", "kind"), [(1, 1), (42, 1), (43, 5), (60, 5)])
async def test_42_runs_fit_into_a_header_and_43_need_a_bitmap(count: int, kind: int, tmp_path: Path) -> None:
    kernel = machine(runs=PageRuns(PageRun(1 + 0x200 * n, 0x1000 // count) for n in range(count)), processors=1)
    out = tmp_path / "out.dmp"
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        assert len(snapshot.target.runs or ()) == count
        assert (await render(snapshot, snapshot.target, out)).dump_type == kind
        _assert_pages(out, kernel, kernel.image.runs)
        if count > 42:
            with pytest.raises(DumpError, match=r"43|60"):
                await render(snapshot, snapshot.target, tmp_path / "runs.dmp", layout=_RUNS)
            assert not (tmp_path / "runs.dmp").exists()


async def test_unreadable_pages_are_deadfeed_in_runs_and_cleared_bits_in_a_bitmap(tmp_path: Path) -> None:
    kernel = machine(unreadable_pages=5)
    gone = PageRuns.from_pages(kernel.image.unreadable)
    runs = kernel.image.runs
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        assert snapshot.unreadable == gone
        for layout in (_RUNS, _BITMAP):
            out = tmp_path / f"{layout}.dmp"
            rendered = await render(snapshot, snapshot.target, out, layout=layout)
            assert (rendered.pages, rendered.unreadable, rendered.missing) == (runs.page_count - 5, 5, 0)
            _assert_pages(out, kernel, runs - gone)
    with DumpFile(tmp_path / "runs.dmp") as dump:
        assert dump.unreadable == gone
        offset = 0x2000
        data = (tmp_path / "runs.dmp").read_bytes()
        for pfn in runs.pages():
            if pfn in gone:
                assert data[offset : offset + PAGE_SIZE] == _DEADFEED
            offset += PAGE_SIZE
    bitmap = (tmp_path / "bitmap.dmp").read_bytes()
    first, present, bits = (_number(bitmap, 0x2020 + 8 * n) for n in range(3))
    assert present == runs.page_count - 5
    assert bits >= runs.end_page
    kept = {pfn for pfn in range(runs.end_page) if bitmap[0x2038 + pfn // 8] >> pfn % 8 & 1}
    assert kept == set((runs - gone).pages())
    assert first + present * PAGE_SIZE == len(bitmap) == _number(bitmap, 0xFA0)


async def test_registers_are_not_laid_over_a_page_that_is_not_there(tmp_path: Path) -> None:
    kernel = machine()
    physical = kernel.tables.translate(kernel.processors[0].context_address)
    assert physical is not None
    kernel.image.unreadable.add(physical >> 12)
    out = tmp_path / "out.dmp"
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        rendered = await render(snapshot, snapshot.target, out)
    assert "registers of processor 0: its CONTEXT's page was not read" in rendered.shortcomings
    with DumpFile(out) as dump:
        assert dump.unreadable == PageRuns([PageRun(physical >> 12, 1)])


async def test_pages_that_were_never_read_are_not_made_up(tmp_path: Path) -> None:
    kernel = machine()
    with await capture(tmp_path / "snapshot", kernel, kernel_plan) as snapshot:
        lacking = kernel.image.runs.page_count - snapshot.held.page_count
        with pytest.raises(DumpError, match=f"lacks {lacking} of the {kernel.image.runs.page_count} pages") as caught:
            await render(snapshot, snapshot.target, tmp_path / "out.dmp")
        assert "--partial" in str(caught.value)
        rendered = await render(snapshot, snapshot.target, tmp_path / "out.dmp", partial=True)
        assert (rendered.dump_type, rendered.missing) == (5, lacking)
        _assert_pages(tmp_path / "out.dmp", kernel, snapshot.held)


@pytest.mark.parametrize("lacking", ["runs", "root"])
async def test_what_a_header_needs_must_be_there(
    lacking: str, bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    _, snapshot = bug_check
    target = snapshot.target
    target = replace(target, runs=None) if lacking == "runs" else replace(target, directory_table_base=None)
    with pytest.raises(DumpError, match="no physical memory runs" if lacking == "runs" else "no directory table base"):
        await render(snapshot, target, tmp_path / "out.dmp")


async def test_a_dump_can_be_made_of_a_dump(bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path) -> None:
    _, snapshot = bug_check
    await render(snapshot, snapshot.target, tmp_path / "complete.dmp")
    await render(snapshot, snapshot.target, tmp_path / "kernel.dmp", kind=_KERNEL)
    with DumpFile(tmp_path / "complete.dmp") as dump:
        await render(dump, snapshot.target, tmp_path / "again.dmp", kind=_KERNEL)
    assert (tmp_path / "again.dmp").read_bytes() == (tmp_path / "kernel.dmp").read_bytes()


async def test_a_reader_finds_registers_where_the_header_leads_it(
    bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    kernel, snapshot = bug_check
    await render(snapshot, snapshot.target, tmp_path / "out.dmp")
    with DumpFile(tmp_path / "out.dmp") as dump:
        for processor in kernel.processors:
            slot = kernel.symbols["KiProcessorBlock"] + 8 * processor.number
            prcb = int.from_bytes(await dump.virtual.read(VirtualAddress(slot), 8), "little")
            pointer = VirtualAddress(prcb + kernel.kdbg["offset_prcb_context"])
            place = int.from_bytes(await dump.virtual.read(pointer, 8), "little")
            data = await dump.virtual.read(VirtualAddress(place), AMD64.context.size)
            assert data == processor.context()


# ---- the file -----------------------------------------------------------------------------------------------


async def test_what_is_there_is_not_overwritten_unless_told_to(
    bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    _, snapshot = bug_check
    out = tmp_path / "out.dmp"
    out.write_bytes(b"precious")
    with pytest.raises(DumpError, match="exists already; --force overwrites it"):
        await render(snapshot, snapshot.target, out)
    assert out.read_bytes() == b"precious"
    await render(snapshot, snapshot.target, out, force=True)
    assert out.read_bytes()[:8] == b"PAGEDU64"
    out.unlink()
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DumpError, match="exists already"):
        await render(snapshot, snapshot.target, out)


async def test_cancelled_it_leaves_no_file(bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path) -> None:
    _, snapshot = bug_check
    before = _names(tmp_path)
    seen: list[list[str]] = []
    with trio.CancelScope() as scope:

        def stop(progress: Progress) -> None:
            seen.append(_names(tmp_path))
            scope.cancel()

        await render(snapshot, snapshot.target, tmp_path / "out.dmp", progress=stop)
    assert scope.cancelled_caught
    assert next(name for name in seen[0] if name not in before).endswith(".unfinished"), "it had begun"
    assert _names(tmp_path) == before


@pytest.mark.parametrize("fails", ["fsync", "write"])
async def test_a_full_disk_is_told_with_what_is_needed_and_leaves_no_file(
    fails: str, bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, snapshot = bug_check
    before = _names(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DumpError, match=r"No space left on device; \d+ bytes are needed\. What was read is kept\."):
        await render(snapshot, snapshot.target, tmp_path / "out.dmp")
    monkeypatch.undo()
    assert _names(tmp_path) == before


async def test_a_folder_that_is_not_there_is_named(bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path) -> None:
    _, snapshot = bug_check
    with pytest.raises(DumpError, match="cannot be written: No such file or directory"):
        await render(snapshot, snapshot.target, tmp_path / "missing" / "out.dmp")


async def test_a_raw_source_is_read_in_bounded_pieces(
    bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, snapshot = bug_check
    sizes: list[int] = []
    read_run = Snapshot.read_run

    def noting(self: Snapshot, run: PageRun) -> bytes:
        sizes.append(run.page_count)
        return read_run(self, run)

    monkeypatch.setattr(Snapshot, "read_run", noting)
    await render(snapshot, snapshot.target, tmp_path / "out.dmp")
    assert max(sizes) <= 256
    assert sum(sizes) == snapshot.held.page_count


async def test_progress_ends_at_the_size_of_the_file(
    bug_check: tuple[SimulatedKernel, Snapshot], tmp_path: Path
) -> None:
    _, snapshot = bug_check
    told: list[Progress] = []
    rendered = await render(snapshot, snapshot.target, tmp_path / "out.dmp", progress=told.append)
    assert (told[-1].done, told[-1].total) == (rendered.size, rendered.size)
    assert [part.done for part in told] == sorted(part.done for part in told)


async def test_a_source_is_needed_that_has_pages_only(tmp_path: Path) -> None:
    """A machine as Source has no `held`: rendering never asks a live target for anything."""
    assert not hasattr(SimulatedSource(machine()), "held")
