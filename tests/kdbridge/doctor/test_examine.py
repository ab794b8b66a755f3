"""The whole examination, on simulated lines: for each verdict, the condition is made, and the verdict is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing

from kdbridge.doctor import examine as module
from kdbridge.doctor.examine import Examination, examine, examine_line
from kdbridge.doctor.table import TABLE
from kdbridge.errors import TransportLostError
from kdbridge.transports import TargetAddress, Transport
from protocol.layouts.version import SystemType
from protocol.packet import encode_data
from simulator.waveform import resample
from tests.kdbridge.in_memory import InMemory
from tests.raw import A, change_bytes
from tests.recording import read_chunks
from tests.small_machine import small_machine, stopped_target

_CHANGE = encode_data(7, A | 0x800, change_bytes())


def _silently(text: str) -> None:
    return


async def _of_sim(scenario: str = "bugcheck", fault: str = "", **options: object) -> Examination:
    known: dict[str, object] = {"memory": "16M", "processors": 1, "baud": 115200, **options}
    if fault:
        known["fault"] = fault
    asked = "&".join(f"{name}={value}" for name, value in known.items() if value is not None)
    return await examine(f"sim:{scenario}?{asked}", 8.0, _silently)


_SIMULATED = {
    "stopped": [("bugcheck", ""), ("silent", ""), ("abandoned-reply", ""), ("breakpoint", "")],
    "booting": [("booting", "")],
    "asking": [("abandoned-prompt", "")],
    "silence": [("running", ""), ("bugcheck", "mute"), ("silent", "deaf")],
    "wrong-baud": [("bugcheck", f"wrongbaud={rate}") for rate in (9600, 19200, 38400, 57600, 230400)],
    "text": [("running", "text=login:%20"), ("running", "text=SAC%3E")],
    "inverted": [("bugcheck", "inverted"), ("breakpoint", "inverted")],
    "parity": [("bugcheck", "parity")],
    "seven-bit": [("bugcheck", "sevenbit")],
    "flow-control": [("bugcheck", "xonxoff"), ("bugcheck", "xonxoff,way=target")],
    "newlines": [("bugcheck", "crlf"), ("bugcheck", "crlf,way=target")],
    "telnet": [("bugcheck", "iac"), ("bugcheck", "iac,way=target"), ("bugcheck", "iac,way=host")],
    "overrun": [("bugcheck", "overrun=0.003,way=host,seed=3")],
    "lost-bytes": [("bugcheck", "drop=0.002,way=host,seed=3")],
    "cut-packets": [("bugcheck", "truncate=0.3,way=host,seed=3")],
    "lost-packets": [("bugcheck", "loss=0.35,way=target,seed=3")],
    "doubled-packets": [("bugcheck", "dup=0.5,way=host,seed=3")],
    "noise": [("bugcheck", "insert=0.003,way=host,seed=3")],
    "bit-errors": [("bugcheck", "flip=1e-3,seed=3"), ("bugcheck", "flip=3e-4,way=host,seed=3")],
    "stalls": [("bugcheck", "stall=0.3,way=host,seed=3")],
    "not-heard": [("bugcheck", "deaf")],
    "garbled-there": [("bugcheck", "flip=3e-3,way=target,seed=3")],
    "echo": [("bugcheck", "echo"), ("running", "echo"), ("silent", "echo")],
    "second-writer": [("bugcheck", "text=login:%20")],
    "slow": [("bugcheck", "latency=16")],
    "undecided": [("bugcheck", "die=6")],
}
_OTHERWISE = {"running", "dumping", "boot-debugger", "hypervisor", "nobody-connected", "network", "another-debugger"}
"""Verdicts that other tests of this file show."""


def test_no_verdict_is_left_out() -> None:
    assert set(_SIMULATED) | _OTHERWISE == set(TABLE)
    assert not set(_SIMULATED) & _OTHERWISE


@pytest.mark.parametrize(
    ("name", "scenario", "fault"), [(name, *line) for name, lines in _SIMULATED.items() for line in lines]
)
async def test_each_condition_is_named(
    autojump_clock: trio.testing.MockClock, name: str, scenario: str, fault: str
) -> None:
    verdict = (await _of_sim(scenario, fault)).verdict
    assert verdict.name == name, verdict
    assert verdict.evidence


@pytest.mark.parametrize("baud", [None, 2400, 9600, 921600])
async def test_a_slow_line_is_no_slow_adapter(autojump_clock: trio.testing.MockClock, baud: int | None) -> None:
    assert (await _of_sim(baud=baud)).verdict.name == "stopped"


@pytest.mark.parametrize("rate", [19200, 38400, 57600, 230400])
async def test_the_right_speed_is_named(autojump_clock: trio.testing.MockClock, rate: int) -> None:
    assert f"?baud={rate}." in (await _of_sim(fault=f"wrongbaud={rate}")).verdict.cure


@pytest.mark.parametrize(
    ("scenario", "name"), [("bugcheck", "stopped"), ("running", "running"), ("booting", "booting")]
)
async def test_over_a_network(autojump_clock: trio.testing.MockClock, scenario: str, name: str) -> None:
    assert (await _of_sim(scenario, baud=None, link="net")).verdict.name == name


async def test_nobody_on_a_network(autojump_clock: trio.testing.MockClock) -> None:
    done = await _of_sim(baud=None, link="net", loss=1)
    assert done.verdict.name == "network"
    assert "not a single datagram came" in done.verdict.evidence[0]


async def test_nobody_connects(autojump_clock: trio.testing.MockClock) -> None:
    assert (await examine("tcp-listen:127.0.0.1:0", 3.0, _silently)).verdict.name == "nobody-connected"


@pytest.mark.parametrize(
    ("system", "name"), [(SystemType.NT_BOOT_DEBUGGER, "boot-debugger"), (SystemType.HYPERVISOR, "hypervisor")]
)
async def test_another_kind_of_debugger(autojump_clock: trio.testing.MockClock, system: SystemType, name: str) -> None:
    machine = small_machine()
    machine.version = replace(machine.version, major_version=system << 8 | 0xF)
    done = await examine_line(InMemory(stopped_target(machine)), None, 2.0, _silently)
    assert done.verdict.name == name


class _Heard:
    """A line on which something is heard at its times, over and over; what is sent gets lost."""

    url = "serial:/dev/ttyUSB0"
    notes = ()

    def __init__(self, said: list[tuple[float, bytes]], every: float = 1.0) -> None:
        self._said, self._every = said, every
        self._at = 0
        self.sent = b""

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def receive(self) -> bytes:
        turn, number = divmod(self._at, len(self._said))
        await trio.sleep_until(turn * self._every + self._said[number][0])
        self._at += 1
        return self._said[number][1]

    async def aclose(self) -> None:
        return


async def test_another_debugger_is_left_alone(
    autojump_clock: trio.testing.MockClock, shared: pytest.TempPathFactory
) -> None:
    chunks = read_chunks(shared)  # type: ignore[arg-type]
    way = _Heard([(chunk.at, chunk.data) for chunk in chunks], every=chunks[-1].at + 1)
    done = await examine_line(way, 115200, 5.0, _silently)
    assert done.verdict.name == "another-debugger"
    assert way.sent == b""


@pytest.mark.parametrize("text", [b"server login: ", b"SAC>"])
async def test_a_console_is_not_typed_at(autojump_clock: trio.testing.MockClock, text: bytes) -> None:
    way = _Heard([(0.5, text)])
    assert (await examine_line(way, 115200, 5.0, _silently)).verdict.name == "text"
    assert way.sent == b""


@pytest.mark.parametrize(
    ("text", "name"), [(b"mydrv: up\n", "running"), (b"*** Fatal System Error: 0xd1\n", "dumping")]
)
async def test_prints_alone(autojump_clock: trio.testing.MockClock, text: bytes, name: str) -> None:
    from protocol.debug_io import PrintString

    # It hears us: each print is another one.
    prints = [encode_data(3, A | at & 1, PrintString(6, 0, text + b"%d" % at).encode()) for at in range(8)]
    way = _Heard([(at + 0.5, data) for at, data in enumerate(prints)], every=8.0)
    assert (await examine_line(way, 115200, 5.0, _silently)).verdict.name == name


async def test_with_listen_only_nothing_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    line = InMemory(stopped_target())
    done = await examine_line(line, None, 4.0, _silently, listen_only=True)
    assert line.sent == []
    assert done.verdict.name == "silence"


async def test_a_way_that_is_lost_is_judged_by_what_came(autojump_clock: trio.testing.MockClock) -> None:
    class _Dying(_Heard):
        async def receive(self) -> bytes:
            if self._at == 3:
                raise TransportLostError("the port is gone")
            return await super().receive()

    told: list[str] = []
    done = await examine_line(_Dying([(0.5, _CHANGE)]), 115200, 20.0, told.append)
    assert done.signs.packets["STATE_CHANGE64"] == 3
    assert "the port is gone" in told


def _port_at(rate: int) -> Callable[[object], object]:
    """A machine's port at this speed, whatever the adapter is opened at."""

    async def open_transport(address: str | TargetAddress) -> Transport:
        from kdbridge.transports import parse_target

        baud = parse_target(str(address)).baud
        return _Heard([(0.5, _CHANGE if baud == rate else resample(_CHANGE, rate, baud))])

    return open_transport  # type: ignore[return-value]


@pytest.mark.parametrize("rate", [9600, 57600, 921600])
async def test_a_serial_port_is_listened_to_at_other_speeds(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    monkeypatch.setattr(module, "open_transport", _port_at(rate))
    done = await examine("serial:/dev/ttyUSB0", 5.0, _silently)
    assert done.verdict.name == "wrong-baud"
    assert f"?baud={rate}." in done.verdict.cure
    assert done.verdict.confidence > 0.9
