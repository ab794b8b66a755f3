"""Finding the KDBG: every way leads to the block that the machine's maker laid down, and bad ways end."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from kdbridge.discovery.kdbg import find_kdbg
from kdbridge.discovery.notes import Notes
from kdbridge.target import Finding, Kdbg
from protocol.layouts.version import GetVersion64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.poking import peek, poke, poke_pointer, unmap
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)
_MOST_READ = 5 << 20
"""Bytes that the whole search may ask for: 2 MiB of data, page by page again where it has holes, and some change."""


async def _find(
    kernel: SimulatedKernel, version: GetVersion64 | None = None
) -> tuple[Kdbg | None, list[Finding], SimulatedSource]:
    source = SimulatedSource(kernel, version=version)
    notes = Notes(None)
    found = await find_kdbg(source, version or kernel.version, notes)
    assert source.meter.read <= _MOST_READ
    assert source.meter.reads < 800
    return found, notes.findings, source


def _assert_the_block(found: Kdbg | None, kernel: SimulatedKernel) -> None:
    assert found is not None
    assert (found.address, found.block.raw) == (kernel.kdbg_address, kernel.kdbg.raw)


@pytest.mark.parametrize("options", [{}, {"build": 3790}, {"build": 7601}, {"build": 22621}, {"foreign_block": True}])
async def test_through_the_list(options: dict) -> None:
    kernel = build_kernel(replace(_SMALL, **options))
    found, findings, source = await _find(kernel)
    _assert_the_block(found, kernel)
    assert found is not None and not found.encoded
    assert [(f.found, f.text) for f in findings] == [
        (True, f"at {kernel.kdbg_address:#x}, in the list of debugger data")
    ]
    assert source.meter.reads <= 6


async def test_where_the_version_names_the_block_itself() -> None:
    kernel = build_kernel(_SMALL)
    found, _, _ = await _find(kernel, replace(kernel.version, debugger_data_list=kernel.kdbg_address))
    _assert_the_block(found, kernel)


async def test_beside_the_module_list_when_no_list_leads_to_it() -> None:
    kernel = build_kernel(_SMALL)
    found, findings, _ = await _find(kernel, replace(kernel.version, debugger_data_list=0))
    _assert_the_block(found, kernel)
    assert [finding.found for finding in findings] == [False, True]
    assert "names none" in findings[0].text and "by its tag near the module list" in findings[1].text


@pytest.mark.parametrize("build", [3790, 7601, 19041])
async def test_in_the_kernels_data_when_there_is_no_module_list_either(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    found, findings, _ = await _find(kernel, replace(kernel.version, debugger_data_list=0, ps_loaded_module_list=0))
    _assert_the_block(found, kernel)
    assert "by its tag in the kernel's section" in findings[-1].text


async def test_a_page_that_is_not_there_does_not_hide_what_lies_around_it() -> None:
    kernel = build_kernel(replace(_SMALL, build=7601))
    version = replace(kernel.version, debugger_data_list=0, ps_loaded_module_list=0)
    block = range(kernel.kdbg_address, kernel.kdbg_address + 0x380)
    for address in range((block.start & ~0xFFF) - 0x4000, block.start + 0x4000, 0x1000):
        mapped = kernel.tables.translate(address) is not None
        if mapped and (address >= block.stop or address + 0x1000 <= block.start):
            unmap(kernel, address)
    found, _, _ = await _find(kernel, version)
    _assert_the_block(found, kernel)


@pytest.mark.parametrize("seed", range(5))
async def test_encoded_and_decoded_by_what_it_must_hold(seed: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=22621, encoded_kdbg=True, seed=seed))
    assert kernel.kdbg_key is not None
    assert kernel.read_virtual(kernel.kdbg_address, len(kernel.kdbg.raw)) != kernel.kdbg.raw
    found, findings, _ = await _find(kernel)
    _assert_the_block(found, kernel)
    assert found is not None and found.encoded
    assert "encoded, and decoded by what it must hold" in findings[-1].text


async def test_encoded_and_named_by_nobody() -> None:
    kernel = build_kernel(replace(_SMALL, build=22621, encoded_kdbg=True))
    found, findings, _ = await _find(kernel, replace(kernel.version, debugger_data_list=0))
    _assert_the_block(found, kernel)
    assert [finding.found for finding in findings] == [False, True]


async def test_none_at_all_is_a_finding() -> None:
    kernel = build_kernel(_SMALL)
    poke(kernel, kernel.kdbg_address, bytes(0x380))
    found, findings, _ = await _find(kernel)
    assert found is None
    assert [(f.step, f.found) for f in findings][-1] == ("KDBG", False)
    assert findings[-1].text.startswith("not found, plain or encoded")


@pytest.mark.parametrize("size", [0, 0x10, 0x28, 0x10000, 0xFFFFFFFF])
async def test_a_block_of_an_impossible_size_is_none(size: int) -> None:
    kernel = build_kernel(_SMALL)
    poke(kernel, kernel.kdbg_address + 0x14, struct.pack("<I", size))
    found, findings, _ = await _find(kernel)
    assert found is None and not findings[-1].found


@pytest.mark.parametrize("link", [0, 1, 0x0000_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFF8, 0xDEAD_BEEF_DEAD_BEEF])
async def test_a_list_that_points_nowhere_is_told_and_the_block_found_otherwise(link: int) -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.debugger_data_list, link)
    found, findings, _ = await _find(kernel)
    _assert_the_block(found, kernel)
    assert [(f.step, f.found) for f in findings] == [("list of debugger data", False), ("KDBG", True)]
    assert f"broken at {link:#x}" in findings[0].text


async def test_a_list_that_turns_in_a_circle_ends() -> None:
    kernel = build_kernel(_SMALL)
    stray = kernel.processors[0].stack_limit + 0x100
    poke_pointer(kernel, kernel.debugger_data_list, stray)
    poke_pointer(kernel, stray, stray)
    found, findings, _ = await _find(kernel)
    _assert_the_block(found, kernel)
    assert "near the module list" in findings[-1].text


async def test_a_list_without_end_is_followed_for_a_while_only() -> None:
    kernel = build_kernel(_SMALL)
    start = kernel.processors[0].stack_limit
    for number in range(200):
        poke_pointer(kernel, start + 0x18 * number, start + 0x18 * (number + 1))
    poke_pointer(kernel, kernel.debugger_data_list, start)
    found, _, _ = await _find(kernel)
    _assert_the_block(found, kernel)


async def test_tags_without_blocks_do_not_stop_the_search() -> None:
    kernel = build_kernel(replace(_SMALL, build=7601))
    version = replace(kernel.version, debugger_data_list=0, ps_loaded_module_list=0)
    rng = random.Random(4)
    # False tags all over the data page in front of the true block.
    page = kernel.kdbg_address & ~0xFFF
    for at in range(0x10, kernel.kdbg_address - page - 0x20, 8):
        if rng.random() < 0.5:
            poke(kernel, page + at, b"KDBG" + struct.pack("<I", rng.choice([0, 0x380, 0x340, 1 << 31])))
    found, _, _ = await _find(kernel, version)
    assert found is not None
    assert found.block["kern_base"] in (kernel.kernel_base, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_random_versions_end_bounded(seed: int) -> None:
    rng = random.Random(f"versions {seed}")
    kernel = build_kernel(_SMALL)

    def some() -> int:
        return rng.choice([0, rng.getrandbits(64), kernel.kernel_base + rng.randrange(1 << 20), (1 << 64) - 1, 8])

    version = replace(kernel.version, debugger_data_list=some(), ps_loaded_module_list=some(), kern_base=some())
    found, findings, _ = await _find(kernel, version)
    assert findings[-1].found == (found is not None)


async def test_sections_of_a_broken_header_end_bounded() -> None:
    kernel = build_kernel(_SMALL)
    version = replace(kernel.version, debugger_data_list=0, ps_loaded_module_list=0)
    poke(kernel, kernel.kdbg_address, bytes(0x380))
    at = peek(kernel, kernel.kernel_base + 0x3C) & 0xFFFFFFFF
    optional = peek(kernel, kernel.kernel_base + at + 20) & 0xFFFF
    table = kernel.kernel_base + at + 24 + optional
    for entry in range(12):
        # Every section as large as can be, and writable.
        poke(kernel, table + 40 * entry + 8, b"\xff" * 4)
        poke(kernel, table + 40 * entry + 36, struct.pack("<I", 0xC000_0040))
    poke(kernel, kernel.kernel_base + at + 6, b"\xff\xff")
    found, findings, _ = await _find(kernel, version)
    assert found is None and not findings[-1].found
