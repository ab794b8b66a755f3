"""What a server has beside what a crash needs: sessions, private kernel memory, second roots, threads that wait."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.errors import SimulationError
from simulator.kernel import KernelOptions, SimulatedKernel, SimulatedProcess, build_kernel
from simulator.options import as_layout
from simulator.scenarios import ScenarioOptions, start
from tests import slow_pages
from tests.random_machines import random_machine
from tests.simulator.unwinder import Unwinder

ROOT = Path(__file__).resolve().parent.parent.parent
WINDOWS_10 = as_layout(KernelOptions(memory_size=96 << 20, processors=4), "server")

# Taken before there was a layout: recordings and the transcripts of the docs depend on these machines.
_DESKTOPS = [
    (KernelOptions(), "a48427676912396675f0ba40d5dc66ea"),
    (KernelOptions(memory_size=32 << 20, processors=2), "cf3254fa692ef765ab7f9a5edfc1efee"),
    (KernelOptions(build=3790, processors=2), "a41f6d60e26aafc06532ac75e62f5a57"),
    (KernelOptions(build=9600, runs=9, memory_size=64 << 20), "e194a4e6784d8736c80e9a0670a1dc0a"),
]


@pytest.fixture(scope="module", params=[3790, 7601, 9600, 19041, 22621])
def kernel(request: pytest.FixtureRequest) -> SimulatedKernel:
    return build_kernel(as_layout(replace(WINDOWS_10, build=request.param), "server"))


@pytest.fixture(scope="module")
def windows_10() -> SimulatedKernel:
    return build_kernel(replace(WINDOWS_10, user_roots_in_registers=True))


def _number(kernel: SimulatedKernel, address: int, size: int = 8, root: int | None = None) -> int:
    data = kernel.read_virtual(address, size, root)
    assert data is not None, f"{address:#x} is not mapped"
    return int.from_bytes(data, "little")


def _ring(kernel: SimulatedKernel, head: int) -> Iterator[int]:
    before, at = head, _number(kernel, head)
    for _ in range(1000):
        assert _number(kernel, at + 8) == before
        if at == head:
            return
        yield at
        before, at = at, _number(kernel, at)
    raise AssertionError("the list does not close")


def _entries(kernel: SimulatedKernel, root: int) -> tuple[int, ...]:
    page = kernel.image.read_page(root >> 12)
    assert page is not None
    return struct.unpack("<512Q", page)


def _lists(kernel: SimulatedKernel) -> tuple[tuple[int, int], tuple[int, int]]:
    """(head in the process, entry in the thread) of both lists."""
    process, thread = kernel.profile.eprocess, kernel.profile.kthread
    return (
        (process.thread_list_head, thread.thread_list_entry),
        (process.threads_of_process, thread.process_list_entry),
    )


@pytest.mark.parametrize(("options", "digest"), _DESKTOPS)
def test_without_an_option_a_machine_is_what_it_was(options: KernelOptions, digest: str) -> None:
    assert build_kernel(options).image.digest() == digest


def test_offsets_of_19041() -> None:
    """By the symbols of that build: _KPROCESS, _EPROCESS, _KTHREAD, _ETHREAD."""
    profile = build_kernel(KernelOptions(memory_size=32 << 20)).profile
    process, thread = profile.eprocess, profile.kthread
    assert (process.thread_list_head, process.user_directory_table_base) == (0x30, 0x388)
    assert (process.session, process.threads_of_process) == (0x558, 0x5E0)
    assert (thread.thread_list_entry, thread.process_list_entry) == (0x2F8, 0x4E8)


def test_each_process_lists_its_threads_twice(kernel: SimulatedKernel) -> None:
    state = _number(kernel, kernel.kdbg_address + 0x2A2, 2)
    owner = _number(kernel, kernel.kdbg_address + 0x2A0, 2)
    seen: list[int] = []
    for process in (*kernel.processes, kernel.idle_process):
        (first, second) = (
            [link - entry for link in _ring(kernel, process.address + head)] for head, entry in _lists(kernel)
        )
        assert first == second
        for thread in first:
            assert _number(kernel, thread + owner) == process.address
            assert _number(kernel, thread, 1) == 6, "DISPATCHER_HEADER: a thread"
        waiting = [thread for thread in first if _number(kernel, thread + state, 1) == 5]
        assert len(waiting) == (0 if process is kernel.idle_process else 2)
        seen += first
    assert sorted(seen) == sorted(thread.address for thread in kernel.threads) and len(set(seen)) == len(seen)
    assert {processor.thread for processor in kernel.processors} <= set(seen)


def test_a_waiting_thread_s_stack_unwinds_from_where_it_was_swapped_out(kernel: SimulatedKernel) -> None:
    layout = kernel.profile.kthread
    unwinder = Unwinder(kernel.read_virtual, [(module.base, module.size) for module in kernel.modules])
    waiting = [thread for thread in kernel.threads if thread.kernel_stack]
    assert len(waiting) == 2 * len(kernel.processes)
    for thread in waiting:
        stack = _number(kernel, thread.address + layout.kernel_stack)
        # KSWITCH_FRAME: rbp at 30, the return address at 38.
        registers = {"rip": _number(kernel, stack + 0x38), "rsp": stack + 0x40, "rbp": _number(kernel, stack + 0x30)}
        others = ("rbx", "rsi", "rdi", "r12", "r13", "r14", "r15", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11")
        walked = unwinder.walk({**dict.fromkeys(others, 0), **registers})
        told = [(frame.instruction, frame.stack_pointer) for frame in thread.frames]
        assert [(frame.rip, frame.rsp) for frame in walked[:-1]] == told
        outermost = "nt!KiSystemCall64" if thread.teb else "nt!KiStartSystemThread"
        assert thread.frames[-1].function == outermost and thread.frames[0].function == "nt!KiSwapContext"
        if thread.teb:
            root = thread.process.directory_table_base
            base, limit, self_pointer = (_number(kernel, thread.teb + at, 8, root) for at in (0x08, 0x10, 0x30))
            assert limit < walked[-1].rsp < base and self_pointer == thread.teb
            assert _number(kernel, thread.teb + 0x60, 8, root) == thread.process.peb
            assert _number(kernel, thread.teb + 0x48, 8, root) == thread.thread_id


def test_processes_have_names_ids_and_roots_of_their_own(kernel: SimulatedKernel) -> None:
    links = kernel.profile.eprocess.active_process_links
    head = _number(kernel, kernel.kdbg_address + 0x50)
    assert [entry - links for entry in _ring(kernel, head)] == [process.address for process in kernel.processes]
    assert len(kernel.processes) == 12
    for values in zip(*((p.process_id, p.directory_table_base, p.peb) for p in kernel.processes), strict=True):
        assert len(set(values)) == 12


def _members(kernel: SimulatedKernel, session: int) -> list[SimulatedProcess]:
    return [process for process in kernel.processes if process.session == session]


def test_a_session_s_memory_is_seen_by_its_processes_only(kernel: SimulatedKernel) -> None:
    pointer = kernel.profile.eprocess.session
    spaces: list[bytes | None] = []
    for number in (0, 1):
        members = _members(kernel, number)
        assert len(members) >= 5
        space = _number(kernel, members[0].address + pointer)
        for process in members:
            assert _number(kernel, process.address + pointer) == space
            assert _number(kernel, space + 8, 4, process.directory_table_base) == number
            assert _number(kernel, space, 4, process.directory_table_base) == len(members)
        pages = {kernel.read_virtual(space, 4096, process.directory_table_base) for process in members}
        assert len(pages) == 1
        assert kernel.read_virtual(space, 1) is None, "System sees none"
        spaces += pages
    assert spaces[0] != spaces[1]
    names = {process.name: process.session for process in kernel.processes[1:]}
    assert (names["smss.exe"], names["csrss.exe"], names["lab.exe"]) == (0, 1, 1)
    assert kernel.processes[0].session is None


def test_kernel_halves_differ_in_the_self_map_the_session_and_what_is_private(kernel: SimulatedKernel) -> None:
    system = _entries(kernel, kernel.directory_table_base)
    differing: dict[int, set[int]] = {}
    for process in kernel.processes[1:]:
        own = _entries(kernel, process.directory_table_base)
        for slot in range(256, 512):
            if own[slot] != system[slot]:
                differing.setdefault(slot, set()).add(own[slot])
    slots = {len(values): slot for slot, values in differing.items()}
    assert len(differing) == 3 and kernel.pte_base >> 39 & 511 in differing
    session = _number(kernel, kernel.processes[1].address + kernel.profile.eprocess.session) >> 39 & 511
    assert slots[2] == session, "two sessions"
    assert sorted(map(len, differing.values())) == [2, 11, 11]
    if kernel.options.build < 14393:
        assert session == 0x1F2, "FFFFF900'00000000 until 1607"


def test_private_kernel_memory_differs_at_the_same_address(kernel: SimulatedKernel) -> None:
    roots = [process.directory_table_base for process in kernel.processes]
    halves = [_entries(kernel, root) for root in roots]
    session = _number(kernel, kernel.processes[1].address + kernel.profile.eprocess.session) >> 39 & 511
    (slot,) = (
        at
        for at in range(256, 512)
        if len({half[at] for half in halves}) == 12 and at not in (kernel.pte_base >> 39 & 511, session)
    )
    address = 0xFFFF0000_00000000 | slot << 39
    pages = [kernel.read_virtual(address, 0x2000, root) for root in roots]
    assert None not in pages and len(set(pages)) == 12


def test_the_second_root_maps_user_memory_and_hardly_any_of_the_kernel_s(kernel: SimulatedKernel) -> None:
    if kernel.options.build == 3790:
        assert all(not process.user_directory_table_base for process in kernel.processes)
        return
    offset = kernel.profile.eprocess.user_directory_table_base
    assert offset is not None
    runs = [(run.base_page, run.page_count) for run in kernel.image.runs]
    for process in kernel.processes[1:]:
        user = _number(kernel, process.address + offset)
        assert user == process.user_directory_table_base
        assert _entries(kernel, user)[:256] == _entries(kernel, process.directory_table_base)[:256]
        assert _number(kernel, process.peb + 0x10, 8, user) == process.image_base
        assert kernel.read_virtual(kernel.kdbg_address, 8, user) is None
        for processor in kernel.processors:
            assert _number(kernel, processor.pcr + 0x18, 8, user) == processor.pcr
            assert kernel.read_virtual(processor.idt, 16, user) == kernel.read_virtual(processor.idt, 16)
        entry = kernel.symbols["KiSystemCall64"]
        assert kernel.read_virtual(entry, 16, user) == kernel.read_virtual(entry, 16)
        mapped = slow_pages.look_through(kernel.image.read_page, runs, user, range(256, 512))
        assert len(mapped.leaves) < 40
    tables = slow_pages.table_pages(
        kernel.image.read_page, runs, [process.user_directory_table_base for process in kernel.processes[1:]]
    )
    system = slow_pages.look_through(kernel.image.read_page, runs, kernel.directory_table_base, range(256, 512))
    own = tables - slow_pages.table_pages(
        kernel.image.read_page, runs, [process.directory_table_base for process in kernel.processes]
    )
    assert own and own <= system.leaves, "these tables are kernel memory"


def test_a_processor_that_came_from_user_mode_may_hold_the_second_root(windows_10: SimulatedKernel) -> None:
    kernel = windows_10
    lab = next(process for process in kernel.processes if process.name == "lab.exe")
    assert [processor.special_values["cr3"] for processor in kernel.processors] == [
        kernel.directory_table_base,
        kernel.directory_table_base,
        lab.directory_table_base,
        lab.user_directory_table_base,
    ]


def test_pages_in_transition_are_in_memory_and_mapped_by_nobody(kernel: SimulatedKernel) -> None:
    runs = [(run.base_page, run.page_count) for run in kernel.image.runs]
    mapped: set[int] = set()
    lost: dict[tuple[int, str], set[int]] = {}
    for process, (half, slots) in itertools.product(
        kernel.processes, {"user": range(256), "kernel": range(256, 512)}.items()
    ):
        found = slow_pages.look_through(kernel.image.read_page, runs, process.directory_table_base, slots)
        mapped |= found.leaves | found.tables
        lost[process.process_id, half] = found.transition
    assert len(lost[4, "kernel"] - mapped) >= 8, "four of its own, four of its private memory"
    assert lost[4, "user"] == set()
    shared = set.intersection(*(lost[process.process_id, "kernel"] for process in kernel.processes))
    for process in kernel.processes[1:]:
        assert len(lost[process.process_id, "user"] - mapped) == 4
        assert len(lost[process.process_id, "kernel"] - shared - mapped) == 8, "its session's and its own"
    for pfn in set.union(*lost.values()) - mapped:
        page = kernel.image.read_page(pfn)
        assert page is not None and page.strip(b"\0")


def test_lab_has_a_large_user_page(windows_10: SimulatedKernel) -> None:
    lab = next(process for process in windows_10.processes if process.name == "lab.exe")
    large = [leaf for leaf in windows_10.tables.mapped(lab.directory_table_base, range(256)) if leaf.size > 4096]
    assert [leaf.size for leaf in large] == [2 << 20]


@pytest.mark.parametrize("seed", range(0, 24, 3))
def test_one_seed_is_one_machine(seed: int) -> None:
    first, second = (build_kernel(random_machine(seed)) for _ in range(2))
    assert first.image.digest() == second.image.digest()
    assert first.processes[-1].directory_table_base == second.processes[-1].directory_table_base
    assert first.image.device_accesses == []


def test_a_scenario_runs_on_a_server() -> None:
    running = start("booting", ScenarioOptions(memory_size=64 << 20, processors=2, layout="server"))
    assert running.kernel.options.sessions and running.kernel.options.pfn_database == "true"
    assert running.target.restart is not None
    running.target.restart()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (KernelOptions(build=3790, kva_shadow=True), "build 3790 has no KVA shadow"),
        (KernelOptions(user_roots_in_registers=True), "without KVA shadow there are no user roots"),
        (KernelOptions(processes=3), "3 processes"),
        (KernelOptions(waiting_threads=101), "101 threads"),
        (KernelOptions(patched_modules=99), "there are 11 modules, not 99"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: KernelOptions, reason: str) -> None:
    with pytest.raises(SimulationError, match=reason):
        build_kernel(options)


_MEASURE = """
import json, re, time
from pathlib import Path
from simulator.scenarios import ScenarioOptions, start
began = time.process_time()
start("bugcheck", ScenarioOptions(memory_size=64 << 30, processors=16, layout="server", content_size=200 << 20))
seconds = time.process_time() - began
print(json.dumps([seconds, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024]))
"""


def test_a_server_of_64_gib_costs_little() -> None:
    """In a process of its own, which has imported nothing else: MiB in all, and seconds of the processor."""
    done = subprocess.run([sys.executable, "-c", _MEASURE], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, mebibytes = json.loads(done.stdout)
    assert mebibytes < 300
    assert seconds < 5
