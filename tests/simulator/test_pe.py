"""Images as they lie in memory, through pefile: headers, exports, debug directory and unwind data are in order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pefile
import pytest

from protocol.address import PAGE_SIZE
from simulator.kernel import KernelOptions, SimulatedKernel, SimulatedModule, build_kernel

_OLD = KernelOptions(build=3790, memory_size=32 << 20)
_SMALL = KernelOptions(memory_size=32 << 20)
_LARGE = KernelOptions(memory_size=128 << 20, processors=2)


@pytest.fixture(scope="module", params=[_OLD, _SMALL, _LARGE], ids=["nt52", "small pages", "large pages"])
def kernel(request: pytest.FixtureRequest) -> SimulatedKernel:
    return build_kernel(request.param)


def _image(kernel: SimulatedKernel, module: SimulatedModule) -> bytes:
    """Its pages; those that are not mapped (INIT was given back) read as zeros."""
    pages = (kernel.read_virtual(module.base + at, PAGE_SIZE) for at in range(0, module.size, PAGE_SIZE))
    return b"".join(page or bytes(PAGE_SIZE) for page in pages)


@pytest.fixture(scope="module")
def parsed(kernel: SimulatedKernel) -> list[tuple[SimulatedModule, Any]]:
    """In memory as it would be in a file: raw offsets are the RVAs."""
    return [(module, pefile.PE(data=_image(kernel, module))) for module in kernel.modules]


def test_pefile_has_nothing_to_say(parsed: list[tuple[SimulatedModule, Any]]) -> None:
    for module, pe in parsed:
        # It counts zeros, of which a data section is full.
        warnings = [text for text in pe.get_warnings() if not text.startswith("Byte 0x00 makes up")]
        assert warnings == [], module.name


def test_headers_say_what_the_module_list_says(parsed: list[tuple[SimulatedModule, Any]]) -> None:
    for module, pe in parsed:
        assert (pe.FILE_HEADER.Machine, pe.OPTIONAL_HEADER.Magic) == (0x8664, 0x20B)
        assert pe.OPTIONAL_HEADER.ImageBase == module.base
        assert pe.OPTIONAL_HEADER.SizeOfImage == module.size
        assert pe.OPTIONAL_HEADER.CheckSum == module.check_sum
        assert pe.FILE_HEADER.TimeDateStamp == module.time_date_stamp
        entry = module.entry_point - module.base
        assert pe.OPTIONAL_HEADER.AddressOfEntryPoint == entry
        assert not entry or pe.get_section_by_rva(entry).Name.rstrip(b"\0") == b".text"


def test_sections_follow_each_other_and_cover_the_image(parsed: list[tuple[SimulatedModule, Any]]) -> None:
    for module, pe in parsed:
        ends = [
            -(-(section.VirtualAddress + section.Misc_VirtualSize) // PAGE_SIZE) * PAGE_SIZE for section in pe.sections
        ]
        assert pe.sections[0].VirtualAddress == PAGE_SIZE
        assert [section.VirtualAddress for section in pe.sections[1:]] == ends[:-1]
        assert ends[-1] == module.size


def test_exports_lead_to_the_symbols(kernel: SimulatedKernel, parsed: list[tuple[SimulatedModule, Any]]) -> None:
    exports = 0
    for module, pe in parsed:
        table = getattr(pe, "DIRECTORY_ENTRY_EXPORT", None)
        if table is None:
            continue
        names = [symbol.name.decode() for symbol in table.symbols]
        assert names == sorted(names), "a loader searches by halves"
        assert table.name.decode() == module.file_name
        for symbol, name in zip(table.symbols, names, strict=True):
            known = kernel.symbols[name if module.name == "nt" else f"{module.name}!{name}"]
            assert module.base + symbol.address == known
        exports += len(names)
    assert exports > 30
    assert {"DbgBreakPointWithStatus", "KeBugCheckEx"} <= {
        symbol.name.decode() for symbol in parsed[0][1].DIRECTORY_ENTRY_EXPORT.symbols
    }


def test_each_image_names_its_symbol_file(kernel: SimulatedKernel, parsed: list[tuple[SimulatedModule, Any]]) -> None:
    guids = set()
    for module, pe in parsed:
        (entry,) = pe.DIRECTORY_ENTRY_DEBUG
        assert entry.struct.TimeDateStamp == module.time_date_stamp
        assert entry.entry.CvSignature == b"RSDS"
        pdb = "ntkrnlmp" if module.name == "nt" else module.name.lower()
        assert entry.entry.PdbFileName.rstrip(b"\0").decode() == f"{pdb}.pdb"
        guids.add(entry.entry.Signature_String)
    assert len(guids) == len(kernel.modules)


def test_unwind_data_is_sorted_and_inside_the_code(parsed: list[tuple[SimulatedModule, Any]]) -> None:
    for module, pe in parsed:
        entries = [entry.struct for entry in pe.DIRECTORY_ENTRY_EXCEPTION]
        assert entries, module.name
        for entry, following in pairwise(entries):
            assert entry.BeginAddress < entry.EndAddress <= following.BeginAddress
        text = pe.sections[0]
        assert entries[-1].EndAddress <= text.VirtualAddress + text.Misc_VirtualSize
        for entry in pe.DIRECTORY_ENTRY_EXCEPTION:
            assert (entry.unwindinfo.Version, entry.unwindinfo.Flags) == (1, 0)
            assert entry.unwindinfo.SizeOfProlog <= entry.struct.EndAddress - entry.struct.BeginAddress
            codes = entry.unwindinfo.UnwindCodes
            offsets = [code.struct.CodeOffset for code in codes]
            assert offsets == sorted(offsets, reverse=True), "in the order of unwinding"


def test_what_the_module_list_says_of_unwind_data_is_the_directory(
    kernel: SimulatedKernel, parsed: list[tuple[SimulatedModule, Any]]
) -> None:
    for module, pe in parsed:
        head = kernel.read_virtual(module.entry_address, 0x20)
        assert head is not None
        directory = pe.OPTIONAL_HEADER.DATA_DIRECTORY[3]
        # ExceptionTable at 10, its size at 18 (kd-protocol 7.5).
        assert int.from_bytes(head[0x10:0x18], "little") == module.base + directory.VirtualAddress
        assert int.from_bytes(head[0x18:0x1C], "little") == directory.Size


def test_a_section_that_was_discarded_is_gone(
    kernel: SimulatedKernel, parsed: list[tuple[SimulatedModule, Any]]
) -> None:
    for module, pe in parsed:
        init = pe.sections[-1]
        assert init.Name.rstrip(b"\0") == b"INIT"
        gone = kernel.read_virtual(module.base + init.VirtualAddress, 16) is None
        whole = kernel.image.runs.page_count * PAGE_SIZE > 100 << 20 and module.name == "nt"
        assert gone != whole, "but where large pages map the whole image"


def test_code_is_not_writable_and_data_is_not_executable(
    kernel: SimulatedKernel, parsed: list[tuple[SimulatedModule, Any]]
) -> None:
    flags = {
        page: leaf.entry
        for leaf in kernel.tables.mapped(slots=range(256, 512))
        for page in range(leaf.address, leaf.address + min(leaf.size, 64 * PAGE_SIZE), PAGE_SIZE)
        if leaf.size == PAGE_SIZE
    }
    for module, pe in parsed:
        for section in pe.sections[:-1]:
            entry = flags.get(module.base + section.VirtualAddress)
            if entry is None:  # large pages map it as a whole
                assert module.name == "nt"
                continue
            assert bool(entry & 2) == bool(section.Characteristics & 0x80000000)
            assert bool(entry >> 63) != bool(section.Characteristics & 0x20000000)
