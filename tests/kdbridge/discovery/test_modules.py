"""The list of loaded images and the ring of unloaded ones: as they are, as far as they go, and never for ever."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.discovery.modules import find_modules, find_unloaded_modules, name_reader, with_names
from kdbridge.discovery.notes import Notes
from kdbridge.target import NAME_NOT_READ, Finding, Kdbg, Module, UnloadedModule
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.poking import peek, poke, poke_pointer, unmap
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


def _kdbg(kernel: SimulatedKernel) -> Kdbg:
    return Kdbg(kernel.kdbg_address, kernel.kdbg, encoded=False)


async def _modules(kernel: SimulatedKernel, *, most: int = 200) -> tuple[tuple[Module, ...], list[Finding]]:
    source = SimulatedSource(kernel)
    notes = Notes(None)
    found = await find_modules(source, kernel.version, _kdbg(kernel), notes)
    assert source.meter.reads < most
    return found, notes.findings


async def _unloaded(kernel: SimulatedKernel) -> tuple[tuple[UnloadedModule, ...], list[Finding]]:
    source = SimulatedSource(kernel)
    notes = Notes(None)
    found = await find_unloaded_modules(source, _kdbg(kernel), notes)
    assert source.meter.reads < 120
    return found, notes.findings


@pytest.mark.parametrize("build", [3790, 7601, 19041, 22621])
async def test_every_module_as_the_machine_was_made(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    found, findings = await _modules(kernel)
    assert [
        (m.path, m.base, m.size, m.entry_point, m.time_date_stamp, m.check_sum, m.entry_address) for m in found
    ] == [
        (m.path, m.base, m.size, m.entry_point, m.time_date_stamp, m.check_sum, m.entry_address) for m in kernel.modules
    ]
    assert [(f.step, f.found) for f in findings] == [("modules", True)]


async def test_a_list_that_turns_in_a_circle_is_told() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.modules[4].entry_address, kernel.modules[2].entry_address)
    found, findings = await _modules(kernel)
    assert [module.base for module in found] == [module.base for module in kernel.modules[:5]]
    assert not findings[0].found
    assert findings[0].text.startswith("5 of the list, then it turns in a circle at ")
    assert findings[0].text.endswith("modules behind it are not known")


@pytest.mark.parametrize("link", [0, 8, 0xDEAD_BEEF_DEAD_BEEF, 0xFFFF_FFFF_FFFF_FFF8])
async def test_a_link_that_leads_nowhere_keeps_what_came_before(link: int) -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.modules[2].entry_address, link)
    found, findings = await _modules(kernel)
    assert [module.base for module in found] == [module.base for module in kernel.modules[:3]]
    assert f"its entry at {link:#x} cannot be read" in findings[0].text


async def test_a_head_that_cannot_be_read_is_told() -> None:
    kernel = build_kernel(_SMALL)
    unmap(kernel, kernel.version.ps_loaded_module_list)
    found, findings = await _modules(kernel)
    assert found == ()
    assert f"its head at {kernel.version.ps_loaded_module_list:#x} cannot be read" in findings[0].text


async def test_no_list_at_all() -> None:
    kernel = build_kernel(_SMALL)
    notes = Notes(None)
    version = replace(kernel.version, ps_loaded_module_list=0)
    assert await find_modules(SimulatedSource(kernel), version, None, notes) == ()
    assert [(f.step, f.found, f.text) for f in notes.findings] == [
        ("modules", False, "the target names no module list")
    ]
    assert len(await find_modules(SimulatedSource(kernel), version, _kdbg(kernel), notes)) == len(kernel.modules)


@pytest.mark.parametrize("length", [0xFFFF, 0xFFFE, 3, 0])
async def test_a_name_of_an_impossible_length_costs_no_more_than_the_name(length: int) -> None:
    kernel = build_kernel(_SMALL)
    entry = kernel.modules[3].entry_address
    poke(kernel, entry + 0x58, struct.pack("<H", length))
    found, findings = await _modules(kernel)
    assert len(found) == len(kernel.modules) and findings[0].found
    assert len(found[3].name) <= 1024
    assert (found[3].base, found[3].path) == (kernel.modules[3].base, kernel.modules[3].path)


@pytest.mark.parametrize("build", [3790, 19041])
async def test_of_a_first_look_names_are_read_when_they_are_asked_for(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    whole = (await discover(SimulatedSource(kernel))).modules
    source = SimulatedSource(kernel)
    once = ReadOnce(source)
    target = await discover(once, first_look=True)
    assert {(m.name, m.path, m.time_date_stamp, m.check_sum) for m in target.modules} == {(NAME_NOT_READ, "", 0, 0)}
    assert [(m.base, m.size, m.entry_point, m.entry_address) for m in target.modules] == [
        (m.base, m.size, m.entry_point, m.entry_address) for m in kernel.modules
    ]
    before = source.meter.read
    named = await name_reader(once, target)(target.modules[3])
    assert named == replace(whole[3], path="") and named.name == kernel.modules[3].file_name
    if build == 19041:
        # The rest of its entry, with its name, up to where the next entry's head is known.
        assert 0 < source.meter.read - before <= KLDR_DATA_TABLE_ENTRY64.size + 0x40 - 0x44
    before = source.meter.read
    assert await name_reader(once, target)(target.modules[3]) == named
    assert await name_reader(once, target)(named) is named
    assert source.meter.read == before
    found = await with_names(once, target)
    assert found.modules == tuple(replace(one, path="") for one in whole)
    assert found.findings == target.findings and await with_names(once, found) is found
    assert (await discover(once)).modules == whole


async def test_a_first_look_costs_a_third_of_the_bytes_for_each_module() -> None:
    kernel = build_kernel(_SMALL)
    source = SimulatedSource(kernel)
    await find_modules(source, kernel.version, _kdbg(kernel), Notes(None), names=False)
    assert source.meter.read == 8 + 68 * len(kernel.modules)


async def test_names_that_a_first_look_left_and_that_are_gone_are_missing() -> None:
    kernel = build_kernel(_SMALL)
    once = ReadOnce(SimulatedSource(kernel))
    target = await discover(once, first_look=True)
    entry = kernel.modules[3].entry_address
    unmap(kernel, entry)
    gone = sum(one.entry_address >> 12 == entry >> 12 for one in kernel.modules)
    found = await with_names(once, target)
    assert found.modules[3].name == "<name not readable>"
    assert found.shortcomings[-1] == Finding(
        "names of modules", False, f"{gone} of {len(kernel.modules)} cannot be read"
    )


async def test_an_entry_that_runs_into_a_hole_ends_no_list() -> None:
    kernel = build_kernel(replace(_SMALL, processors=1))
    # So much of it as tells where it lies is at the end of a page, and nothing behind that.
    page = kernel.processors[0].stack_base - 0x1000
    entry = page - 0x44
    head = kernel.read_virtual(kernel.modules[3].entry_address, 0x44)
    assert head is not None
    poke(kernel, entry, head)
    poke_pointer(kernel, kernel.modules[2].entry_address, entry)
    unmap(kernel, page)
    for names in (True, False):
        notes = Notes(None)
        found = await find_modules(SimulatedSource(kernel), kernel.version, _kdbg(kernel), notes, names=names)
        assert [one.base for one in found] == [one.base for one in kernel.modules]
        assert found[3].name == ("<name not readable>" if names else NAME_NOT_READ)
        assert [f.step for f in notes.findings if not f.found] == (["names of modules"] if names else [])


async def test_names_that_are_paged_out_are_told_and_the_rest_is_known() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.modules[3].entry_address + 0x60, 0xFFFF_8000_0000_0000)
    poke_pointer(kernel, kernel.modules[3].entry_address + 0x50, 0)
    found, findings = await _modules(kernel)
    assert (found[3].name, found[3].path, found[3].base) == ("<name not readable>", "", kernel.modules[3].base)
    assert (findings[-1].step, findings[-1].text) == (
        "names of modules", f"1 of {len(kernel.modules)} cannot be read",
    )  # fmt: skip


async def test_a_name_that_is_no_text_harms_nobody() -> None:
    kernel = build_kernel(_SMALL)
    buffer = peek(kernel, kernel.modules[3].entry_address + 0x60)
    poke(kernel, buffer, b"\x00\xd8\xff\xff")
    found, _ = await _modules(kernel)
    found[3].name.encode("utf-8")


async def test_a_list_of_thousands_is_followed_so_far_and_no_further() -> None:
    kernel = build_kernel(replace(_SMALL, memory_size=64 << 20))
    # Entries that overlap: each lies 8 bytes behind the one before.
    start = kernel.processors[0].stack_limit
    end = kernel.processors[0].stack_base - 0xA0
    for at in range(start, end, 8):
        poke_pointer(kernel, at, at + 8)
    poke_pointer(kernel, kernel.version.ps_loaded_module_list, start)
    found, findings = await _modules(kernel, most=3 * 4096 + 100)
    assert 100 < len(found) <= 4096
    assert not findings[0].found


@pytest.mark.parametrize("build", [3790, 19041])
async def test_unloaded_modules_latest_first(build: int) -> None:
    kernel = build_kernel(replace(_SMALL, build=build))
    found, findings = await _unloaded(kernel)
    assert [(m.name, m.start, m.end, m.time) for m in found] == [
        (m.name, m.start, m.end, m.time) for m in reversed(kernel.unloaded_modules)
    ]
    assert [(f.found, f.text) for f in findings] == [(True, f"{len(kernel.unloaded_modules)}")]


async def test_no_ring_yet() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.symbols["MmUnloadedDrivers"], 0)
    found, findings = await _unloaded(kernel)
    assert found == () and (findings[0].found, findings[0].text) == (True, "none yet")


@pytest.mark.parametrize("count", [0xFFFF_FFFF, 51, 1 << 31])
async def test_a_ring_with_an_impossible_count_ends(count: int) -> None:
    kernel = build_kernel(_SMALL)
    poke(kernel, kernel.symbols["MmLastUnloadedDriver"], struct.pack("<I", count))
    found, _ = await _unloaded(kernel)
    assert {m.name for m in found} == {m.name for m in kernel.unloaded_modules}


async def test_a_ring_that_is_not_there_is_told() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.symbols["MmUnloadedDrivers"], 0xFFFF_8000_0000_0000)
    found, findings = await _unloaded(kernel)
    assert found == () and not findings[0].found and "cannot be read" in findings[0].text
