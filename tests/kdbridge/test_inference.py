"""--infer zeros: nothing that is taken for zero is anything else, every such page is told, strict reads them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.acquire import Acquired, Inference, acquire
from kdbridge.discovery import discover
from kdbridge.dump import DumpKind, render, verify
from kdbridge.local_images import LocalImages
from kdbridge.memory.files import DumpFile
from kdbridge.plan import complete_plan
from kdbridge.snapshot import PageState, Snapshot
from protocol.address import PAGE_SIZE
from simulator.image_files import write_images
from simulator.kernel import SimulatedKernel, build_kernel
from simulator.options import as_layout
from tests.amount import drawn
from tests.kdbridge.captured import SMALL
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.simulated import SimulatedSource
from tests.random_machines import random_machine

_MIB = 1 << 20


async def _captured(folder: Path, kernel: SimulatedKernel, inference: Inference) -> tuple[Snapshot, Acquired]:
    source = SimulatedSource(kernel)
    assert source.physical is not None
    if Snapshot.is_snapshot(folder):
        snapshot = Snapshot.open(folder, writable=True)
    else:
        snapshot = Snapshot.create(folder, await discover(source))
    return snapshot, await acquire(source, source.physical, snapshot, complete_plan, inference=inference)


def _wrong(snapshot: Snapshot, kernel: SimulatedKernel) -> list[int]:
    return [pfn for pfn in snapshot.inferred.pages() if kernel.image.read_page(pfn) != bytes(PAGE_SIZE)]


async def _try_images(seed: int, folder: Path, size: int) -> int:
    """With the files of all modules at hand; how many pages were taken from them."""
    kernel = build_kernel(replace(random_machine(seed), memory_size=size, pfn_database="true", transition_pages=4))
    write_images(kernel, folder / "images")
    source = SimulatedSource(kernel)
    assert source.physical is not None
    inference = Inference(zeros=True, images=LocalImages(folder / "images"))
    with Snapshot.create(folder / "snapshot", await discover(source)) as snapshot:
        await acquire(source, source.physical, snapshot, complete_plan, inference=inference)
        truth = kernel.image.read_page
        assert all(snapshot.page(pfn) == truth(pfn) for pfn in snapshot.inferred.pages())
        assert snapshot.held == kernel.image.runs
        from_files = snapshot.coverage.runs(PageState.INFERRED_IMAGE)
        files = kernel.image_files
        for module in kernel.modules:
            places = [kernel.tables.translate(at) for at in range(module.base, module.base + module.size, PAGE_SIZE)]
            taken = [place >> 12 for place in places if place is not None and place >> 12 in from_files]
            assert not taken or module.name not in files.mismatched
            patched = files.patched.get(module.name)
            place = kernel.tables.translate(patched) if patched is not None else None
            assert place is None or place >> 12 not in taken
        return from_files.page_count


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.slow
async def test_nothing_that_is_taken_from_an_image_s_file_is_wrong(seed: int, tmp_path: Path) -> None:
    assert await _try_images(seed, tmp_path, 32 * _MIB) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", drawn(50, gate=16))
async def test_nothing_that_is_taken_from_a_file_is_wrong_on_any_machine(seed: int, tmp_path: Path) -> None:
    assert await _try_images(seed, tmp_path, 32 * _MIB) >= 0


async def _try(seed: int, folder: Path, size: int) -> None:
    options = replace(random_machine(seed), memory_size=size)
    kernel = build_kernel(options)
    snapshot, _ = await _captured(folder, kernel, Inference(zeros=True))
    with snapshot:
        assert _wrong(snapshot, kernel) == [], options
        assert snapshot.held == kernel.image.runs
        assert not snapshot.inferred or options.pfn_database == "true", options


@pytest.mark.parametrize("seed", range(1))
async def test_nothing_inferred_is_wrong(seed: int, tmp_path: Path) -> None:
    await _try(seed, tmp_path / "snapshot", 32 * _MIB)


@pytest.mark.slow
@pytest.mark.parametrize("seed", drawn(50, gate=16))
async def test_nothing_inferred_is_wrong_on_any_machine(seed: int, tmp_path: Path) -> None:
    await _try(seed, tmp_path / "snapshot", 32 * _MIB)


@pytest.mark.slow
async def test_every_inferred_page_is_listed_and_strict_reads_them(tmp_path: Path) -> None:
    kernel = build_kernel(as_layout(SMALL, "server"))
    snapshot, _ = await _captured(tmp_path / "s", kernel, Inference(zeros=True))
    with snapshot:
        inferred = snapshot.inferred
        assert inferred.page_count > 100 and _wrong(snapshot, kernel) == []
        out = tmp_path / "inferred.dmp"
        await render(snapshot, snapshot.target, out)
        with DumpFile(out) as dump:
            assert dump.inferred == inferred
            assert (
                f"{inferred.page_count} pages were not read from the target, but inferred" in (await verify(dump)).notes
            )
            await render(dump, snapshot.target, tmp_path / "again.dmp", kind=DumpKind.COMPLETE)
        with DumpFile(tmp_path / "again.dmp") as again:
            assert again.inferred == inferred, "a dump of a dump remembers"
        made = await render(snapshot, snapshot.target, tmp_path / "strict.dmp", partial=True, strict=True)
        assert made.missing == inferred.page_count
    snapshot, _ = await _captured(tmp_path / "s", kernel, Inference(strict=True))
    with snapshot:
        assert snapshot.inferred.page_count == 0
        assert snapshot.coverage.runs(PageState.READ) == kernel.image.runs
        await render(snapshot, snapshot.target, tmp_path / "read.dmp")
        with DumpFile(tmp_path / "read.dmp") as dump:
            assert not dump.inferred and not dump.log


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"layout": "server"}])
def test_nothing_is_inferred_unless_it_is_named(options: dict[str, str], tmp_path: Path) -> None:
    out, kept = tmp_path / "out.dmp", tmp_path / "kept"
    ended = call("dump", sim(**options), out, "--keep-snapshot", kept)
    assert ended.code == 0, ended.err
    with Snapshot.open(kept) as snapshot:
        assert not snapshot.inferred


def test_the_verb_says_how_many_and_both_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(layout="server"), out, "--infer", "zeros")
    assert ended.code == 0, ended.err
    assert "pages were not read, but inferred; `kdbridge verify` and the dump's own log tell of them" in ended.err
    assert "pages were not read from the target, but inferred" in call("verify", out).out
    refused = call("dump", sim(), tmp_path / "no.dmp", "--infer", "zeros", "--strict")
    assert refused.code == 2 and "--strict forbids what --infer and --images ask for" in refused.err
