"""A target on real lines: debuggers come and go, some of them read nothing, and the machine stands as it stood."""

from __future__ import annotations

import contextlib
import os.path
import socket
import termios
import tty
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_data
from simulator.errors import SimulationError
from simulator.faults import LineFaults
from simulator.serve import ByteStream, open_line, run
from simulator.target import KdTarget, Stop
from tests.raw import A, ack
from tests.recording import Packet, split
from tests.small_machine import KERNEL, PC, content, small_machine
from tests.wire import target_link

RESET = bytes.fromhex("69696969 06000000 00000000 00000000")
_CHANGE = 16 + 240 + 1


def _target() -> KdTarget:
    return KdTarget(small_machine(), target_link(), script=deque([Stop()]))


async def _connect(url: str) -> ByteStream:
    scheme, _, rest = url.partition(":")
    if scheme == "serial":
        fd = os.open(rest, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(fd)
        return trio.lowlevel.FdStream(fd)
    if scheme == "unix":
        return await trio.open_unix_socket(rest)
    host, _, port = rest.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def _receive(stream: ByteStream, size: int) -> list[Packet]:
    """So many bytes, which must be whole packets."""
    data = b""
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        assert part, "hung up"
        data += part
    packets, between = split(data)
    assert between == []
    return packets


async def _take_over(stream: ByteStream) -> None:
    """Whatever the former debugger left: ids begin anew."""
    await stream.send_all(RESET)
    data = b""
    while RESET not in data or len(data) < data.index(RESET) + 16 + _CHANGE:
        data += await stream.receive_some(1 << 16)
    await stream.send_all(ack(A))


async def _ask(stream: ByteStream, packet_id: int, request: Manipulate, size: int) -> Manipulate:
    await stream.send_all(encode_data(2, packet_id, request.encode()))
    packets = await _receive(stream, 16 + 16 + 56 + size + 1)
    await stream.send_all(ack(packet_id ^ 1))
    return Manipulate.decode(packets[1].payload)


@contextlib.asynccontextmanager
async def _served(
    target: KdTarget, where: str, baud: int | None = None, *, once: bool = False, faults: LineFaults | None = None
) -> AsyncIterator[str]:
    """The URL of a target on that line; with `once`, that serving has ended is checked at the end."""
    url: list[str] = []
    told = trio.Event()

    def tell(name: str) -> None:
        url.append(name)
        told.set()

    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def serve() -> None:
            await run(target, where, baud, tell, once=once, faults=faults)
            ended.set()

        nursery.start_soon(serve)
        await told.wait()
        yield url[0]
        if once:
            await ended.wait()
        nursery.cancel_scope.cancel()


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when all wait; not at once, for what is written to a pty arrives by a thread of the system."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@pytest.fixture(params=["pty", "tcp", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"pty": "pty:", "tcp": "tcp:127.0.0.1:0", "unix": f"unix:{tmp_path / 'line'}"}[request.param]


async def test_a_debugger_takes_over_and_reads(where: str, clock: trio.testing.MockClock) -> None:
    async with contextlib.AsyncExitStack() as stack, _served(_target(), where, once=True) as url:
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        (change,) = await _receive(stream, _CHANGE)
        assert (change.packet_type, change.packet_id) == (7, A | 0x800)
        request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=PC, transfer_count=3944)
        await stream.send_all(ack(A))
        reply = await _ask(stream, A, request, 3944)
        assert reply.data == content()[PC - KERNEL : PC - KERNEL + 3944]
        await stream.aclose()


@pytest.mark.slow
async def test_a_bad_line_is_as_bad_for_the_next_debugger(where: str, clock: trio.testing.MockClock) -> None:
    """It dies ten seconds after its first use, whoever is there then, and is back ten seconds later."""
    faults = LineFaults(die=10.0, back=20.0, sevenbit=True, way="host")
    async with contextlib.AsyncExitStack() as stack, _served(_target(), where, faults=faults) as url:
        began = trio.current_time()
        first = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        data = b""
        while len(data) < _CHANGE:
            data += await first.receive_some(_CHANGE - len(data))
        assert data[8:12] == bytes.fromhex("00080000"), "80800800 without its eighth bits"
        await first.aclose()
        await trio.sleep(12.0)
        second = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        await second.send_all(RESET)
        assert await second.receive_some(1)
        assert trio.current_time() - began >= 20.0


async def test_the_next_debugger_finds_the_machine_as_it_was_left(where: str, clock: trio.testing.MockClock) -> None:
    target = _target()
    async with contextlib.AsyncExitStack() as stack, _served(target, where) as url:
        for number in range(3):
            stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
            await _take_over(stream)
            request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=KERNEL + 0x9000, transfer_count=8)
            reply = await _ask(stream, A, request, 8)
            assert reply.data == (f"debugger{number - 1}"[-8:].encode() if number else content()[0x9000:0x9008])
            write = Manipulate.request(
                ApiNumber.WRITE_VIRTUAL_MEMORY, data=f"debugger{number}"[-8:].encode(), address=KERNEL + 0x9000
            )
            assert (await _ask(stream, A | 1, write, 0)).status == 0
            await stream.aclose()
        assert target.machine.counts == {"ReadVirtualMemory": 3, "WriteVirtualMemory": 3}


