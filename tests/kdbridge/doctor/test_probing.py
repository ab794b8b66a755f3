"""Probing does no harm: only RESET, acknowledges and GetVersion are sent, and no machine is changed or held up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio.testing

from kdbridge.doctor.probing import probe
from kdbridge.doctor.signs import Probed
from kdbridge.overheard import Overheard
from protocol.manipulate import ApiNumber
from simulator.machine import Behaviour
from simulator.scenarios import SCENARIOS, ScenarioOptions, start
from simulator.target import Activity, KdTarget
from tests.kdbridge.in_memory import InMemory
from tests.recording import split
from tests.small_machine import small_machine, stopped_target

_RESET, _ACKNOWLEDGE, _RESEND, _MANIPULATE = 6, 4, 5, 2


async def _probed(target: KdTarget) -> tuple[Probed, InMemory, Overheard]:
    line, heard = InMemory(target), Overheard()
    return await probe(line, heard, lambda text: None), line, heard


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_only_what_changes_nothing_is_sent(autojump_clock: trio.testing.MockClock, scenario: str) -> None:
    running = start(scenario, ScenarioOptions(memory_size=16 << 20, processors=1))
    probed, line, heard = await _probed(running.target)
    packets, between = split(b"".join(data for _, data in line.sent))
    # No break-in byte, which would stand alone.
    assert between == []
    assert {packet.packet_type for packet in packets} <= {_RESET, _ACKNOWLEDGE, _RESEND, _MANIPULATE}
    asked = [packet.payload for packet in packets if packet.packet_type == _MANIPULATE]
    assert {int.from_bytes(payload[:4], "little") for payload in asked} <= {ApiNumber.GET_VERSION}
    assert list(running.target.machine.touched) == []
    assert running.target.lives == 1
    assert heard.sent == b"".join(data for _, data in line.sent)
    assert probed.resets >= 1


async def test_a_stopped_target_is_asked_all_and_left_waiting(autojump_clock: trio.testing.MockClock) -> None:
    target = stopped_target()
    probed, _, _ = await _probed(target)
    assert probed.asked == probed.answered == 12
    assert (probed.resets, probed.retried, probed.silently, probed.rough) == (1, 0, 0, ())
    assert len(probed.turnarounds) == 12
    assert max(probed.turnarounds) < 0.001
    assert target.activity is Activity.WAITING


async def test_a_module_load_is_not_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    running = start("booting", ScenarioOptions(memory_size=16 << 20, processors=1))
    _, line, _ = await _probed(running.target)
    packets, _ = split(b"".join(data for _, data in line.sent))
    assert _ACKNOWLEDGE not in [packet.packet_type for packet in packets]
    # So it is still the target that speaks, and it will give up and go on booting.
    assert running.target.activity is Activity.REPORTING


async def test_a_prompt_is_not_answered(autojump_clock: trio.testing.MockClock) -> None:
    running = start("abandoned-prompt", ScenarioOptions(memory_size=16 << 20, processors=1))
    _, line, _ = await _probed(running.target)
    packets, _ = split(b"".join(data for _, data in line.sent))
    assert {packet.packet_type for packet in packets} <= {_RESET, _ACKNOWLEDGE}


async def test_questions_carry_what_lines_eat_and_their_sums_do_not(autojump_clock: trio.testing.MockClock) -> None:
    _, line, _ = await _probed(stopped_target())
    packets, _ = split(b"".join(data for _, data in line.sent))
    tricky = {0x0A, 0x0D, 0x11, 0x13, 0xFF}
    carried = [tricky & set(packet.payload) for packet in packets if packet.packet_type == _MANIPULATE]
    assert carried.count(set()) == 4
    for one in ({0x0A}, {0x0D}, {0x11, 0x13}, {0xFF}):
        assert carried.count(one) == 2
    headers = [packet.raw[:16] for packet in packets if packet.packet_type == _MANIPULATE]
    assert not any(tricky & set(header) for header in headers)


async def test_a_target_that_answers_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    mute = small_machine(behaviour=replace(Behaviour(), unanswered=frozenset({ApiNumber.GET_VERSION})))
    started = trio.current_time()
    probed, _, _ = await _probed(stopped_target(mute))
    assert probed.answered == 0
    assert 0 < probed.asked < 12
    assert trio.current_time() - started < 120


async def test_one_kind_of_bytes_that_does_not_get_through_is_told(autojump_clock: trio.testing.MockClock) -> None:
    line, heard = InMemory(stopped_target(), to_target=lambda data: [data.replace(b"\xff", b"")]), Overheard()
    assert (await probe(line, heard, lambda text: None)).rough == ("FF",)


async def test_our_own_voice_alone_does_not_go_on_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    class _Loop(InMemory):
        async def send(self, data: bytes) -> None:
            await super().send(data)
            self.echo.append(data)

        async def receive(self) -> bytes:
            if self.echo:
                await trio.lowlevel.checkpoint()
                return self.echo.pop(0)
            return await super().receive()

        echo: list[bytes]

    line = _Loop(stopped_target())
    line.echo = []
    heard = Overheard()
    await probe(line, heard, lambda text: None)
    assert len(heard.sent) < 100_000
