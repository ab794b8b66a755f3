"""A machine on the network: taken over, dumped, lost and found again, in virtual time and over real sockets."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kdbridge.dump import DumpKind, render, verify
from kdbridge.errors import NoContactError, TargetLostError
from kdbridge.memory.files import DumpFile
from kdbridge.opening import OpenTarget, open_target
from kdbridge.plan import complete_plan, kernel_plan
from kdbridge.snapshot import Snapshot
from kdbridge.transports.address import parse_target
from kdbridge.transports.net import open_net
from kdbridge.transports.sim_net import SimNetTransport, open_sim_net
from protocol.address import PAGE_SIZE, VirtualAddress
from protocol.conversation import FileDeclined, KdEvent, OrphanReply, PromptAnswered, StateChanged
from protocol.kdnet import parse_key
from protocol.manipulate import ApiNumber
from protocol.state_change import LoadSymbols
from simulator.image import MemoryImage
from simulator.kernel import SimulatedKernel
from simulator.machine import Behaviour, Machine
from simulator.scenarios import SCENARIOS, ScenarioOptions, machine_of, start
from simulator.target import Activity, Stop
from tests.kdbridge.cli.calling import PROGRAM
from tests.kdbridge.taken import READING, scenario, take_over

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).resolve().parents[2]
_KEY = "17890.af3489a.9345kjm.lio147"
_BREAKS_IN = {"running"}
_PLANS = {DumpKind.COMPLETE: complete_plan, DumpKind.KERNEL: kernel_plan}
_BAD = {"loss": "0.05", "dup": "0.05", "reorder": "0.1", "jitter": "0.02"}


@dataclass
class _Taken:
    way: SimNetTransport
    target: OpenTarget
    reports: list[str] = field(default_factory=list)
    events: list[KdEvent] = field(default_factory=list)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def _sim(name: str = "bugcheck", **options: str) -> SimNetTransport:
    return open_sim_net(f"sim:{name}?link=net", name, {"link": "net", "memory": "16M", **options})


@contextlib.asynccontextmanager
async def _taken(way: SimNetTransport, *, wait: float = 120, **more: Any) -> AsyncIterator[_Taken]:
    reports: list[str] = []
    events: list[KdEvent] = []
    async with open_target(
        way.url, transport=way, wait=wait, report=reports.append, on_event=events.append, **more
    ) as target:
        yield _Taken(way, target, reports, events)
    # Whatever was sent last arrives there.
    with trio.move_on_after(0.1):
        await way.receive()


# ---- taking over -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 4, 5])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_every_situation_is_taken_over_and_left_as_it_was(
    name: str, version: int, autojump_clock: trio.testing.MockClock
) -> None:
    way = _sim(name, version=str(version))
    running = way.running
    kernel, machine = running.kernel, running.target.machine
    registers = [(processor.context, processor.special_registers) for processor in machine.processors]
    async with _taken(way, break_in=name in _BREAKS_IN) as taken:
        found = await taken.target.discover()
        assert [module.base for module in found.modules] == [module.base for module in kernel.modules]
        assert (found.bug_check_code, *found.bug_check_parameters) == kernel.bug_check
        for processor in kernel.processors:
            assert (await taken.target.context(processor.number)).raw[:1232] == processor.context()
        data = await taken.target.virtual.read(VirtualAddress(kernel.kernel_base), 0x1800)
        assert data == kernel.read_virtual(kernel.kernel_base, 0x1800)
        # What was proved (a CONTEXT of 1,232 bytes came whole) is what is asked for (kdnet 6).
        assert taken.target.session.largest_transfer == (1096 if version == 5 else 1232)
    assert running.target.machine is machine and running.target.lives == 1
    assert list(machine.touched) == [] and set(machine.counts) <= READING
    assert machine.memory.digest() == running.pristine.digest()
    assert [(processor.context, processor.special_registers) for processor in machine.processors] == registers
    assert running.target.activity is Activity.WAITING and running.target.link.idle


async def test_what_a_former_debugger_left_is_dealt_with(autojump_clock: trio.testing.MockClock) -> None:
    async with _taken(_sim("abandoned-reply")) as taken:
        assert [event.reply.name for event in taken.of(OrphanReply)] == ["ReadVirtualMemory"]
    async with _taken(_sim("abandoned-prompt")) as taken:
        assert [event.path for event in taken.of(FileDeclined)] == ["\\SystemRoot\\System32\\drivers\\mydrv.sys"]
        assert [event.answer for event in taken.of(PromptAnswered)] == [b"b"]
    async with _taken(_sim("booting")) as taken:
        change = taken.target.session.change
        assert change is not None and isinstance(change.event, LoadSymbols)


async def test_a_stopped_target_is_there_as_soon_as_it_pokes(autojump_clock: trio.testing.MockClock) -> None:
    for name in ("bugcheck", "silent"):
        began = trio.current_time()
        way = _sim(name)
        # It poked before anybody listened; the next poke is due in a while.
        way.networked.target.handle_timeout(trio.current_time())
        way.networked.link.datagrams_to_send()
        async with _taken(way) as taken:
            assert 2.9 < trio.current_time() - began < 3.2
            assert not any("no state change" in report for report in taken.reports)


async def test_the_first_datagrams_may_all_be_lost(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim("bugcheck")
    wires = [way.networked.to_host, way.networked.to_target]
    left = [3, 4]
    for number, wire in enumerate(wires):
        send = wire.send

        def lossy(datagram: bytes, peer: Any, now: float, number: int = number, send: Any = send) -> None:
            left[number] -= 1
            if left[number] < 0:
                send(datagram, peer, now)

        wire.send = lossy  # type: ignore[method-assign]
    broken_in: list[float] = []
    way.link.send_break_in = broken_in.append  # type: ignore[method-assign, assignment]
    async with _taken(way, break_in=True):
        assert trio.current_time() > 8
    assert broken_in == [], "it stood still all the time: a break-in would have stopped it once more later"


async def test_a_running_target_is_stopped_only_when_it_is_told_to(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim("running")
    with pytest.raises(NoContactError) as caught:
        async with _taken(way, wait=20):
            pytest.fail("nobody told it to stop")
    assert "no state change within 20 seconds: the target is alive and it runs" in str(caught.value)
    assert "`kdbridge break` does that" in str(caught.value)
    assert way.running.target.activity is Activity.RUNNING
    async with _taken(_sim("running"), break_in=True) as taken:
        assert taken.of(StateChanged)


async def test_who_waits_in_vain_is_told_why_once(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(loss="1")
    reports: list[tuple[float, str]] = []
    heard = 0

    async def wait() -> None:
        with pytest.raises(NoContactError) as caught:
            async with open_target(
                way.url, transport=way, wait=60, report=lambda text: reports.append((trio.current_time(), text))
            ):
                pytest.fail("nobody is there")
        texts.append(str(caught.value))

    texts: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(20)
        # Another program sends something, again and again.
        for _ in range(100):
            heard += 1
            way._end.receive(b"noise", ("198.51.100.4", 9), trio.current_time())
            await trio.sleep(0.2)
    said = [(at, text) for at, text in reports if "datagram" in text]
    assert [text.split(" came")[0] for _, text in said] == ["not a single datagram", "datagrams"]
    assert 5 <= said[0][0] < 8 and 20 < said[1][0] <= 25
    assert not any("no state change" in text for _, text in reports)
    assert texts[0].startswith(f"datagrams ({heard}) came from 198.51.100.4:9 that are not of KDNET")


# ---- bringing it home ------------------------------------------------------------------------------------------------


async def _dump(target: OpenTarget, folder: Path, kind: DumpKind) -> bytes:
    await trio.Path(folder).mkdir()
    found = await target.discover()
    with await target.snapshot(folder / "snapshot", _PLANS[kind]) as snapshot:
        out = folder / "out.dmp"
        await render(snapshot, found, out, kind=kind, partial=kind is DumpKind.KERNEL)
        with DumpFile(out) as dump:
            assert (await verify(dump, snapshot)).good
    return await trio.Path(out).read_bytes()


@pytest.mark.parametrize(
    ("kind", "version"), [(DumpKind.COMPLETE, "5"), (DumpKind.KERNEL, "2"), (DumpKind.KERNEL, "4")]
)
async def test_the_dump_is_that_of_the_serial_line_to_the_last_byte(
    kind: DumpKind, version: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with take_over(scenario("bugcheck", processors="2")) as serial:
        expected = await _dump(serial.target, tmp_path / "serial", kind)
    async with _taken(_sim(processors="2", version=version)) as taken:
        assert await _dump(taken.target, tmp_path / "net", kind) == expected


@pytest.mark.parametrize("seed", [1, 2])
async def test_over_a_bad_network_the_dump_equals_the_memory(
    seed: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = _sim(processors="1", seed=str(seed), **_BAD)
    async with _taken(way, wait=300) as taken:
        with await taken.target.snapshot(tmp_path / "snapshot", kernel_plan) as snapshot:
            held = snapshot.held
            assert held.page_count > 600
            for pfn in held.pages():
                assert snapshot.page(pfn) == way.running.kernel.image.read_page(pfn), f"seed {seed}"
    assert way.networked.to_host.lost > 50 and way.networked.to_target.lost > 50
    assert way.networked.to_host.repeated > 50
    assert way.running.target.lives == 1


# ---- two lives -------------------------------------------------------------------------------------------------------


def _restart_into_the_same_stop(way: SimNetTransport) -> MemoryImage:
    """The machine restarts, and stands at the very same stop, but with other memory; that memory."""
    target, kernel = way.running.target, way.running.kernel
    machine = machine_of(kernel, target.machine.behaviour)
    for run in kernel.image.runs:
        for pfn in range(run.base_page, run.end_page):
            page = kernel.image.read_page(pfn)
            # Page tables and what a debugger needs stay as they are; every other page is another one.
            if page is not None and not any(page):
                machine.memory.write(pfn * PAGE_SIZE, b"\xee" * PAGE_SIZE)
    script = deque([Stop(apply=None, again=True)])

    def restart() -> tuple[Machine, deque[Any]]:
        return machine, script

    target.restart = restart
    target._reboot(trio.current_time())
    return machine.memory


@pytest.mark.parametrize("after", [1, 40, 399])
@pytest.mark.parametrize("loss", ["0", "0.1"])
async def test_a_restart_in_mid_dump_is_told_and_no_page_is_of_another_life(
    after: int, loss: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    way = _sim(processors="1", loss=loss)
    changed: list[MemoryImage] = []
    seen: list[int] = []
    put = Snapshot.put

    def counted(snapshot: Snapshot, pfn: int, data: Any) -> None:
        put(snapshot, pfn, data)
        seen.append(pfn)
        if len(seen) == after:
            changed.append(_restart_into_the_same_stop(way))

    async with _taken(way, wait=300) as taken:
        await taken.target.discover()
        before = taken.target.session.change
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Snapshot, "put", counted)
            with pytest.raises(TargetLostError, match="the target restarted, and what it held in memory is gone"):
                await taken.target.snapshot(tmp_path / "snapshot", complete_plan)
        assert any(report.endswith("restarted") for report in taken.reports)
        # It stands where it stood: nothing but its new key tells the two lives apart.
        await taken.target.session.attach(wait=120)
        assert taken.target.session.change == before
        other = changed[0].read_page(0x900)
        assert other == b"\xee" * PAGE_SIZE or way.running.kernel.image.read_page(0x900) == other
    assert way.running.target.lives == 2
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        assert after <= snapshot.held.page_count <= after + 4
        for pfn in snapshot.held.pages():
            assert snapshot.page(pfn) == way.running.kernel.image.read_page(pfn)


async def test_a_reboot_and_the_machine_that_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(processors="1")
    async with _taken(way) as taken:
        session = taken.target.session
        assert await session.reboot(), "acknowledged"
        change = await session.attach(wait=60)
        assert isinstance(change.event, LoadSymbols) and change.event.base == way.running.kernel.modules[0].base
        assert (await session.version()).kern_base == way.running.kernel.kernel_base
        assert any(report.endswith("restarted") for report in taken.reports)
    assert way.running.target.lives == 2


async def test_a_target_that_is_gone_is_told_as_such(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(processors="1")
    async with _taken(way) as taken:
        unanswered = frozenset({ApiNumber.READ_VIRTUAL_MEMORY})
        way.running.target.machine.behaviour = Behaviour(unanswered=unanswered)
        with pytest.raises(TargetLostError, match="the target no longer answers: ReadVirtualMemory was sent"):
            await taken.target.virtual.read(VirtualAddress(way.running.kernel.kernel_base), 16)


async def test_a_target_that_sends_less_is_asked_for_less(autojump_clock: trio.testing.MockClock) -> None:
    way = _sim(processors="1")
    way.running.target.machine.behaviour = Behaviour(largest_transfer=1000)
    async with _taken(way) as taken:
        base = way.running.kernel.kernel_base
        assert await taken.target.virtual.read(VirtualAddress(base), 8192) == way.running.kernel.read_virtual(
            base, 8192
        )
        assert taken.target.session.largest_transfer == 1000


# ---- real sockets ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _served(host: str, port: int, *more: str, memory: int = 16) -> Iterator[SimulatedKernel]:
    """A machine in another process that pokes this port; what it is made of."""
    command = [sys.executable, "-m", "simulator", "bugcheck", "--memory", f"{memory}M", "--processors", "2"]
    process = subprocess.Popen(
        [*command, "--on", f"net:{host}:{port}{more[0] if more else ''}", *more[1:]],
        cwd=_ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "KDBRIDGE_KEY": _KEY},
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == f"net:port={port},key=…\n"
        yield start("bugcheck", ScenarioOptions(processors=2, memory_size=memory << 20)).kernel
        assert process.poll() is None, "the simulator ended by itself"
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize(
    ("bind", "host"),
    [
        ("", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")),
    ],
)
async def test_a_machine_in_another_process_is_brought_home(bind: str, host: str, tmp_path: Path) -> None:
    place = f"[{bind}]" if ":" in bind else bind
    way = await open_net(parse_target(f"net://{place}:0?key={_KEY}"))
    with _served(host, way.address[1], ",version=4") as kernel:
        with trio.fail_after(100):
            async with open_target(way.url, transport=way, wait=30) as target:
                found = await target.discover()
                assert (found.bug_check_code, *found.bug_check_parameters) == kernel.bug_check
                with await target.snapshot(tmp_path / "snapshot", kernel_plan) as snapshot:
                    assert snapshot.held.page_count > 600
                    for pfn in snapshot.held.pages():
                        assert snapshot.page(pfn) == kernel.image.read_page(pfn)


async def test_the_machine_is_asked_to_come_when_it_was_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    way = await open_net(parse_target(f"net:port=0,key={_KEY},bind=127.0.0.1,target=127.0.0.1:{port}"))
    with _served("127.0.0.1", way.address[1], f",from=127.0.0.1:{port}"):
        # Its first poke is thrown away: the next would come after three seconds.
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(way._socket)
        way._socket.recvfrom(65535)
        began = trio.current_time()
        async with open_target(way.url, transport=way, wait=30):
            assert trio.current_time() - began < 2.5


async def test_a_bad_real_network_too(tmp_path: Path) -> None:
    way = await open_net(parse_target(f"net:port=0,key={_KEY},bind=127.0.0.1"))
    faults = ("--fault", "loss=0.02,dup=0.05,reorder=0.02,jitter=0.002,seed=5")
    with _served("127.0.0.1", way.address[1], "", *faults) as kernel:
        with trio.fail_after(100):
            async with open_target(way.url, transport=way, wait=30) as target:
                at = kernel.kernel_base
                assert await target.virtual.read(VirtualAddress(at), 0x8000) == kernel.read_virtual(at, 0x8000)


# ---- secrets ---------------------------------------------------------------------------------------------------------


def _secrets() -> list[bytes]:
    raw = parse_key(_KEY).raw
    return [_KEY.encode(), _KEY.encode("utf-16-le"), raw, raw.hex().encode(), *(p.encode() for p in _KEY.split("."))]


@pytest.mark.parametrize("verb", ["dump", "info", "break"])
def test_no_output_and_no_file_has_the_key(verb: str, tmp_path: Path) -> None:
    """The whole program, on a real network, with the key in the address."""
    words = [PROGRAM, verb, f"net:port=0,key={_KEY},bind=127.0.0.1"]
    if verb == "dump":
        words += ["out.dmp", "--kind", "kernel", "--keep-snapshot", "snapshot"]
    process = subprocess.Popen(
        [*words, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if name != "KDBRIDGE_KEY"},
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    try:
        while (found := re.search(r"waits at 127\.0\.0\.1:(\d+) \(UDP\)", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        with _served("127.0.0.1", int(found[1])):
            out, err = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert "listening on net:port=0,key=…,bind=127.0.0.1" in said + err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (len(files) >= 5) == (verb == "dump")
    told = {"output": (out + said + err).encode(), **{str(path): path.read_bytes() for path in files}}
    for where, data in told.items():
        assert [secret for secret in _secrets() if secret in data] == [], where


@pytest.mark.parametrize(
    "words",
    [
        ["info", f"net:port=99999,key={_KEY}"],
        ["info", f"net:port=0,kee={_KEY}"],
        ["info", f"net:port=0,key={_KEY}_"],
        ["info", "net:port=0,", f"key={_KEY}"],
        ["info", f"net:port=0,key={_KEY},target=nobody.invalid/"],
        ["info", f"net:port=0,key={_KEY}", "--wait", "0.2"],
        ["info", f"nett:port=0,key={_KEY}"],
        ["convert", f"net:port=0,key={_KEY}", "x.dmp"],
        ["verify", f"net:port=0,key={_KEY}"],
        ["simulate", "--on", f"net:h:0,key={_KEY}"],
        ["simulate", "--on", f"net:h:5,key={_KEY},version=3"],
        ["dump", f"net:port=0,key={_KEY}", "/nowhere/x.dmp"],
    ],
)
def test_no_complaint_has_the_key(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([PROGRAM, *words], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode not in (0, 1)
    assert b"Traceback" not in done.stderr
    assert [secret for secret in _secrets() if secret in done.stdout + done.stderr] == []
