"""Facts of real targets, each with the simulated machine's own truth as its witness (kd-protocol 1, 3, 6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.errors import TargetLostError, TargetRefusedError
from kdbridge.plan import complete_plan, kernel_plan
from protocol.address import PAGE_SIZE, PageRun, PageRuns, PhysicalAddress, VirtualAddress
from protocol.arch import AMD64
from protocol.conversation import StateChanged
from protocol.manipulate import ApiNumber, api_name
from protocol.packet import PacketType, encode_control, encode_data
from protocol.state_change import ExceptionChange, LoadSymbols
from simulator.kernel import BugCheck, KernelOptions
from simulator.machine import Behaviour
from simulator.target import Stop
from tests.kdbridge.in_memory import client_of
from tests.kdbridge.taken import READING, Taken, Way, made_to_order, scenario, take_over
from tests.recording import split
from tests.small_machine import KERNEL, content, small_machine, stopped_target

_RESEND, _RESET = encode_control(5, 0), encode_control(6, 0)
_MIB16 = KernelOptions(memory_size=16 << 20)
_ACK = b"iiii\x04\x00"


async def _assert_reads_truth(taken: Taken) -> None:
    kernel = taken.kernel
    for at in range(0, 0x6000, 0x1357):
        address = kernel.kernel_base + at
        expected = kernel.read_virtual(address, 0x40)
        if expected is not None:
            assert await taken.target.virtual.read(VirtualAddress(address), 0x40) == expected
    processor = kernel.processors[-1]
    assert (await taken.target.context(processor.number)).raw[: AMD64.context.size] == processor.context()


# ---- one break-in, two state changes ------------------------------------------------------------------------


async def test_one_break_in_may_give_two_state_changes(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("running")
    pending = [_RESEND]

    async def send(data: bytes) -> None:
        # Right behind the acknowledge of the first, something makes the target say it once more.
        if data.startswith(_ACK) and pending:
            at = data.index(_ACK) + 16
            data = data[:at] + pending.pop() + data[at:]
        await Way.send(way, data)

    way.send = send  # type: ignore[method-assign]
    async with take_over(way, break_in=True) as taken:
        await _assert_reads_truth(taken)
        found = await taken.target.discover()
        changes = taken.of(StateChanged)
        assert [event.repeated for event in changes] == [False, True]
        assert changes[0].change == changes[1].change
        assert found.stop is not None
        assert found.stop.program_counter == way.kernel.symbols["DbgBreakPointWithStatus"]
    assert way.packets_sent()[1] == [b"b"], "one break-in"
    assert list(way.machine.touched) == []


# ---- garbage in the processor fields ------------------------------------------------------------------------


async def test_garbage_processor_fields_do_not_matter(autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order(replace(_MIB16, processors=6, stopped_processor=4), Behaviour(garbage_processor=True))
    async with take_over(way) as taken:
        change = taken.target.session.change
        assert change is not None and (change.processor_level, change.processor) == (1284, 257)
        found = await taken.target.discover()
        assert [(p.number, p.prcb) for p in found.processors] == [(p.number, p.prcb) for p in way.kernel.processors]
        for mine, truth in zip(found.processors, way.kernel.processors, strict=True):
            assert mine.context is not None and mine.context.raw[: AMD64.context.size] == truth.context()
        assert found.shortcomings == ()


async def test_replies_are_not_matched_by_processor(autojump_clock: trio.testing.MockClock) -> None:
    def garble(chunk: bytes) -> list[bytes]:
        return [
            encode_data(
                packet.packet_type, packet.packet_id,
                packet.payload[:4] + b"\x04\x05\x01\x01" + packet.payload[8:],
            )
            if packet.packet_type == PacketType.STATE_MANIPULATE and not packet.control else packet.raw
            for packet in split(chunk)[0]
        ]  # fmt: skip

    client = client_of(stopped_target(small_machine(processors=2)))
    client.line.to_host = garble
    await client.session.attach(wait=30)
    reply = await client.session.read_some(ApiNumber.READ_VIRTUAL_MEMORY, KERNEL + 0x123, 0x100)
    assert reply.data == content()[0x123:0x223]
    assert (await client.session.context(1))["rax"] == 1


async def test_a_machine_whose_state_change_says_257_is_continued_at_the_processor_that_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    options = replace(_MIB16, processors=3, stopped_processor=2, stop="breakpoint", debugger_attached=True)
    way = made_to_order(options, Behaviour(garbage_processor=True), script=lambda kernel: [Stop()])
    place = way.kernel.processors[2].context_values["rip"]
    before = [processor.context for processor in way.machine.processors]
    async with take_over(way) as taken:
        assert await taken.target.session.resume() is False
    after = [processor.context for processor in way.machine.processors]
    assert after[:2] == before[:2], "the others stay where they were"
    assert AMD64.context.decode(after[2])["rip"] == place + 1
    assert [entry.request.name for entry in way.machine.touched] == ["SetContext", "Continue2"]


# ---- how much a read brings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [3944, 4096])
@pytest.mark.parametrize("given", [512, 3944, 4096])
async def test_a_read_brings_as_much_as_the_target_likes(
    asked: int, given: int, autojump_clock: trio.testing.MockClock
) -> None:
    way = made_to_order(behaviour=Behaviour(largest_transfer=given))
    async with take_over(way) as taken:
        taken.target.session.largest_transfer = asked
        start = way.kernel.kernel_base
        assert await taken.target.virtual.read(VirtualAddress(start), 0x2345) == way.kernel.read_virtual(start, 0x2345)
        physical = taken.target.live.physical
        assert physical is not None
        run = way.kernel.content[0]
        pages = [page async for page in physical.read_pages([PageRun(run.base_page, 3)])]
        assert [page.pfn for page in pages] == [run.base_page + n for n in range(3)]
        assert [page.data for page in pages] == [way.kernel.image.read_page(page.pfn) for page in pages]


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "api",
    [ApiNumber.GET_CONTEXT_EX, ApiNumber.QUERY_MEMORY, ApiNumber.SEARCH_MEMORY,
     ApiNumber.READ_MACHINE_SPECIFIC_REGISTER],
    ids=lambda api: api.name.lower(),
)  # fmt: skip
async def test_a_refused_request_costs_nothing(api: ApiNumber, autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order(behaviour=Behaviour(refused=frozenset({api})))
    async with take_over(way) as taken:
        found = await taken.target.discover()
        assert found.shortcomings == ()
        await _assert_reads_truth(taken)
        for mine, truth in zip(found.processors, way.kernel.processors, strict=True):
            assert mine.context is not None and mine.context.raw[: AMD64.context.size] == truth.context()
    assert way.machine.counts[api_name(api)] <= 1, "it was tried once, if at all"
    assert set(way.machine.counts) <= READING


async def test_a_target_without_any_way_to_registers_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    refused = frozenset({ApiNumber.GET_CONTEXT_EX, ApiNumber.GET_CONTEXT, ApiNumber.READ_CONTROL_SPACE})
    way = made_to_order(behaviour=Behaviour(refused=refused))
    async with take_over(way) as taken:
        with pytest.raises(TargetRefusedError, match="gives no registers of processor 0"):
            await taken.target.context(0)
        found = await taken.target.discover()
        assert ("registers", "the target gives none of processor 0, 1, 2, 3") in [
            (finding.step, finding.text) for finding in found.shortcomings
        ]
        # System's own, out of its EPROCESS.
        assert found.directory_table_base == way.kernel.directory_table_base


async def test_physical_page_0_is_refused_and_counted(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order(replace(_MIB16, runs=PageRuns([PageRun(0, 0x1000)])))
    async with take_over(way) as taken:
        with await taken.target.snapshot(tmp_path / "snapshot", complete_plan) as snapshot:
            assert snapshot.unreadable == PageRuns([PageRun(0, 1)])
            assert snapshot.held == PageRuns([PageRun(1, 0xFFF)])
            log = (tmp_path / "snapshot" / "requests.log").read_text()
            assert "page 0x0 is unreadable: the target refused it (0xc0000001)" in log
    refused = way.machine.counts["ReadPhysicalMemory"]
    # A page alone takes two reads; most of these do not.
    assert refused < 1.2 * 0x1000 * PAGE_SIZE / 3944


async def test_physical_reads_refused_as_a_whole_are_replaced_by_virtual_ones(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("no-physical-reads")
    kernel = way.kernel
    async with take_over(way) as taken:
        found = await taken.target.discover()
        assert [finding.step for finding in found.shortcomings] == ["physical memory"]
        assert "only what is mapped can be read" in found.shortcomings[0].text
        with await taken.target.snapshot(tmp_path / "snapshot", kernel_plan) as snapshot:
            mapped = (
                PageRuns(
                    PageRun(leaf.physical >> 12, leaf.size >> 12)
                    for leaf in kernel.tables.mapped(None, AMD64.paging.kernel_entries)
                )
                & kernel.image.runs
            )
            assert mapped - snapshot.held == PageRuns()
            for pfn in snapshot.held.pages():
                assert snapshot.page(pfn) == kernel.image.read_page(pfn)
    assert way.machine.counts["ReadPhysicalMemory"] == 1, "it was tried once, and not again"


# ---- requests that are never answered -----------------------------------------------------------------------


async def test_nobody_waits_for_answers_that_never_come(autojump_clock: trio.testing.MockClock) -> None:
    for name, act in (
        ("reboot", lambda taken: taken.target.session.reboot()),
        ("crash", lambda taken: taken.target.session.crash()),
    ):
        way = scenario("breakpoint")
        async with take_over(way) as taken:
            started = trio.current_time()
            assert await act(taken) is True
            assert trio.current_time() - started < 0.5, name
        names = [entry.request.name for entry in way.machine.touched]
        assert names == ([] if way.running.target.lives > 1 else ["CauseBugCheck"]), name


async def test_a_read_that_is_never_answered_ends_in_a_sentence(autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order(behaviour=Behaviour(unanswered=frozenset({ApiNumber.READ_CONTROL_SPACE})))
    async with take_over(way) as taken:
        started = trio.current_time()
        with pytest.raises(
            TargetLostError, match="ReadControlSpace was sent, but the target acknowledged it and never"
        ):
            await taken.target.special_registers(0)
        assert trio.current_time() - started < 60
        await _assert_reads_truth(taken)


# ---- NT 5.2 -------------------------------------------------------------------------------------------------


async def test_nt52_has_a_short_kdbg_without_a_pointer_to_contexts(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("nt52")
    async with take_over(way) as taken:
        found = await taken.target.discover()
        assert found.kdbg is not None and found.kdbg.address == way.kernel.kdbg_address
        assert found.kdbg.block["size"] == len(way.kernel.kdbg.raw) < 0x340
        assert not found.kdbg.block.has("offset_prcb_context") or not found.kdbg.block["offset_prcb_context"]
        assert [p.context_address for p in found.processors] == [p.context_address for p in way.kernel.processors]


async def test_nt52_whose_version_names_no_list_is_found_by_a_scan(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("nt52")
    way.machine.version = replace(way.machine.version, debugger_data_list=0)
    async with take_over(way) as taken:
        found = await taken.target.discover()
        assert found.kdbg is not None and found.kdbg.address == way.kernel.kdbg_address
        texts = [finding.text for finding in found.findings if finding.step == "KDBG"]
        assert len(texts) == 1 and "by its tag" in texts[0]
        assert [finding.step for finding in found.shortcomings] == ["list of debugger data"]


async def test_nt52_stands_on_its_int3_and_is_moved_past_it_when_it_is_continued(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = scenario("nt52")
    stopped = way.kernel.processors[way.kernel.stopped_processor]
    place = stopped.context_values["rip"]
    assert way.kernel.read_virtual(place, 1) == b"\xcc"
    async with take_over(way) as taken:
        change = taken.target.session.change
        assert change is not None and change.program_counter == place
        assert (await taken.target.discover()).break_status == way.kernel.break_status
        assert await taken.target.session.resume() is False
    assert way.machine.stopped_processor.program_counter == place + 1
    registers = {**stopped.context_values, "rip": place + 1}
    now = AMD64.context.decode(way.machine.stopped_processor.context)
    assert {name: now[name] for name in registers} == registers, "nothing but its place changed"


async def test_nt52_module_names_may_be_as_long_as_a_path(autojump_clock: trio.testing.MockClock) -> None:
    way = scenario("nt52")
    async with take_over(way) as taken:
        found = await taken.target.discover()
    assert [(m.path, m.base, m.size) for m in found.modules] == [(m.path, m.base, m.size) for m in way.kernel.modules]
    names = [module.name for module in found.modules]
    assert any(len(name) > 30 and "\\" in name for name in names), names
    assert [m.time_date_stamp for m in found.modules] == [m.time_date_stamp for m in way.kernel.modules]


# ---- a reset in the middle of booting -----------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 21])
async def test_a_target_may_answer_a_reset_in_the_middle_of_booting_and_repeat_its_state_change(
    at: int, autojump_clock: trio.testing.MockClock
) -> None:
    way = scenario("booting")
    sends = 0

    async def send(data: bytes) -> None:
        # A RESET that waited somewhere on its way arrives now.
        nonlocal sends
        sends += 1
        await Way.send(way, _RESET + data if sends == at else data)

    way.send = send  # type: ignore[method-assign]
    async with take_over(way, break_in=True, pass_module_loads=True, wait=120) as taken:
        changes = [event.change.event for event in taken.of(StateChanged)]
        bases = [change.base for change in changes if isinstance(change, LoadSymbols)]
        # The one that was pending may be seen again; none is missed and none comes in another order.
        truth = [module.base for module in way.kernel.modules]
        assert list(dict.fromkeys(bases)) == truth
        assert len(bases) <= len(truth) + 5
        assert isinstance(changes[-1], ExceptionChange)
        await _assert_reads_truth(taken)
    assert [entry.request.name for entry in way.machine.touched] == ["Continue2"] * len(way.kernel.modules)


async def test_the_bug_check_is_told_with_its_parameters(autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order(replace(_MIB16, bug_check=BugCheck(0x1A, (0x41792, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF, 4))))
    async with take_over(way) as taken:
        found = await taken.target.discover()
    assert (found.bug_check_code, found.bug_check_parameters) == (0x1A, (0x41792, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF, 4))


async def test_page_0_refused_is_a_fault_that_names_it(autojump_clock: trio.testing.MockClock) -> None:
    way = made_to_order()
    async with take_over(way) as taken:
        physical = taken.target.live.physical
        assert physical is not None
        with pytest.raises(Exception, match="cannot read physical address 0x0") as caught:
            await physical.read(PhysicalAddress(0), 16)
        assert type(caught.value).__name__ == "MemoryFault"
