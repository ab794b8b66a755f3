"""The made memory through other people's page walkers: kdmp-parser's and volatility's, on dumps of it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from volatility3.framework import contexts, exceptions
from volatility3.framework.interfaces.layers import DataLayerInterface
from volatility3.framework.layers import intel

from protocol.address import PAGE_SIZE, PageRuns
from protocol.dumpfile import DumpType, plan_bitmap
from simulator.image import MemoryImage
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.paging import GIB
from tests.dumps import written
from tests.oracles import kdmp
from tests.simulator.dumped import dump_plan, header_of

_SEED = 4


@pytest.fixture(scope="module")
def small() -> SimulatedKernel:
    return build_kernel(KernelOptions(processors=2, memory_size=64 << 20))


@pytest.fixture(scope="module")
def huge() -> SimulatedKernel:
    """With a page of 1 GiB and frames far above 4 GiB."""
    return build_kernel(KernelOptions(processors=2, memory_size=64 << 30))


def _sample(kernel: SimulatedKernel, root: int, count: int) -> list[int]:
    """Addresses in leaves of every size, and some that are mapped by none."""
    rng = random.Random(_SEED)
    by_size: dict[int, list[tuple[int, int]]] = {}
    for leaf in kernel.tables.mapped(root):
        if (leaf.physical >> 12) in kernel.image.runs:
            by_size.setdefault(leaf.size, []).append((leaf.address, leaf.size))
    chosen = [
        address + rng.randrange(size) for leaves in by_size.values() for address, size in rng.choices(leaves, k=count)
    ]
    beside = [(at + rng.choice((-1, 1)) * rng.randrange(1 << 34)) % (1 << 64) for at in chosen[:count]]
    return chosen + beside


def _sparse_dump(kernel: SimulatedKernel, path: Path) -> Path:
    """A bitmap dump of the pages that are not zero: all that a page walk needs."""
    pages = PageRuns.from_pages(kernel.image.content_pages())
    plan = plan_bitmap(header_of(kernel), kernel.image.runs, pages, DumpType(5))
    return written(path, plan, lambda pfn: kernel.image.read_page(pfn) or bytes(PAGE_SIZE))


@pytest.mark.parametrize("size", ["small", "huge"])
def test_kdmp_parser_translates_alike(size: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kernel: SimulatedKernel = request.getfixturevalue(size)
    path = _sparse_dump(kernel, tmp_path / "sparse.dmp")
    seen = 0
    with kdmp.open_oracle(path) as oracle:
        for process in kernel.processes:
            root = process.directory_table_base
            for address in _sample(kernel, root, 60):
                place = oracle.parser.translate_virtual(address, root)
                assert place == kernel.tables.translate(address, root), hex(address)
                seen += place is not None
    assert seen > 200


class ImageLayer(DataLayerInterface):  # type: ignore[misc]
    """The machine's physical memory as a layer of volatility's."""

    def __init__(self, context: Any, image: MemoryImage) -> None:
        super().__init__(context, "image", "image")
        self._image = image

    @property
    def minimum_address(self) -> int:
        return 0

    @property
    def maximum_address(self) -> int:
        return self._image.runs.end_page * PAGE_SIZE - 1

    def is_valid(self, offset: int, length: int = 1) -> bool:
        return self._image.read(offset, length) is not None

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        data = self._image.read(offset, length)
        if data is None:
            raise exceptions.InvalidAddressException("image", offset, "no memory")
        return data

    def write(self, offset: int, data: bytes) -> None:
        raise AssertionError("a reader writes")


def _layer(kernel: SimulatedKernel, root: int) -> Any:
    context = contexts.Context()
    context.add_layer(ImageLayer(context, kernel.image))
    context.config["memory.memory_layer"] = "image"
    context.config["memory.page_map_offset"] = root
    return intel.WindowsIntel32e(context, "memory", "memory")


def _canonical(address: int) -> int:
    low = address & (1 << 48) - 1
    return low | 0xFFFF << 48 if low >> 47 else low


@pytest.mark.parametrize("size", ["small", "huge"])
def test_volatility_translates_alike(size: str, request: pytest.FixtureRequest) -> None:
    kernel: SimulatedKernel = request.getfixturevalue(size)
    root = kernel.processes[-1].directory_table_base
    layer = _layer(kernel, root)
    leaves, devices = list(kernel.tables.mapped(root)), 0
    assert {leaf.size for leaf in leaves} >= ({PAGE_SIZE, 2 << 20, GIB} if size == "huge" else {PAGE_SIZE, 2 << 20})
    for leaf in leaves:
        if kernel.image.read(leaf.physical, 1) is None:
            devices += 1  # no memory, and volatility translates to memory only
            continue
        # It knows addresses by 48 bits.
        assert layer.translate(leaf.address & (1 << 48) - 1)[0] == leaf.physical
    assert devices < 10 and len(leaves) > 100
    seen = 0
    for address in _sample(kernel, root, 200):
        if address != _canonical(address):
            continue
        place = kernel.tables.translate(address, root)
        assert layer.is_valid(address & (1 << 48) - 1) == (
            place is not None and kernel.image.read(place, 1) is not None
        )
        seen += place is not None
    assert seen >= 200


def _odd_entries(kernel: SimulatedKernel, table: int, level: int = 0) -> Iterator[int]:
    """Page table entries of the kernel half that are not valid and not null."""
    page = kernel.image.read(table, PAGE_SIZE)
    assert page is not None
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", page)):
        if level == 0 and (index < 256 or entry & 0xFFFFFFFFF000 == table):
            continue
        if level == 3 and entry and not entry & 1:
            yield entry
        elif level < 3 and entry & 0x81 == 1:
            yield from _odd_entries(kernel, entry & 0xFFFFFFFFF000, level + 1)


def test_entries_that_are_not_valid_are_of_every_kind(small: SimulatedKernel) -> None:
    """Transition (bit 11), prototype (bit 10), page file, demand zero: as Windows keeps them (dump-formats 3.2)."""
    entries = list(_odd_entries(small, small.directory_table_base))
    transition = [entry for entry in entries if entry & 0xC00 == 0x800]
    frames = {entry >> 12 & 0xFFFFFFFFF for entry in transition}
    assert len(frames) == 8 and frames <= set(small.content.pages())
    assert sum(entry & 0x400 != 0 for entry in entries) == 1
    assert sum(entry & 0xC00 == 0 and entry >> 32 == 0x1234 for entry in entries) == 1
    assert sum(entry & 0xC00 == 0 and entry >> 32 == 0 for entry in entries) == 1


def test_contexts_are_where_readers_of_dumps_look(small: SimulatedKernel, tmp_path: Path) -> None:
    """`*(KiProcessorBlock[i] + OffsetPrcbContext)`, by kdmp-parser's virtual reads."""
    plan, memory = dump_plan(small, 1)
    with kdmp.open_oracle(written(tmp_path / "full.dmp", plan, memory)) as oracle:
        assert oracle.parser.directory_table_base == small.directory_table_base
        assert oracle.parser.context.Rip == small.processors[0].context_values["rip"]

        def read(address: int, size: int) -> bytes:
            data = b""
            while len(data) < size:
                page = oracle.parser.read_virtual_page(address + len(data))
                start = address + len(data) & PAGE_SIZE - 1
                data += bytes(page[start : start + size - len(data)])
            return data

        block = read(small.kdbg_address, 0x380)
        array = int.from_bytes(block[0x218:0x220], "little")
        offset = int.from_bytes(block[0x338:0x33A], "little")
        for processor in small.processors:
            prcb = int.from_bytes(read(array + 8 * processor.number, 8), "little")
            place = int.from_bytes(read(prcb + offset, 8), "little")
            assert read(place, 0x4D0) == processor.context()
