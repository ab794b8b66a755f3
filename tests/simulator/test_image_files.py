"""The files that images were loaded from: pefile relocates them to where memory has them, and finds what differs."""

from __future__ import annotations

from pathlib import Path

import pefile
import pytest

from protocol.address import PAGE_SIZE
from simulator.image_files import image_file, write_images
from simulator.kernel import KernelOptions, SimulatedKernel, SimulatedModule, build_kernel

_IMPORT_ADDRESSES = 12
"""IMAGE_DIRECTORY_ENTRY_IAT: the loader writes there."""

_WRITE, _DISCARDABLE = 0x80000000, 0x02000000
_LINKED = KernelOptions(memory_size=128 << 20, processors=2, linked_images=True)


@pytest.fixture(
    scope="module",
    params=[_LINKED, KernelOptions(memory_size=32 << 20, linked_images=True), KernelOptions(memory_size=32 << 20)],
    ids=["large pages", "small pages", "not linked"],
)
def kernel(request: pytest.FixtureRequest) -> SimulatedKernel:
    return build_kernel(request.param)


def _differences(kernel: SimulatedKernel, module: SimulatedModule, file: bytes) -> list[int]:
    """Addresses in read-only sections where memory is not as the file, relocated by pefile."""
    pe = pefile.PE(data=file)
    pe.relocate_image(module.base)
    loaded = pe.get_memory_mapped_image()
    directory = pe.OPTIONAL_HEADER.DATA_DIRECTORY[_IMPORT_ADDRESSES]
    imports = range(directory.VirtualAddress, directory.VirtualAddress + directory.Size)
    found = []
    for section in pe.sections:
        if section.Characteristics & (_WRITE | _DISCARDABLE):
            continue
        start, size = section.VirtualAddress, section.Misc_VirtualSize
        data = kernel.read_virtual(module.base + start, size)
        assert data is not None
        expected = loaded[start : start + size].ljust(size, b"\0")
        found += [
            module.base + start + at for at in range(size) if data[at] != expected[at] and start + at not in imports
        ]
    return found


@pytest.mark.slow
def test_read_only_sections_are_as_in_the_file(kernel: SimulatedKernel) -> None:
    for module in kernel.modules:
        assert _differences(kernel, module, image_file(kernel, module.name)) == [], module.name


def test_the_header_in_memory_is_the_file_s_but_for_the_base(kernel: SimulatedKernel) -> None:
    for module in kernel.modules:
        file, memory = image_file(kernel, module.name), kernel.read_virtual(module.base, 0x400)
        assert memory is not None
        differing = {at for at in range(0x400) if file[at] != memory[at]}
        base = int.from_bytes(memory[0x3C:0x40], "little") + 24 + 24  # IMAGE_OPTIONAL_HEADER64.ImageBase
        assert differing and differing <= set(range(base, base + 8))
        assert int.from_bytes(memory[base : base + 8], "little") == module.base


def test_the_file_says_of_itself_what_the_module_list_says(kernel: SimulatedKernel) -> None:
    for module in kernel.modules:
        pe = pefile.PE(data=image_file(kernel, module.name))
        assert pe.FILE_HEADER.TimeDateStamp == module.time_date_stamp
        assert pe.OPTIONAL_HEADER.SizeOfImage == module.size
        assert pe.OPTIONAL_HEADER.CheckSum == module.check_sum
        # It counts zeros and int3s, of which such small files are full.
        assert [text for text in pe.get_warnings() if "% of the file's contents" not in text] == []


def test_a_linked_image_has_absolute_pointers_and_packed_sections() -> None:
    kernel = build_kernel(_LINKED)
    for module in kernel.modules:
        file = image_file(kernel, module.name)
        pe = pefile.PE(data=file)
        fixed = [entry.rva for block in pe.DIRECTORY_ENTRY_BASERELOC for entry in block.entries if entry.type == 10]
        assert len(fixed) == len(kernel.image_files.plans[module.name].functions)
        text = pe.sections[0]
        for rva in fixed:
            data = kernel.read_virtual(module.base + rva, 8)
            assert data is not None
            pointer = int.from_bytes(data, "little") - module.base - text.VirtualAddress
            assert 0 <= pointer < text.Misc_VirtualSize
        assert all(section.PointerToRawData % 0x200 == 0 == section.SizeOfRawData % 0x200 for section in pe.sections)
        assert len(file) < module.size
        assert max(section.PointerToRawData + section.SizeOfRawData for section in pe.sections) == len(file)


def test_files_are_written_under_their_names(tmp_path: Path) -> None:
    kernel = build_kernel(_LINKED)
    places = write_images(kernel, tmp_path / "drivers")
    assert {name: place.name for name, place in places.items()} == {m.name: m.file_name for m in kernel.modules}
    assert sorted(place.name for place in (tmp_path / "drivers").iterdir()) == sorted(
        module.file_name for module in kernel.modules
    )
    for name, place in places.items():
        assert place.read_bytes() == image_file(kernel, name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.slow
def test_a_patched_module_differs_by_one_byte(seed: int, linked: bool) -> None:
    kernel = build_kernel(
        KernelOptions(seed=seed, memory_size=64 << 20, processors=1, patched_modules=4, linked_images=linked)
    )
    assert len(kernel.image_files.patched) == 4
    for module in kernel.modules:
        patched = kernel.image_files.patched.get(module.name)
        expected = [] if patched is None else [patched]
        assert _differences(kernel, module, image_file(kernel, module.name)) == expected, module.name


@pytest.mark.slow
def test_a_mismatched_file_is_of_another_build() -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20, processors=1, mismatched_images=3, linked_images=True))
    assert len(kernel.image_files.mismatched) == 3
    for module in kernel.modules:
        file = image_file(kernel, module.name)
        pe = pefile.PE(data=file)
        other = module.name in kernel.image_files.mismatched
        assert (pe.FILE_HEADER.TimeDateStamp != module.time_date_stamp) == other
        assert (pe.OPTIONAL_HEADER.CheckSum != module.check_sum) == other
        assert bool(_differences(kernel, module, file)) == other
        assert pe.OPTIONAL_HEADER.SizeOfImage == module.size and module.size % PAGE_SIZE == 0
