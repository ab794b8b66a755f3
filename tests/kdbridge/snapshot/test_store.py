"""The Snapshot on disk: what it says is read is there, whenever its writer is killed and whatever the disk refuses."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.discovery import discover
from kdbridge.errors import FileError, MemoryFault, SnapshotError, TargetRefusedError
from kdbridge.plan import complete_plan
from kdbridge.snapshot import PageState, Snapshot, coverage
from kdbridge.snapshot import pages as page_file
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import AMD64
from simulator.kernel import KernelOptions, build_kernel
from tests.kdbridge.simulated import SimulatedSource
from tests.kdbridge.taken import scenario, take_over

_KERNEL = build_kernel(KernelOptions(memory_size=16 << 20))


async def _target() -> Target:
    return await discover(SimulatedSource(_KERNEL))


@pytest.fixture(scope="module")
def target() -> Target:
    return trio.run(_target)


def _pages(seed: int, count: int = 200, frames: int = 1000) -> list[tuple[int, bytes | None]]:
    """Pages in runs and alone, some of zeros, some that cannot be read."""
    rng = random.Random(seed)
    pages: dict[int, bytes | None] = {}
    while len(pages) < count:
        start = rng.randrange(frames)
        for pfn in range(start, start + rng.choice([1, 1, 3, 70])):
            if pfn not in pages:
                pages[pfn] = rng.choice([rng.randbytes(PAGE_SIZE), rng.randbytes(PAGE_SIZE), bytes(PAGE_SIZE), None])
    return list(pages.items())


def _assert_honest(folder: Path, truth: dict[int, bytes | None]) -> int:
    """Everything that coverage on disk calls read is in memory.raw, by offset; returns how many pages that is."""
    raw = (folder / "memory.raw").read_bytes()
    states = (folder / "coverage").read_bytes()[16:]
    read = [pfn for pfn, state in enumerate(states) if state == 1]
    for pfn in read:
        assert raw[pfn * PAGE_SIZE : (pfn + 1) * PAGE_SIZE] == truth[pfn], f"frame {pfn:#x}"
    assert all(truth[pfn] is None for pfn, state in enumerate(states) if state == 2)
    with Snapshot.open(folder) as snapshot:
        assert list(snapshot.held.pages()) == read
        for pfn in read:
            assert snapshot.page(pfn) == truth[pfn]
    return len(read)


def test_pages_lie_at_their_own_address(tmp_path: Path, target: Target) -> None:
    pages = _pages(1)
    with Snapshot.create(tmp_path / "s", target) as snapshot:
        for pfn, data in pages:
            snapshot.put(pfn, data)
            assert snapshot.page(pfn) == data, "readable at once"
    assert _assert_honest(tmp_path / "s", dict(pages)) == sum(data is not None for _, data in pages)
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert snapshot.unreadable == PageRuns.from_pages(pfn for pfn, data in pages if data is None)
        assert snapshot.target == target
        for run in snapshot.held:
            assert snapshot.read_run(run) == b"".join(
                dict(pages)[pfn] or b"" for pfn in range(run.base_page, run.end_page)
            )


def test_zeros_and_gaps_take_no_disk(tmp_path: Path, target: Target) -> None:
    with Snapshot.create(tmp_path / "s", target) as snapshot:
        snapshot.put(1, b"x" * PAGE_SIZE)
        for pfn in range(0x100000, 0x100000 + 512):
            snapshot.put(pfn, bytes(PAGE_SIZE))
    status = (tmp_path / "s" / "memory.raw").stat()
    assert status.st_size == (0x100000 + 512) * PAGE_SIZE
    assert status.st_blocks * 512 < 1 << 20
    with Snapshot.open(tmp_path / "s") as snapshot:
        assert snapshot.page(0x100000 + 511) == bytes(PAGE_SIZE)
        assert snapshot.page(2) is None, "a gap is not zeros"


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_write_its_files_say_no_more_than_they_hold(
    seed: int, tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    folder, copies = tmp_path / "s", [0]

    def killed_before(write: Callable[..., object]) -> Callable[..., object]:
        def copying(*arguments: object, **named: object) -> object:
            if rng.random() < 0.03 and (folder / "target.json").exists():
                copies[0] += 1
                shutil.copytree(folder, tmp_path / f"copy {copies[0]}")
            return write(*arguments, **named)

        return copying

    for module, name in ((page_file, "write_at"), (coverage, "write_at"), (os, "fsync"), (os, "ftruncate")):
        monkeypatch.setattr(module, name, killed_before(getattr(module, name)))
    pages = _pages(seed, 300, 600)
    snapshot = Snapshot.create(folder, target)
    for pfn, data in pages:
        snapshot.put(pfn, data)
        if rng.random() < 0.05:
            snapshot.checkpoint()
    at_the_end = snapshot.held.page_count
    # Dropped without close: as a killed process leaves it.
    durable = _assert_honest(folder, dict(pages))
    assert 0 < durable <= at_the_end
    monkeypatch.undo()
    assert copies[0] > 1
    found = [_assert_honest(tmp_path / f"copy {number}", dict(pages)) for number in range(1, copies[0] + 1)]
    assert found == sorted(found), "later copies hold no less"
    snapshot.close()


def test_what_was_put_before_a_checkpoint_is_there_after_it(tmp_path: Path, target: Target) -> None:
    snapshot = Snapshot.create(tmp_path / "s", target)
    pages = _pages(5, 120)
    for pfn, data in pages[:60]:
        snapshot.put(pfn, data)
    snapshot.checkpoint()
    for pfn, data in pages[60:]:
        snapshot.put(pfn, data)
    assert _assert_honest(tmp_path / "s", dict(pages)) == sum(data is not None for _, data in pages[:60])
    snapshot.close()


def _put_all(snapshot: Snapshot, pages: list[tuple[int, bytes | None]]) -> None:
    for number, (pfn, data) in enumerate(pages):
        snapshot.put(pfn, data)
        if number % 25 == 24:
            snapshot.checkpoint()


@pytest.mark.parametrize("fails_at", range(0, 40, 7))
def test_a_full_disk_is_told_and_nothing_is_claimed_that_is_not_there(
    fails_at: int, tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [False]
    count = [0]
    pwrite = os.pwrite

    def failing(fd: int, data: bytes, offset: int) -> int:
        count[0] += 1
        if count[0] > fails_at:
            full[0] = True
        if full[0] and len(data) > (100 if fails_at % 2 else 0):
            # A disk that fills up takes a part first.
            if count[0] == fails_at + 1:
                return pwrite(fd, data[: len(data) // 3], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    pages = _pages(fails_at, 250)
    snapshot = Snapshot.create(tmp_path / "s", target)
    monkeypatch.setattr(os, "pwrite", failing)
    try:
        with pytest.raises(SnapshotError, match=r"cannot be written: No space left on device\. What is in it stays"):
            _put_all(snapshot, pages)
        _assert_honest(tmp_path / "s", dict(pages))
        # Space was made: nothing of what came is lost.
        monkeypatch.undo()
        held = snapshot.held
        snapshot.checkpoint()
        assert _assert_honest(tmp_path / "s", dict(pages)) == held.page_count
    finally:
        monkeypatch.undo()
        snapshot.close()


@pytest.mark.parametrize("what", ["console", "log"])
def test_a_full_disk_is_named_for_text_too(
    what: str, tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Snapshot.create(tmp_path / "s", target) as snapshot:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(SnapshotError, match="No space left on device"):
            snapshot.console(b"text") if what == "console" else snapshot.log("text")
        monkeypatch.undo()


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
@pytest.mark.parametrize(("every", "kept"), [(100, 200), (10_000, 256)])
def test_a_limit_of_the_operating_system_is_told_like_a_full_disk(
    tmp_path: Path, target: Target, every: int, kept: int
) -> None:
    """The real thing: pwrite itself refuses, in a process of its own. What is in the file by then stays known."""
    with Snapshot.create(tmp_path / "model", target):
        pass
    program = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from kdbridge.errors import SnapshotError
        from kdbridge.snapshot import Snapshot

        model, folder, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
        target = Snapshot.open(model).target
        snapshot = Snapshot.create(folder, target)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        put = 0
        try:
            for pfn in range(1000):
                snapshot.put(pfn, bytes([pfn & 0xFF, 1]) * 2048)
                put += 1
                if pfn % every == every - 1:
                    snapshot.checkpoint()
        except SnapshotError as error:
            print(put, error)
        try:
            snapshot.close()
        except SnapshotError:
            pass
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model"), str(tmp_path / "s"), str(every)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    put, _, text = done.stdout.partition(" ")
    assert 256 <= int(put) < 400, done.stdout + done.stderr
    assert "cannot be written: File too large" in text
    truth: dict[int, bytes | None] = {pfn: bytes([pfn & 0xFF, 1]) * 2048 for pfn in range(1000)}
    assert _assert_honest(tmp_path / "s", truth) == kept


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, target: Target) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine").write_text("precious")
    with pytest.raises(SnapshotError, match="exists already; nothing in it was changed"):
        Snapshot.create(tmp_path / "s", target)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, target: Target) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SnapshotError, match="cannot be made: Not a directory"):
        Snapshot.create(tmp_path / "file" / "s", target)


def test_files_that_cannot_be_made_are_named_and_closed(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = os.open

    def third_fails(path: Path, flags: int, mode: int = 0o777) -> int:
        if len(opened) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        opened.append(real(path, flags, mode))
        return opened[-1]

    monkeypatch.setattr(os, "open", third_fails)
    with pytest.raises(SnapshotError, match="cannot be made: No space left on device"):
        Snapshot.create(tmp_path / "s", target)
    monkeypatch.undo()
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("missing", ["memory.raw", "coverage", "target.json"])
def test_a_folder_without_one_of_its_files_is_no_snapshot(missing: str, tmp_path: Path, target: Target) -> None:
    Snapshot.create(tmp_path / "s", target).close()
    assert Snapshot.is_snapshot(tmp_path / "s")
    (tmp_path / "s" / missing).unlink()
    with pytest.raises(SnapshotError, match=f"is not a Snapshot: No such file.*{missing}"):
        Snapshot.open(tmp_path / "s")


def test_a_memory_file_that_was_cut_short_is_damaged_and_not_zeros(tmp_path: Path, target: Target) -> None:
    with Snapshot.create(tmp_path / "s", target) as snapshot:
        for pfn in range(10):
            snapshot.put(pfn, bytes([pfn + 1]) * PAGE_SIZE)
    os.truncate(tmp_path / "s" / "memory.raw", 9 * PAGE_SIZE + 100)
    with pytest.raises(SnapshotError, match=f"has {9 * PAGE_SIZE + 100} bytes, and pages up to {10 * PAGE_SIZE} were"):
        Snapshot.open(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2}', "[" * 100_000, "\x00", '"x"'])
def test_a_description_that_is_none_is_named(text: str, tmp_path: Path, target: Target) -> None:
    Snapshot.create(tmp_path / "s", target).close()
    (tmp_path / "s" / "target.json").write_text(text)
    with pytest.raises(SnapshotError):
        Snapshot.open(tmp_path / "s")


async def test_it_is_a_source_with_the_registers_and_memory_of_the_machine(tmp_path: Path) -> None:
    way = scenario("breakpoint")
    async with take_over(way) as taken:
        with await taken.target.snapshot(tmp_path / "s", complete_plan):
            pass
    kernel = way.kernel
    with Snapshot.open(tmp_path / "s") as snapshot:
        for processor in kernel.processors:
            assert (await snapshot.context(processor.number)).raw[: AMD64.context.size] == processor.context()
            assert (await snapshot.special_registers(processor.number))["cr3"] == processor.special_values["cr3"]
        base = kernel.kernel_base
        assert await snapshot.virtual.read(VirtualAddress(base + 0x800), 0x1000) == kernel.read_virtual(
            base + 0x800, 0x1000
        )
        with pytest.raises(TargetRefusedError, match="holds no context of processor 9"):
            await snapshot.context(9)
        outside = kernel.image.runs.end_page << 12
        assert snapshot.physical is not None
        with pytest.raises(MemoryFault) as caught:
            await snapshot.physical.read(PhysicalAddress(outside - 16), 32)
        assert (caught.value.address, caught.value.done) == (outside, 16)
        found = await discover(snapshot)
        assert found.modules == snapshot.target.modules


async def test_missing_pages_are_told_and_never_zeros(tmp_path: Path, target: Target) -> None:
    with Snapshot.create(tmp_path / "s", target) as snapshot:
        snapshot.put(4, b"a" * PAGE_SIZE)
        snapshot.put(5, None)
        assert snapshot.physical is not None
        pages = [page async for page in snapshot.physical.read_pages([PageRun(3, 3)])]
        assert [(page.pfn, page.data is None) for page in pages] == [(3, True), (4, False), (5, True)]
        assert snapshot.coverage.state_of(5) is PageState.UNREADABLE
        assert snapshot.coverage.state_of(3) is PageState.MISSING


def test_the_target_is_written_whole_or_not_at_all(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot.create(tmp_path / "s", target)

    def full(*arguments: object, **named: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(SnapshotError, match="No space left"):
        snapshot.save_target()
    monkeypatch.undo()
    snapshot.close()
    assert json.loads((tmp_path / "s" / "target.json").read_text())["schema"] == 1
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "s").iterdir() if file.suffix != ".new"}
    assert modes == {0o600}, "registers and memory are nobody else's to read"
    with Snapshot.open(tmp_path / "s") as again:
        assert again.target == target


def test_every_error_of_a_snapshot_is_an_error_of_files() -> None:
    assert issubclass(SnapshotError, FileError) and SnapshotError.exit_code == 5


async def test_pieces_and_pages_in_one_snapshot_are_one_memory(target: Target, tmp_path: Path) -> None:
    base = target.version.kern_base
    truth, place = _KERNEL.read_virtual(base, 0x2000), _KERNEL.tables.translate(base)
    assert truth is not None and place is not None
    with Snapshot.create(tmp_path / "both", target) as snapshot:
        snapshot.put_virtual(base + 0x800, truth[0x800:0x1000])
        assert snapshot.physical is None
        for pfn in _KERNEL.image.runs.pages():
            if pfn != place >> 12:
                snapshot.put(pfn, _KERNEL.image.read_page(pfn))
    with Snapshot.open(tmp_path / "both") as snapshot:
        assert snapshot.physical is not None
        assert await snapshot.virtual.read(VirtualAddress(base + 0x800), 0x1800) == truth[0x800:]
        with pytest.raises(MemoryFault):
            await snapshot.virtual.read(VirtualAddress(base), 0x1000)
