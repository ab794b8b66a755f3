"""Processes, threads, prints and hardware of simulated machines, against the truth that the simulator keeps of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbridge.analysis.model import ProcessFact, Trust
from kdbridge.analysis.names import Names
from kdbridge.analysis.print_buffer import print_buffer
from kdbridge.analysis.processes import process_facts
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.system import system_of, times_of
from kdbridge.analysis.threads import current_thread, thread_facts
from kdbridge.discovery import discover
from kdbridge.target import Target
from protocol.address import PAGE_SIZE, VirtualAddress, format_address
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource

_BUILDS = (3790, 7601, 19041)


def _machine(build: int = 19041, processors: int = 2) -> SimulatedKernel:
    options = KernelOptions(build=build, processors=processors, memory_size=32 << 20, processes=5, waiting_threads=2)
    return build_kernel(options)


async def _found(kernel: SimulatedKernel) -> tuple[ReadOnce, Target]:
    source = ReadOnce(SimulatedSource(kernel))
    return source, await discover(source)


@pytest.mark.parametrize("build", _BUILDS)
async def test_processes_by_name_parent_and_processor(build: int) -> None:
    kernel = _machine(build)
    found, missing = await process_facts(*await _found(kernel))
    truth = [(one.address, one.process_id, one.name, one.directory_table_base) for one in kernel.processes]
    assert [(one.address, one.process_id, one.name, one.directory_table_base) for one in found] == truth
    assert missing == ()
    offset = kernel.profile.eprocess.parent_cid
    parents = [kernel.read_virtual(one.address + offset, 8) for one in kernel.processes]
    assert [one.parent_id for one in found] == [int.from_bytes(raw or b"", "little") for raw in parents]
    homes = {thread.address: thread.process.address for thread in kernel.threads}
    for fact in found:
        on = tuple(one.number for one in kernel.processors if homes[one.thread] == fact.address)
        assert fact.current_on == on


@pytest.mark.parametrize("build", _BUILDS)
async def test_threads_with_ids_states_and_stacks(build: int) -> None:
    kernel = _machine(build)
    source, target = await _found(kernel)
    names = Names(target.modules, (), kernel.kernel_base)
    for process in kernel.processes[:3]:
        fact = ProcessFact(process.address, process.process_id, None, process.name, process.directory_table_base)
        facts, missing = await thread_facts(source, target, fact, names, stacks=True)
        found = {one.address: one for one in facts}
        assert missing == ()
        truth = [one for one in kernel.threads if one.process.address == process.address]
        assert set(found) == {one.address for one in truth}
        for thread in truth:
            told, waits = found[thread.address], bool(thread.frames)
            assert told.thread_id == int.from_bytes(_word(kernel, thread.address, 8), "little")
            assert told.state.split(" ")[0] == ("waiting" if waits else "running")
            assert ("(" in told.state) == (waits and build == 19041)  # older KDBGs do not tell where the reason stands
            assert told.stack is not None
            if waits:
                frames = told.stack.frames
                assert frames[0].trust is Trust.SCANNED and not told.stack.whole
                assert [one.instruction for one in frames[: len(thread.frames)]] == [
                    one.instruction for one in thread.frames
                ]


def _word(kernel: SimulatedKernel, thread: int, skip: int) -> bytes:
    return kernel.read_virtual(thread + kernel.profile.kthread.client_id + skip, 8) or b""


@pytest.mark.parametrize("build", _BUILDS)
async def test_the_current_thread_costs_little(build: int) -> None:
    kernel = _machine(build)
    source, target = await _found(kernel)
    before = source.bytes_read
    found, _ = await current_thread(source, target, kernel.stopped_processor, Names(()))
    stopped = kernel.processors[kernel.stopped_processor].thread
    truth = next(one for one in kernel.threads if one.address == stopped)
    assert found is not None
    assert (found.address, found.process_id) == (truth.address, truth.process.process_id)
    assert found.thread_id == int.from_bytes(_word(kernel, truth.address, 8), "little")
    assert (found.state, found.processor) == ("running", kernel.stopped_processor)
    assert source.bytes_read - before < 0x1800


async def test_names_need_a_witness() -> None:
    """Where the others have no names, nothing proves that what looks like System's is one."""
    kernel = _machine()
    for process in kernel.processes[1:]:
        place = process.address + kernel.profile.eprocess.image_file_name
        kernel.image.write(_physical(kernel, place), bytes(range(1, 16)))
    found, missing = await process_facts(*await _found(kernel))
    assert [one.process_id for one in found] == [one.process_id for one in kernel.processes]
    assert {one.name for one in found[1:]} == {""}
    assert "names of processes" in [one.what for one in missing]


