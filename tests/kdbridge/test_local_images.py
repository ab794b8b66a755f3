"""Image files at hand: relocated they are what memory holds; what is no module's file is told and not used."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge.errors import FileError
from kdbridge.local_images import LocalImages
from kdbridge.memory.files import DumpFile
from kdbridge.target import Module
from protocol.address import PAGE_SIZE
from simulator.image_files import write_images
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from simulator.options import as_layout
from simulator.scenarios import ScenarioOptions, start
from tests.kdbridge.cli.calling import call, sim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(as_layout(KernelOptions(memory_size=32 << 20), "server"))


def _modules(kernel: SimulatedKernel) -> list[Module]:
    return [
        Module(one.file_name, one.path, one.base, one.size, one.entry_point, one.time_date_stamp, one.check_sum, 0)
        for one in kernel.modules
    ]


@pytest.mark.slow
def test_relocated_pages_are_those_of_memory(kernel: SimulatedKernel, tmp_path: Path) -> None:
    write_images(kernel, tmp_path)
    images = LocalImages(tmp_path)
    pages = 0
    for module in _modules(kernel):
        image, why = images.of(module)
        assert image is not None, why
        for rva, data in image.pages.items():
            assert kernel.read_virtual(module.base + rva, PAGE_SIZE) == data, f"{module.name}+{rva:#x}"
            pages += 1
    assert pages > 2 * len(kernel.modules)


def test_the_file_of_another_build_is_not_used(kernel: SimulatedKernel, tmp_path: Path) -> None:
    write_images(kernel, tmp_path)
    module = _modules(kernel)[0]
    for other in (replace(module, time_date_stamp=1), replace(module, size=module.size + PAGE_SIZE)):
        image, why = LocalImages(tmp_path).of(other)
        assert image is None and why.startswith("its file is of another build (timestamp ")
    assert LocalImages(tmp_path).of(replace(module, path=r"\??\C:\gone.sys")) == (None, "no file of this name")


@pytest.mark.parametrize("seed", range(12))
def test_a_file_that_is_damaged_is_told_or_gives_pages_of_the_right_size(
    kernel: SimulatedKernel, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    module = _modules(kernel)[seed % len(kernel.modules)]
    path = write_images(kernel, tmp_path)[kernel.modules[seed % len(kernel.modules)].name]
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 8, 200))):
        data[rng.randrange(min(len(data), 0x400))] = rng.randrange(256)
    path.write_bytes(data[: rng.choice((0, 2, 0x80, 0x200, len(data), len(data)))])
    image, why = LocalImages(tmp_path).of(module)
    assert why if image is None else all(len(page) == PAGE_SIZE for page in image.pages.values())


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="gone cannot be read"):
        LocalImages(tmp_path / "gone")
    ended = call("dump", sim(), tmp_path / "out.dmp", "--images", tmp_path / "gone")
    assert ended.code == 5 and not ended.machines


@pytest.mark.slow
def test_a_dump_takes_them_and_says_so(tmp_path: Path) -> None:
    options = ScenarioOptions(processors=2, memory_size=32 << 20, layout="server")
    write_images(start("bugcheck", options).kernel, tmp_path / "images")
    out = tmp_path / "out.dmp"
    line = sim(memory="32M", layout="server")
    ended = call("dump", line, out, "--kind", "kernel", "--images", tmp_path / "images")
    assert ended.code == 0, ended.err
    memory = ended.machine.pristine
    with DumpFile(out) as dump:
        inferred = dump.inferred
        assert inferred.page_count > 5
        assert all(dump.page(pfn) == memory.read_page(pfn) for pfn in inferred.pages())
    assert f"{inferred.page_count} pages were not read, but inferred" in ended.err
