"""verify: what is wrong with a file is found, wherever the damage is; what is right is called so."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from kdbridge.dump import DumpKind, DumpLayoutChoice, Verified, render, verify
from kdbridge.dump.verify_pages import count_among
from kdbridge.errors import DumpError
from kdbridge.memory.files import DumpFile, RawImage
from kdbridge.snapshot import Snapshot
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from simulator.kernel import SimulatedKernel
from tests.dumps import place_in
from tests.kdbridge.captured import capture, machine

_LAYOUTS = [DumpLayoutChoice.RUNS, DumpLayoutChoice.BITMAP]


@dataclass
class _Made:
    kernel: SimulatedKernel
    snapshot: Snapshot
    out: Path
    rendered: dict[DumpLayoutChoice, Path]

    def render(self, layout: DumpLayoutChoice = DumpLayoutChoice.RUNS) -> None:
        """A fresh copy of the good file."""
        shutil.copyfile(self.rendered[layout], self.out)

    async def check(self, *, witness: bool = True) -> Verified:
        with DumpFile(self.out) as dump:
            return await verify(dump, self.snapshot if witness else None)

    async def problem(self) -> str:
        """What is wrong with the file, whoever finds it; empty when nothing is."""
        try:
            found = await self.check()
        except DumpError as error:
            return str(error)
        return "" if found.good else "; ".join([*found.problems, *map(hex, found.differing)])

    def place(self, address: int) -> int:
        """Where the byte at this virtual address lies in the file."""
        return place_in(self.out, self.kernel.tables, address)

    def flip(self, offset: int, mask: int = 1) -> None:
        with self.out.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ mask]))


@pytest.fixture(scope="module")
def captured(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SimulatedKernel, Snapshot, dict[DumpLayoutChoice, Path]]]:
    kernel = machine(unreadable_pages=2)
    folder = tmp_path_factory.mktemp("verify")
    rendered = {layout: folder / f"{layout}.dmp" for layout in _LAYOUTS}
    with trio.run(capture, folder / "snapshot", kernel) as snapshot:
        for layout, out in rendered.items():
            trio.run(partial(render, snapshot, snapshot.target, out, layout=layout))
        yield kernel, snapshot, rendered


@pytest.fixture
def made(captured: tuple[SimulatedKernel, Snapshot, dict[DumpLayoutChoice, Path]], tmp_path: Path) -> _Made:
    kernel, snapshot, rendered = captured
    return _Made(kernel, snapshot, tmp_path / "out.dmp", rendered)


@pytest.mark.parametrize("layout", _LAYOUTS)
async def test_a_good_file_is_good(layout: DumpLayoutChoice, made: _Made) -> None:
    made.render(layout)
    for witness in (True, False):
        found = await made.check(witness=witness)
        assert (found.good, found.problems, found.differing) == (True, (), ())
    found = await made.check()
    assert found.compared == made.snapshot.held.page_count
    with DumpFile(made.out) as dump:
        different = [pfn for pfn in dump.held.pages() if dump.page(pfn) != made.kernel.image.read_page(pfn)]
    assert found.overlaid == len(different) >= len(made.kernel.processors)


@pytest.mark.parametrize("options", [{"build": 3790}, {"build": 22621, "encoded_kdbg": True, "stop": "breakpoint"}])
async def test_older_and_encoded_machines_verify(options: dict, tmp_path: Path) -> None:
    kernel = machine(**options)
    with await capture(tmp_path / "snapshot", kernel) as snapshot:
        await render(snapshot, snapshot.target, tmp_path / "out.dmp", kind=DumpKind.KERNEL)
        with DumpFile(tmp_path / "out.dmp") as dump:
            assert (await verify(dump, snapshot)).good


@pytest.mark.parametrize("layout", _LAYOUTS)
async def test_one_flipped_bit_in_one_page(layout: DumpLayoutChoice, made: _Made) -> None:
    made.render(layout)
    page = next(pfn for pfn in made.kernel.content.pages() if pfn in made.snapshot.held)
    with DumpFile(made.out) as dump:
        offset = dump.layout.pages.offset_of(page)
    assert offset is not None
    made.flip(offset + 1234)
    found = await made.check()
    assert (found.good, found.differing) == (False, (page,))
    made.flip(offset + 1234)
    assert (await made.check()).good


@pytest.mark.parametrize("layout", _LAYOUTS)
async def test_a_page_overwritten_with_deadfeed_is_marked_in_a_complete_dump_and_wrong_in_any_other(
    layout: DumpLayoutChoice, made: _Made, tmp_path: Path
) -> None:
    made.render(layout)
    witness = tmp_path / "witness.dmp"
    shutil.copyfile(made.rendered[DumpLayoutChoice.RUNS], witness)
    page = next(pfn for pfn in made.kernel.content.pages() if pfn in made.snapshot.held)
    with DumpFile(made.out) as dump:
        offset = dump.layout.pages.offset_of(page)
    assert offset is not None
    with made.out.open("r+b") as file:
        file.seek(offset)
        file.write(bytes.fromhex("edfeadde") * 0x400)
    with DumpFile(made.out) as dump, DumpFile(witness) as other:
        found = await verify(dump, other)
    complete = layout is DumpLayoutChoice.RUNS
    assert (found.good, found.differing) == (complete, () if complete else (page,))
    assert (f"1 pages are marked as unreadable, and {witness} has them" in found.notes) is complete


async def test_no_set_of_pages_is_made(made: _Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a dump whose pages lie torn it would not fit into memory; of a complete one it takes reading all of it."""
    made.render()
    for name in ("stored", "held", "unreadable", "among"):
        monkeypatch.delattr(DumpFile, name)
    with DumpFile(made.rendered[DumpLayoutChoice.BITMAP]) as witness, DumpFile(made.out) as dump:
        found = await verify(dump, witness)
    assert found.good and found.compared == made.snapshot.held.page_count


