"""Discovery as a whole: everything that the machine's maker knows, and a finding for whatever is missing."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from kdbridge.discovery import discover
from kdbridge.discovery.notes import read_string, try_read, try_read_pointer
from kdbridge.errors import TargetRefusedError
from kdbridge.target import Finding, Target
from protocol.address import PageRun, PageRuns
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.poking import peek, poke, poke_pointer, unmap
from tests.kdbridge.simulated import SimulatedSource

_SMALL = KernelOptions(memory_size=16 << 20)


async def _discover(kernel: SimulatedKernel, **worse: bool) -> tuple[Target, SimulatedSource]:
    source = SimulatedSource(kernel, **worse)  # type: ignore[arg-type]
    return await discover(source), source


def _missing(target: Target) -> dict[str, str]:
    return {finding.step: finding.text for finding in target.shortcomings}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"build": 3790, "stop": "bugcheck-first"},
        {"build": 7601, "processors": 1},
        {"build": 22621, "encoded_kdbg": True, "stop": "breakpoint"},
        {"runs": 60, "memory_size": 64 << 20},
        {"stop": "running", "stopped_processor": 3},
        {"bug_check": BugCheck(0x50, (1, 2, 3, 4))},
        {"seed": 77, "foreign_block": True},
    ],
    ids=str,
)
async def test_it_finds_what_the_machines_maker_knows(options: dict) -> None:
    kernel = build_kernel(replace(_SMALL, **options))
    reported: list[Finding] = []
    source = SimulatedSource(kernel)
    found = await discover(source, reported.append)
    assert tuple(reported) == found.findings
    assert _missing(found) == {}
    assert found.version == kernel.version
    assert found.kdbg is not None and found.kdbg.address == kernel.kdbg_address
    assert found.directory_table_base == kernel.directory_table_base
    assert found.runs == kernel.image.runs
    assert (found.bug_check_code, *found.bug_check_parameters) == kernel.bug_check
    assert found.break_status == kernel.break_status
    assert found.build_lab == kernel.build_lab
    shared = found.shared_data
    assert shared is not None
    assert (shared.system_time, shared.interrupt_time) == (kernel.options.system_time, kernel.options.uptime)
    assert (shared.product_type, shared.suite_mask) == (1, 0x110)
    assert shared.active_processor_count in (0, len(kernel.processors))
    assert len(found.processors) == len(kernel.processors)
    assert found.stop == source.stop
    assert source.meter.reads < 200 + 5 * len(kernel.processors), "a first look costs little on a slow line"


async def test_an_architecture_that_nobody_knows_is_refused_by_name() -> None:
    kernel = build_kernel(_SMALL)
    source = SimulatedSource(kernel, version=replace(kernel.version, machine_type=0x1C4))
    with pytest.raises(TargetRefusedError, match=r"simulated is a machine of type 0x1c4; this version knows .*8664"):
        await discover(source)


def _zero(name: str, size: int = 8) -> Callable[[SimulatedKernel], None]:
    return lambda kernel: poke(kernel, kernel.symbols[name], bytes(size))


def _gone(name: str) -> Callable[[SimulatedKernel], None]:
    return lambda kernel: poke_pointer(kernel, kernel.kdbg_address + _offset(kernel, name), 0xFFFF_8000_0000_0000)


def _offset(kernel: SimulatedKernel, name: str) -> int:
    raw = kernel.kdbg[name].to_bytes(8, "little")
    at = kernel.kdbg.raw.index(raw)
    assert kernel.kdbg.raw.count(raw) == 1
    return at


@pytest.mark.parametrize(
    ("damage", "step", "text"),
    [
        (_zero("MmPhysicalMemoryBlock"), "physical memory runs", "no complete dump is possible"),
        (_gone("mm_physical_memory_block"), "physical memory runs", "MmPhysicalMemoryBlock cannot be read"),
        (_gone("ki_bugcheck_data"), "bug check", "whether there was one is not known"),
        (_gone("nt_build_lab"), "build lab", "cannot be read"),
        (_gone("ki_processor_block"), "processors", "asking 4 processors for their registers all the same"),
        (_gone("mm_unloaded_drivers"), "unloaded modules", "none yet"),
        (lambda kernel: unmap(kernel, 0xFFFFF780_00000000), "shared data", "no times, no product type"),
        (lambda kernel: poke(kernel, kernel.kdbg_address, bytes(0x380)), "KDBG", "not found"),
        (lambda kernel: poke_pointer(kernel, kernel.version.ps_loaded_module_list, 8), "modules", "0 of the list"),
    ],
    ids=["no block", "runs", "bug check", "lab", "processors", "unloaded", "shared", "kdbg", "modules"],
)
async def test_each_missing_piece_is_a_finding(damage: Callable[[SimulatedKernel], None], step: str, text: str) -> None:
    kernel = build_kernel(_SMALL)
    damage(kernel)
    found, source = await _discover(kernel)
    texts = [finding.text for finding in found.findings if finding.step == step]
    assert any(text in one for one in texts), texts
    assert source.meter.reads < 1000
    whole = await discover(SimulatedSource(build_kernel(_SMALL)))
    assert whole.shortcomings == ()


async def test_without_a_kdbg_every_piece_that_hangs_on_it_is_named() -> None:
    kernel = build_kernel(_SMALL)
    poke(kernel, kernel.kdbg_address, bytes(0x380))
    found, _ = await _discover(kernel)
    assert {"KDBG", "processors", "physical memory runs", "bug check", "unloaded modules", "build lab"} <= set(
        _missing(found)
    )
    assert found.bug_check_code is None and found.runs is None
    assert [m.base for m in found.modules] == [m.base for m in kernel.modules]
    stopped = kernel.processors[0]
    assert found.directory_table_base == stopped.special_values["cr3"] & ~0xFFF


async def test_without_registers_the_system_process_tells_the_root() -> None:
    kernel = build_kernel(_SMALL)
    found, _ = await _discover(kernel, contexts=False)
    assert found.directory_table_base == kernel.directory_table_base
    assert "none of processor 0, 1, 2, 3" in _missing(found)["registers"]


async def test_without_registers_and_processes_there_is_no_root() -> None:
    kernel = build_kernel(_SMALL)
    poke_pointer(kernel, kernel.symbols["PsActiveProcessHead"], 0)
    found, _ = await _discover(kernel, contexts=False)
    assert found.directory_table_base is None
    assert "no kernel dump is possible" in _missing(found)["directory table base"]


async def test_no_physical_reads_are_a_shortcoming() -> None:
    kernel = build_kernel(_SMALL)
    found, _ = await _discover(kernel, physical=False)
    assert set(_missing(found)) == {"physical memory"}


@pytest.mark.parametrize(
    "runs",
    [
        [(1, 0xFFFF_FFFF_FFFF_FFFF)],
        [(0x10, 4), (0x8, 4)],
        [(0x10, 4), (0x12, 4)],
        [(0x10, 0)],
        [(1 << 41, 4)],
    ],
    ids=["endless", "backwards", "overlapping", "empty", "beyond 52 bits"],
)
async def test_runs_that_cannot_be_are_none(runs: list[tuple[int, int]]) -> None:
    kernel = build_kernel(_SMALL)
    block = peek(kernel, kernel.symbols["MmPhysicalMemoryBlock"])
    total = sum(count for _, count in runs) & (1 << 64) - 1
    poke(kernel, block, struct.pack("<IIQ", len(runs), 0, total) + b"".join(struct.pack("<QQ", *run) for run in runs))
    found, _ = await _discover(kernel)
    assert found.runs is None and "no complete dump is possible" in _missing(found)["physical memory runs"]


@pytest.mark.parametrize("count", [0, 4097, 0xFFFF_FFFF])
async def test_a_count_of_runs_that_cannot_be_is_none(count: int) -> None:
    kernel = build_kernel(_SMALL)
    block = peek(kernel, kernel.symbols["MmPhysicalMemoryBlock"])
    poke(kernel, block, struct.pack("<I", count))
    found, source = await _discover(kernel)
    assert found.runs is None and "physical memory runs" in _missing(found)
    assert source.meter.reads < 200


async def test_many_runs_of_a_real_machine() -> None:
    runs = PageRuns(PageRun(0x10 + 0x20 * n, 0x10 + n % 7) for n in range(300))
    kernel = build_kernel(replace(_SMALL, runs=runs))
    found, _ = await _discover(kernel)
    assert found.runs == runs


@pytest.mark.parametrize("seed", range(25))
async def test_random_damage_ends_in_findings(seed: int) -> None:
    """Pointers and counts of the kernel's own variables overwritten: findings, no error, a bounded number of reads."""
    rng = random.Random(f"damage {seed}")
    kernel = build_kernel(_SMALL)
    names = [
        "MmPhysicalMemoryBlock", "MmUnloadedDrivers", "MmLastUnloadedDriver", "PsActiveProcessHead",
        "PsLoadedModuleList", "KiProcessorBlock", "KiBugCheckData", "KdpDebuggerDataListHead", "NtBuildLab",
    ]  # fmt: skip
    places = [kernel.symbols[name] for name in names if name in kernel.symbols]
    places += [kernel.kdbg_address + 8 * rng.randrange(2, 0x380 // 8) for _ in range(6)]
    places += [kernel.modules[2].entry_address + 8 * rng.randrange(20), 0xFFFFF780_00000000 + 8 * rng.randrange(64)]
    for place in rng.sample(places, rng.randrange(1, len(places))):
        value = rng.choice(
            [0, 1, (1 << 64) - 1, rng.getrandbits(64), kernel.kernel_base + rng.randrange(1 << 21), place]
        )
        poke_pointer(kernel, place, value)
    found, source = await _discover(kernel)
    assert source.meter.reads < 20_000, f"seed {seed}"
    assert len(found.findings) >= 8
    for finding in found.findings:
        assert finding.text and finding.step


async def test_reading_by_notes_never_leaves_the_address_space() -> None:
    source = SimulatedSource(build_kernel(_SMALL))
    assert await try_read(source, 0, 8) is None
    assert await try_read(source, (1 << 64) - 4, 8) is None
    assert await try_read(source, 8, -1) is None
    assert await try_read_pointer(source, 0xFFFF_8000_0000_0000) is None
    assert await read_string(source, 0, 0) == ""
    assert await read_string(source, 0, 8) is None
    assert source.meter.reads <= 1
