"""A session: taking over, asking, and the few things that change a target, each only when it is named."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kdbridge.errors import TargetLostError, TargetRefusedError
from kdbridge.session import CacheType
from protocol.arch import AMD64
from protocol.conversation import OrphanReply, StateChanged
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_control
from protocol.state_change import REBOOT_BASE, ExceptionChange, LoadSymbols
from simulator.machine import Behaviour, Machine
from simulator.target import Activity, KdTarget, Stop
from tests.kdbridge.in_memory import Client, client_of
from tests.kdbridge.taken import scenario, take_over
from tests.recording import split
from tests.small_machine import KERNEL, PC, SIZE, content, small_machine, stopped_target
from tests.wire import target_link

_READ = ApiNumber.READ_VIRTUAL_MEMORY


async def _attached(machine: Machine | None = None) -> Client:
    client = client_of(stopped_target(machine or small_machine()))
    await client.session.attach(wait=30)
    client.machine = client.target.machine  # type: ignore[attr-defined]
    return client


# ---- taking over --------------------------------------------------------------------------------------------


async def test_it_listens_before_it_says_anything(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(stopped_target())
    started = trio.current_time()
    await client.session.attach(wait=30)
    assert client.line.sent[0][0] - started == pytest.approx(1.5)
    assert split(client.line.sent[0][1])[0][0].packet_type == 6


async def test_a_target_that_answers_only_after_some_probes(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(stopped_target())
    lost = 3

    def lose(chunk: bytes) -> list[bytes]:
        nonlocal lost
        lost -= 1
        return [] if lost >= 0 else [chunk]

    client.line.to_target = lose
    change = await client.session.attach(wait=60)
    assert change.program_counter == PC
    assert trio.current_time() > 1.5 + 2 * 2


async def test_resets_and_break_ins_take_turns_and_a_reset_is_first(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(KdTarget(small_machine(), target_link()))
    client.line.to_target = lambda chunk: []
    with trio.move_on_after(15):
        await client.session.attach(wait=60, break_in=True)
    packets, break_ins = split(client.sent)
    assert len(break_ins) >= 2
    assert client.sent.startswith(encode_control(6, 0))
    assert abs(len(packets) - len(break_ins)) <= 1


async def test_a_change_that_is_reported_twice_is_one_stop(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.session.engine.connection.send_reset(trio.current_time())
    reply = await client.session.read_some(_READ, KERNEL, 32)
    assert reply.data == content()[:32]
    assert all(event.change.program_counter == PC for event in client.of(StateChanged))


async def test_attaching_again_on_the_same_session_needs_no_line(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    assert (await client.session.version()).kern_base == KERNEL
    counted = client.target.machine.counts["GetVersion"]
    for _ in range(5):
        await client.session.version()
    assert client.target.machine.counts["GetVersion"] == counted, "asked once"


# ---- asking -------------------------------------------------------------------------------------------------


async def test_what_came_before_the_first_unreadable_byte_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached(small_machine(holes=[5]))
    reply = await client.session.read_some(_READ, KERNEL + 0x4F00, 0x200)
    assert (reply.data, reply.complete) == (content()[0x4F00:0x5000], False)
    assert reply.status == 0xC0000001


async def test_a_reply_is_never_taken_for_more_than_it_carries_or_was_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = (await _attached()).session
    request = session.memory_request(_READ, KERNEL, 16)
    for claimed, carried, expected in ((0xFFFFFFFF, 16, 16), (16, 4000, 16), (8, 16, 8), (16, 3, 3), (0, 16, 0)):
        reply = request.reply(0, data=bytes(carried), actual_bytes=claimed)
        got = session.memory_reply(reply, 16)
        assert len(got.data) == expected
        assert got.complete == bool(expected)


async def test_physical_reads_say_how_the_page_is_to_be_cached(autojump_clock: trio.testing.MockClock) -> None:
    session = (await _attached()).session
    for cache in CacheType:
        request = session.memory_request(ApiNumber.READ_PHYSICAL_MEMORY, 0x1000, 16, cache)
        assert request.fields()["actual_bytes"] == cache


async def test_a_context_larger_than_the_structure_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    for refused in (frozenset[int](), frozenset({int(ApiNumber.GET_CONTEXT_EX)})):
        client = await _attached(small_machine(behaviour=Behaviour(longer_context=0x240, refused=refused)))
        context = await client.session.context(0)
        assert context.raw[: AMD64.context.size] == client.target.machine.processors[0].context


async def test_a_context_that_comes_in_parts(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached(small_machine(processors=2, behaviour=Behaviour(largest_transfer=500)))
    assert (await client.session.context(1)).raw == client.target.machine.processors[1].context
    assert client.target.machine.counts["GetContextEx"] == 3


async def test_a_processor_that_is_not_there_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    with pytest.raises(TargetRefusedError, match="no registers of processor 7") as caught:
        await client.session.context(7)
    assert (caught.value.api, caught.value.status) == ("GetContext", 0xC0000001)
    with pytest.raises(TargetRefusedError, match="no special registers of processor 7"):
        await client.session.special_registers(7)


async def test_every_request_is_told_with_its_reply(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    log: list[tuple[str, int | None]] = []
    client.session.request_log = lambda request, reply: log.append((request.name, reply.status if reply else None))
    await client.session.read_some(_READ, KERNEL, 4)
    await client.session.read_some(_READ, 8, 4)
    await client.session.reboot()
    assert log == [("ReadVirtualMemory", 0), ("ReadVirtualMemory", 0xC0000001), ("Reboot", None)]


async def test_a_target_that_is_gone_is_told_in_one_sentence(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.line.to_target = lambda chunk: []
    with pytest.raises(TargetLostError) as caught:
        await client.session.read_some(_READ, KERNEL, 4)
    text = str(caught.value)
    assert text.startswith("the target no longer answers: ReadVirtualMemory was sent, but ")
    assert "the line is cut" in text
    client.line.to_target = lambda chunk: [chunk]
    assert (await client.session.read_some(_READ, KERNEL, 4)).data == content()[:4], "the line is back"


async def test_a_target_that_announces_its_restart_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    connection = client.session.engine.connection
    change = connection.change
    assert change is not None
    leaving = LoadSymbols("", REBOOT_BASE, 0, 0, 0, unload=True)
    client.target.machine.processors[0].set(rip=PC)
    connection.change = client.target.make_change(leaving)
    with pytest.raises(TargetLostError, match="announced that it restarts"):
        await client.session.read_some(_READ, KERNEL, 4)


# ---- what changes a target ----------------------------------------------------------------------------------


async def test_continuing_leaves_registers_alone_where_there_is_no_int3(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = await _attached()
    before = client.target.machine.processors[0].context
    assert await client.session.resume() is False
    assert client.target.activity is Activity.RUNNING
    assert client.target.machine.processors[0].context == before
    assert [entry.request.name for entry in client.target.machine.touched] == ["Continue2"]


async def test_continuing_steps_over_an_int3_of_the_processor_that_stands_on_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = small_machine(processors=3)
    machine.memory.write(0x2000, b"\xcc")
    client = await _attached(machine)
    assert await client.session.resume() is False
    places = [processor.program_counter for processor in client.target.machine.processors]
    assert places == [PC + 1, PC + 0x20, PC + 0x40]


async def test_an_int3_on_which_nobody_stands_is_not_stepped_over(autojump_clock: trio.testing.MockClock) -> None:
    machine = small_machine(processors=2)
    machine.memory.write(0x2000, b"\xcc")
    client = await _attached(machine)
    for processor in machine.processors:
        processor.set(rip=KERNEL + 0x9000)
    with pytest.raises(TargetRefusedError, match="none of its 2 processors says that it stands there"):
        await client.session.resume()
    assert list(machine.touched) == []


async def test_registers_that_are_refused_are_not_replaced_by_zeros(autojump_clock: trio.testing.MockClock) -> None:
    refused = frozenset({int(ApiNumber.GET_CONTEXT)})
    machine = small_machine(behaviour=Behaviour(refused=refused))
    machine.memory.write(0x2000, b"\xcc")
    client = await _attached(machine)
    with pytest.raises(TargetRefusedError):
        await client.session.resume()
    assert list(machine.touched) == []


async def test_a_bug_checks_last_break_stops_again_and_the_session_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = scenario("bugcheck")
    async with take_over(way) as taken:
        session = taken.target.session
        for _ in range(2):
            assert await session.resume() is True
            assert isinstance(session.change and session.change.event, ExceptionChange)
            assert (await session.version()).kern_base == way.kernel.kernel_base
            assert (await session.read_some(_READ, way.kernel.kernel_base, 2)).data == b"MZ"


async def test_a_machine_that_was_continued_stops_again_at_a_break_in(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    assert await client.session.resume() is False
    change = await client.session.attach(wait=30, break_in=True)
    assert isinstance(change.event, ExceptionChange)
    assert (await client.session.read_some(_READ, KERNEL, 8)).data == content()[:8]


async def test_a_reboot_is_acknowledged_or_said_to_be_in_doubt(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    assert await client.session.reboot() is True
    assert client.target.lives == 2
    other = await _attached()
    other.line.to_target = lambda chunk: []
    started = trio.current_time()
    assert await other.session.reboot() is False
    assert trio.current_time() - started < 10, "what must not be done twice is not tried for long"


async def test_a_continue_that_nobody_acknowledges_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    client.line.to_target = lambda chunk: [] if b"\x3c\x31\x00\x00" in chunk else [chunk]
    with pytest.raises(TargetLostError, match="Continue2 was sent, but the target did not acknowledge it"):
        await client.session.resume()


async def test_a_crash_makes_the_machine_stop_at_its_bug_check(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    assert await client.session.crash() is True
    assert client.target.machine.counts["CauseBugCheck"] == 1


async def test_an_answer_of_a_former_question_is_reported_and_dropped(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    late = Manipulate.request(_READ, address=KERNEL + 0x100, transfer_count=8)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.session.ask(late)
    reply = await client.session.read_some(_READ, KERNEL + 0x200, 8)
    assert reply.data == content()[0x200:0x208]
    dropped = [event.reply.data for event in client.of(OrphanReply)]
    assert dropped in ([], [content()[0x100:0x108]])


async def test_nothing_is_sent_that_was_not_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    client = await _attached()
    for address in (KERNEL, KERNEL + SIZE - 8, 0, 1 << 63):
        await client.session.read_some(_READ, address, 16)
    await client.session.context(0)
    await client.session.special_registers(0)
    assert list(client.target.machine.touched) == []
    assert client.target.script == KdTarget(small_machine(), target_link()).script
    assert Stop not in client.events