async def test_how_many_pages_were_inferred(made: _Made) -> None:
    made.render(DumpLayoutChoice.BITMAP)
    with DumpFile(made.out) as dump:
        rng = random.Random(4)
        for _ in range(20):
            wanted = PageRuns(PageRun(rng.randrange(0x1100), rng.randrange(40)) for _ in range(rng.randrange(60)))
            assert await count_among(dump, wanted) == sum(pfn in dump.stored for pfn in wanted.pages())


async def test_a_flipped_bit_beside_a_context_is_found(made: _Made) -> None:
    made.render()
    processor = made.kernel.processors[0]
    physical = made.kernel.tables.translate(processor.context_address)
    assert physical is not None and physical % PAGE_SIZE > 0x100
    made.flip(made.place(processor.context_address - 0x40))
    found = await made.check()
    assert found.differing == (physical // PAGE_SIZE,), "the page may differ, but by its CONTEXT only"


@pytest.mark.parametrize("register", [0x78, 0x98, 0xF8], ids=["rax", "rsp", "rip"])
async def test_a_wrong_context_in_memory(register: int, made: _Made) -> None:
    made.render()
    made.flip(made.place(made.kernel.processors[3].context_address + register))
    found = await made.check()
    assert found.problems == ("registers: those of processor 3 are not the ones that the target gave",)


async def test_a_wrong_context_in_the_header(made: _Made) -> None:
    made.render()
    made.flip(0x348 + 0x78)
    assert (await made.check()).problems == ("registers: those in the header are not the ones that the target gave",)


async def test_a_context_that_is_none_is_seen_without_a_witness(made: _Made) -> None:
    made.render()
    made.flip(made.place(made.kernel.processors[1].context_address + 0x32), 0x10)
    found = await made.check(witness=False)
    assert found.problems == ("registers: what lies where processor 1 keeps its CONTEXT is none",)


async def test_a_program_counter_that_cannot_be_is_seen_without_a_witness(made: _Made) -> None:
    made.render()
    made.flip(made.place(made.kernel.processors[0].context_address + 0xF8 + 6), 0xF0)
    found = await made.check(witness=False)
    assert found.problems == ("registers: processor 0 stands at an address that does not exist",)


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("lost", [1, 100, PAGE_SIZE, 1 << 20])
async def test_a_truncated_file(layout: DumpLayoutChoice, lost: int, made: _Made) -> None:
    made.render(layout)
    os.truncate(made.out, made.out.stat().st_size - lost)
    found = await made.check(witness=False)
    assert not found.good
    gone = -(-lost // PAGE_SIZE)
    assert found.problems[0].startswith("the file was cut off: ")
    assert f"and {gone} of " in found.problems[0]


async def test_bytes_behind_the_end(made: _Made) -> None:
    made.render()
    with made.out.open("ab") as file:
        file.write(bytes(100))
    found = await made.check(witness=False)
    assert found.problems == ("100 bytes behind the last page belong to nothing",)


@pytest.mark.parametrize("change", [1, -1, 1000])
async def test_a_bitmap_whose_count_does_not_add_up(change: int, made: _Made) -> None:
    made.render(DumpLayoutChoice.BITMAP)
    data = made.out.read_bytes()[0x2028:0x2030]
    with made.out.open("r+b") as file:
        file.seek(0x2028)
        file.write(struct.pack("<Q", struct.unpack("<Q", data)[0] + change))
    assert "bitmap" in (await made.problem()).lower()


async def test_a_bit_too_many_in_the_bitmap(made: _Made) -> None:
    made.render(DumpLayoutChoice.BITMAP)
    gone = min(made.kernel.image.unreadable)
    made.flip(0x2038 + gone // 8, 1 << gone % 8)
    assert await made.problem()


async def test_a_wrong_number_of_processors(made: _Made) -> None:
    made.render()
    made.flip(0x34, 1)
    assert (await made.check(witness=False)).problems == ("the header says 5 processors, KiProcessorBlock 4",)


@pytest.mark.parametrize(
    ("offset", "step"),
    [(0x80, "KDBG"), (0x10, "directory table base"), (0x20, "modules")],
    ids=["kdbg", "root", "modules"],
)
async def test_a_header_that_leads_nowhere(offset: int, step: str, made: _Made) -> None:
    made.render()
    with made.out.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<Q", 0x0000_1234_5678_9000))
    found = await made.check(witness=False)
    assert not found.good, step


async def test_a_page_that_its_witness_does_not_have(made: _Made, tmp_path: Path) -> None:
    made.render()
    kernel = made.kernel
    with await capture(tmp_path / "other", machine(seed=1, unreadable_pages=40)) as other:
        with DumpFile(made.out) as dump:
            found = await verify(dump, other)
        extra = (made.snapshot.held - other.held).page_count
    assert extra and f"{extra} pages of the dump are not in {other.name}" in found.problems
    assert kernel.kdbg_address


async def test_against_raw_memory(made: _Made, tmp_path: Path) -> None:
    made.render()
    raw = tmp_path / "memory.img"
    with raw.open("wb") as file:
        for pfn in made.snapshot.held.pages():
            file.seek(pfn * PAGE_SIZE)
            file.write(made.kernel.image.read_page(pfn) or b"")
    with DumpFile(made.out) as dump, RawImage(raw) as image:
        found = await verify(dump, image)
    assert (found.good, found.problems) == (True, ())
    assert found.overlaid > 0
    assert found.notes[-1] == f"2 pages are marked as unreadable, and {raw} has them"


async def test_a_dump_of_another_machine_differs(made: _Made, tmp_path: Path) -> None:
    made.render()
    with await capture(tmp_path / "other", machine(seed=2)) as other, DumpFile(made.out) as dump:
        found = await verify(dump, other)
    assert not found.good and len(found.differing) == 64, "the first of them are enough"


async def test_a_kernel_dump_verifies_against_the_complete_one(made: _Made, tmp_path: Path) -> None:
    made.render()
    small = tmp_path / "kernel.dmp"
    await render(made.snapshot, made.snapshot.target, small, kind=DumpKind.KERNEL)
    with DumpFile(small) as dump, DumpFile(made.out) as complete:
        found = await verify(dump, complete)
    assert (found.good, found.overlaid) == (True, 0)
