"""Ids and lists of which the simulator knows the truth, where it was made doubtful: then they are not told."""

from __future__ import annotations

from kdbridge.analysis.client_id import client_id_offset, process_ids_of
from kdbridge.analysis.model import Missing, ProcessFact
from kdbridge.analysis.names import Names
from kdbridge.analysis.processes import process_facts, running_threads
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.report_text import process_lines
from kdbridge.analysis.threads import current_thread
from kdbridge.discovery import discover
from kdbridge.target import Target
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.simulated import SimulatedSource


def _machine(processors: int, waiting: int = 0) -> SimulatedKernel:
    return build_kernel(
        KernelOptions(memory_size=32 << 20, content_size=0, processors=processors, waiting_threads=waiting)
    )


async def _found(kernel: SimulatedKernel) -> tuple[ReadOnce, Target]:
    source = ReadOnce(SimulatedSource(kernel))
    return source, await discover(source)


def _put(kernel: SimulatedKernel, address: int, *words: int) -> None:
    for n, word in enumerate(words):
        physical = kernel.tables.translate(address + 8 * n)
        assert physical is not None
        kernel.image.write(physical, word.to_bytes(8, "little"))


async def test_a_thread_alone_proves_no_place() -> None:
    kernel = _machine(1)
    assert len({one.process.address for one in kernel.threads}) == len(kernel.threads)
    found, missing = await current_thread(*await _found(kernel), 0, Names(()))
    assert found is not None
    assert (found.process_id, found.thread_id) == (4, None)
    assert [(one.what, one.why) for one in missing] == [
        ("ids of threads", "no other thread was found that bears out where in an ETHREAD they lie")
    ]


async def test_an_idle_thread_has_no_id_and_that_is_no_lack() -> None:
    kernel = _machine(4)
    homes = {thread.address: thread.process.process_id for thread in kernel.threads}
    (idle, *_) = [one.number for one in kernel.processors if homes[one.thread] == 0]
    found, missing = await current_thread(*await _found(kernel), idle, Names(()))
    assert found is not None and (found.process_id, found.thread_id, missing) == (0, None, ())
    lines = list(process_lines([ProcessFact(1, 0, None, "Idle", 0, threads=(found,))]))
    assert lines[-1].startswith("      idle thread  ") and "?" not in lines[-1]


async def test_threads_of_other_processors_do() -> None:
    kernel = _machine(4)
    source, target = await _found(kernel)
    offset = kernel.profile.kthread.client_id
    running = await running_threads(source, target)
    ids = await process_ids_of(source, target, [process for _, process in running.values()])
    truth = {one.address: one.process_id for one in kernel.processes}
    assert {at: ids[at] for at in ids if at in truth} == {at: truth[at] for at in ids if at in truth}
    others = [(thread, ids[process]) for thread, process in running.values() if ids.get(process)]
    thread = running[0][0]
    assert len(others) >= 2
    assert await client_id_offset(source, target, thread, 4, others) == offset
    assert isinstance(await client_id_offset(source, target, thread, 8, others), Missing)  # another process's id
    nowhere = await client_id_offset(source, target, 0xFFFF_9000_DEAD_0000, 4, others)
    assert isinstance(nowhere, Missing) and nowhere.ranges == ((0xFFFF_9000_DEAD_0000, kernel.profile.kthread.size),)


async def test_threads_beside_it_in_a_list_do() -> None:
    kernel = _machine(1, waiting=2)
    source, target = await _found(kernel)
    found = await client_id_offset(source, target, kernel.processors[0].thread, 4)
    assert found == kernel.profile.kthread.client_id


async def test_of_two_places_neither_is_believed() -> None:
    kernel = _machine(1, waiting=2)
    layout = kernel.profile.kthread
    for number, thread in enumerate(one for one in kernel.threads if one.process.process_id == 4):
        _put(kernel, thread.address + layout.client_id + 0x40, 4, 0x1000 + 4 * number)
    found, missing = await current_thread(*await _found(kernel), 0, Names(()))
    assert found is not None and found.thread_id is None
    assert [one.why for one in missing] == ["they may lie at any of 2 places in an ETHREAD"]


async def test_a_list_that_turns_in_a_circle_is_told() -> None:
    kernel = _machine(1)
    links = kernel.profile.eprocess.active_process_links
    first, last = kernel.processes[1], kernel.processes[-1]
    _put(kernel, last.address + links, first.address + links)
    found, missing = await process_facts(*await _found(kernel))
    assert [one.process_id for one in found] == [one.process_id for one in kernel.processes]
    assert [one.what for one in missing] == ["processes"]
    assert f"behind process {last.process_id} " in missing[0].why and "turns back" in missing[0].why


async def test_no_more_than_were_asked_for() -> None:
    kernel = _machine(1)
    source, target = await _found(kernel)
    found, missing = await process_facts(source, target, most=2)
    assert [one.process_id for one in found] == [one.process_id for one in kernel.processes[:2]]
    assert missing[-1].why == f"only the first 2 of {len(kernel.processes)} are told"


async def test_a_head_that_cannot_be_read_and_a_list_of_something_else() -> None:
    kernel = _machine(1)
    head = kernel.symbols["PsActiveProcessHead"]
    _put(kernel, head, 0xFFFF_9000_DEAD_0000)
    found, missing = await process_facts(*await _found(kernel))
    assert (found, [one.ranges for one in missing]) == ((), [((0xFFFF_9000_DEAD_0000 - 8, 16),)])
    _put(kernel, head, head)
    assert [one.why for one in (await process_facts(*await _found(kernel)))[1]] == ["their list is empty"]
    _put(kernel, head, kernel.kernel_base + 0x1000)
    found, missing = await process_facts(*await _found(kernel))
    assert found == () and "is not System" in missing[0].why