async def test_a_list_that_breaks_off_says_where() -> None:
    kernel = _machine()
    source, target = await _found(kernel)
    links = kernel.profile.eprocess.active_process_links
    nowhere = 0xFFFF_9000_DEAD_0000
    physical = _physical(kernel, kernel.processes[1].address + links)
    kernel.image.write(physical, nowhere.to_bytes(8, "little"))
    found, missing = await process_facts(source, target)
    assert [one.process_id for one in found] == [one.process_id for one in kernel.processes[:2]]
    assert [(one.what, one.ranges[0][0] & -PAGE_SIZE) for one in missing if one.what == "processes"] == [
        ("processes", (nowhere - 8) & -PAGE_SIZE)
    ]


def _physical(kernel: SimulatedKernel, address: int) -> int:
    found = kernel.tables.translate(address)
    assert found is not None
    return found


async def test_what_ran_on_what_and_when() -> None:
    kernel = _machine(processors=3)
    source, target = await _found(kernel)
    system, times = await system_of(source, target), times_of(target)
    assert system.windows == "Windows 10.0 build 19041 free x64"
    assert (system.build_lab, system.processors) == (kernel.build_lab, 3)
    assert system.memory == kernel.image.runs.page_count * PAGE_SIZE
    prcb = kernel.processors[0].prcb
    vendor = kernel.read_virtual(prcb + kernel.profile.prcb.vendor_string, 12) or b""
    assert system.vendor.encode() == vendor
    speed = kernel.read_virtual(prcb + kernel.profile.prcb.mhz, 4) or b""
    assert system.megahertz == int.from_bytes(speed, "little")
    options = kernel.options
    assert (times.crash, times.up, times.boot) == (
        options.system_time, options.uptime, options.system_time - options.uptime
    )  # fmt: skip


async def test_prints_of_a_full_buffer_begin_with_the_oldest() -> None:
    kernel = _machine()
    source, target = await _found(kernel)
    buffer = kernel.symbols["KdPrintDefaultCircularBuffer"]
    write = int.from_bytes(
        await source.virtual.read(VirtualAddress(kernel.symbols["KdPrintWritePointer"]), 8), "little"
    )
    data = await source.virtual.read(VirtualAddress(buffer), PAGE_SIZE)
    rollovers = await source.virtual.read(VirtualAddress(kernel.symbols["KdPrintRolloverCount"]), 4)
    at = write - buffer
    whole = data[at:] + data[:at] if int.from_bytes(rollovers, "little") else data[:at]
    assert await print_buffer(source, target) == (whole.replace(b"\0", b"").decode(), ())
    assert whole.strip(b"\0")


async def test_prints_whose_page_is_gone_are_none() -> None:
    kernel = _machine()
    source, target = await _found(kernel)
    page = _physical(kernel, kernel.symbols["KdPrintDefaultCircularBuffer"]) // PAGE_SIZE
    kernel.image.unreadable.add(page)
    found, (missing,) = await print_buffer(source, target)
    assert found is None
    buffer = kernel.symbols["KdPrintDefaultCircularBuffer"]
    assert missing.ranges and all(buffer <= at < buffer + PAGE_SIZE for at, _ in missing.ranges)
    assert missing.why == f"it lies at {format_address(buffer)}, which cannot be read"


async def test_a_list_of_threads_that_breaks_off_says_where() -> None:
    kernel = _machine()
    source, target = await _found(kernel)
    system = kernel.processes[0]
    fact = ProcessFact(system.address, 4, None, system.name, system.directory_table_base)
    names = Names(target.modules, (), kernel.kernel_base)
    own = [one.address for one in kernel.threads if one.process.address == system.address]
    nowhere, entry = 0xFFFF_9000_DEAD_0000, kernel.profile.kthread.thread_list_entry
    kernel.image.write(_physical(kernel, own[-2] + entry), nowhere.to_bytes(8, "little"))
    found, missing = await thread_facts(source, target, fact, names, stacks=False)
    assert [one.address for one in found] == own[:-1]
    assert [one.what for one in missing] == ["threads of process 4"]
    assert nowhere in [at for at, _ in missing[0].ranges] and "which cannot be read" in missing[0].why


async def test_parents_that_cannot_be_read_are_told() -> None:
    kernel = _machine()
    source, target = await _found(kernel)
    assert target.kdbg is not None
    block = target.kdbg.block
    silent = replace(block, values={**block.values, "offset_eprocess_parent_cid": 0})
    found, missing = await process_facts(source, replace(target, kdbg=replace(target.kdbg, block=silent)))
    assert {one.parent_id for one in found} == {None}
    assert [one.what for one in missing] == ["parents of processes"] and "the KDBG does not tell" in missing[0].why