async def test_what_one_debugger_did_not_read_is_not_for_the_next(where: str, clock: trio.testing.MockClock) -> None:
    async with contextlib.AsyncExitStack() as stack, _served(_target(), where) as url:
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        await trio.sleep(60.5)  # 60 repeats pile up
        await stream.aclose()
        await trio.sleep(0.1)
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        with trio.move_on_after(0.9):
            packets = await _receive(stream, _CHANGE)
            assert [packet.packet_type for packet in packets] == [7]
            await stream.receive_some(1)
            raise AssertionError("more than the machine itself repeats")


@pytest.mark.parametrize("where", ["pty:"])
async def test_a_debugger_that_reads_nothing_does_not_stop_the_machine(
    where: str, clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _target()
    repeats = 0

    def counted(self: KdTarget, original: Callable[[KdTarget], list[bytes]] = KdTarget.data_to_send) -> list[bytes]:
        nonlocal repeats
        chunks = original(self)
        repeats += len(chunks)
        return chunks

    monkeypatch.setattr(KdTarget, "data_to_send", counted)
    async with contextlib.AsyncExitStack() as stack, _served(target, where) as url:
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        clock.autojump_threshold = 0
        await trio.sleep(5_000)
        clock.autojump_threshold = 0.02
        assert repeats > 2_500, "it went on repeating, and the line lost what nobody read"
        # Then somebody reads: old bytes, one packet that was cut, and a machine that answers.
        await stream.send_all(RESET)
        data = b""
        while RESET[:8] not in data:
            data += await stream.receive_some(1 << 16)
            assert len(data) < 1 << 17


async def test_an_idle_stopped_target_costs_nothing(where: str, clock: trio.testing.MockClock) -> None:
    async with contextlib.AsyncExitStack() as stack, _served(_target(), where) as url:
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        await _receive(stream, _CHANGE)
        await stream.send_all(ack(A))
        await trio.testing.wait_all_tasks_blocked(0.01)
        steps = 0

        class Count(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal steps
                steps += 1

        counter = Count()
        trio.lowlevel.add_instrument(counter)
        await trio.sleep(10_000)
        trio.lowlevel.remove_instrument(counter)
        assert steps < 10


async def test_a_pty_that_nobody_has_open_waits_for_somebody(clock: trio.testing.MockClock, tmp_path: Path) -> None:
    target = _target()
    async with contextlib.AsyncExitStack() as stack, _served(target, "pty:") as url:
        clock.autojump_threshold = 0
        await trio.sleep(100)
        clock.autojump_threshold = 0.02
        assert target.data_to_send() == [], "the machine stands still"
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        (change,) = await _receive(stream, _CHANGE)
        assert change.packet_id == A | 0x800


async def test_a_pty_is_raw_from_the_beginning(clock: trio.testing.MockClock) -> None:
    async with open_line("pty:") as (url, _):
        fd = os.open(url.partition(":")[2], os.O_RDWR | os.O_NOCTTY)
        try:
            assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            assert not termios.tcgetattr(fd)[1] & termios.OPOST
        finally:
            os.close(fd)


async def test_a_paced_line_takes_its_time(clock: trio.testing.MockClock) -> None:
    async with contextlib.AsyncExitStack() as stack, _served(_target(), "tcp:127.0.0.1:0", 9600) as url:
        stream = await stack.enter_async_context(contextlib.aclosing(await _connect(url)))
        began = trio.current_time()
        await _receive(stream, _CHANGE)
        assert trio.current_time() - began == pytest.approx(_CHANGE * 10 / 9600, abs=0.02)


async def test_places_are_given_back(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    link, path = tmp_path / "ttyTARGET", tmp_path / "line"
    there = os.path.lexists
    link.symlink_to("/dev/pts/of-a-server-that-is-gone")
    for where, place in ((f"pty:{link}", link), (f"unix:{path}", path)):
        for _ in range(2):
            async with open_line(where) as (url, _streams):
                assert url.endswith(str(place)) and there(place)
            assert not there(place)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with open_line(f"unix:{path}"):
        pass


@pytest.mark.parametrize(
    "where",
    [
        "", "com1:", "unix:", "tcp:", "tcp:localhost", "tcp:127.0.0.1:x", "tcp:127.0.0.1:65536",
        "tcp:127.0.0.1:\N{SUPERSCRIPT TWO}", "tcp:256.1.1.1:0", "unix:/no/such/folder/line", f"unix:/{'x' * 200}",
        "pty:/no/such/folder/tty",
    ],
)  # fmt: skip
async def test_a_place_that_cannot_be_had_is_refused_by_name(where: str, clock: trio.testing.MockClock) -> None:
    with pytest.raises(SimulationError):
        async with open_line(where):
            raise AssertionError("it was had")


@pytest.mark.parametrize("scheme", ["pty", "unix"])
async def test_somebody_s_file_is_not_removed(scheme: str, tmp_path: Path, clock: trio.testing.MockClock) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("years of work")
    with pytest.raises(SimulationError):
        async with open_line(f"{scheme}:{file}"):
            raise AssertionError("it was had")
    assert file.read_text() == "years of work"


async def test_a_port_that_is_taken_is_refused(clock: trio.testing.MockClock) -> None:
    async with open_line("tcp:127.0.0.1:0") as (url, _):
        with pytest.raises(SimulationError, match="in use"):
            async with open_line(url):
                raise AssertionError("it was had twice")


async def test_what_goes_wrong_while_serving_is_not_blamed_on_the_place(clock: trio.testing.MockClock) -> None:
    def broken(name: str) -> None:
        raise OSError("the terminal is gone")

    tell: Callable[[str], None] = broken
    with pytest.raises(OSError, match="the terminal is gone"):
        await run(_target(), "tcp:127.0.0.1:0", None, tell)
