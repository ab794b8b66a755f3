"""A target on a real network: it pokes whoever it was told to, from its own port, in every life."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.connection import KdConnection
from protocol.conversation import StateChanged, Told
from protocol.kdnet import HostChannel, KdnetLink, Sealer, parse_key
from protocol.kdnet.control import decode_poke
from protocol.manipulate import ApiNumber, Manipulate
from simulator.__main__ import main
from simulator.cipher import AesCbc
from simulator.errors import SimulationError
from simulator.scenarios import ScenarioOptions, start
from simulator.serve_net import NetLine, parse_net, run_net

pytestmark = pytest.mark.slow

_TEXT = "17890.af3489a.9345kjm.lio147"
_KEY = parse_key(_TEXT)
_ROOT = Path(__file__).resolve().parent.parent.parent


class _Debugger:
    """A host's end on a real socket."""

    def __init__(self) -> None:
        self.socket = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.link = KdnetLink(HostChannel(_KEY, AesCbc(), os.urandom))
        self.host = KdConnection(self.link, restart_is_new_life=True)
        self.pokes: list[tuple[bytes, tuple[str, int]]] = []

    async def listen(self) -> int:
        await self.socket.bind(("127.0.0.1", 0))
        port: int = self.socket.getsockname()[1]
        return port

    async def run(self, wanted: type) -> object:
        """Until such an event comes."""
        with trio.fail_after(30):
            while True:
                for datagram, to in self.link.datagrams_to_send():
                    await self.socket.sendto(datagram, to)
                event = self.host.next_event()
                if isinstance(event, wanted):
                    return event
                if event is not None:
                    continue
                due = self.host.next_timeout()
                with trio.move_on_at(trio.current_time() + 1 if due is None else due) as scope:
                    datagram, source = await self.socket.recvfrom(65535)
                    if datagram[5] == 1:
                        self.pokes.append((datagram, source))
                    if self.link.receive_datagram(datagram, source, trio.current_time()):
                        self.host.receive_data(b"", trio.current_time())
                if scope.cancelled_caught:
                    self.host.handle_timeout(trio.current_time())


@contextlib.asynccontextmanager
async def _served(scenario: str, **more: object) -> AsyncIterator[tuple[_Debugger, list[str]]]:
    debugger = _Debugger()
    port = await debugger.listen()
    running = start(scenario, ScenarioOptions(memory_size=16 << 20, processors=1))
    told: list[str] = []
    with debugger.socket:
        async with trio.open_nursery() as nursery:
            line = NetLine("127.0.0.1", port, _KEY, **more)  # type: ignore[arg-type]

            async def serve() -> None:
                await run_net(running.target, line, told.append, begin=running.scenario.begin)

            nursery.start_soon(serve)
            yield debugger, told
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", [2, 4, 5])
async def test_a_debugger_finds_it_at_its_stop(version: int) -> None:
    async with _served("bugcheck", version=version) as (debugger, told):
        change = await debugger.run(StateChanged)
        assert isinstance(change, StateChanged)
        poke, source = debugger.pokes[0]
        assert poke[:6] == b"MDBG" + bytes([version, 1])
        opened = Sealer(_KEY, AesCbc()).open(poke, _KEY.raw)
        assert opened is not None
        said = decode_poke(opened.payload)
        assert (said.own.address, said.own.port) == source, "what it calls itself is where it comes from"
        assert (said.configured.address, said.configured.port) == debugger.socket.getsockname()
        assert (said.bound.address, said.bound.port) == ("0.0.0.0", 0)
        assert told == [f"net:port={debugger.socket.getsockname()[1]},key=…"]


@pytest.mark.parametrize("new_port", [False, True])
async def test_every_life_has_a_key_of_its_own_and_may_have_a_port(new_port: bool) -> None:
    async with _served("bugcheck", new_port=new_port) as (debugger, _):
        await debugger.run(StateChanged)
        debugger.host.ask(Manipulate.request(ApiNumber.REBOOT), trio.current_time())
        await debugger.run(Told)
        await debugger.run(StateChanged)
        ports = {source[1] for _, source in debugger.pokes}
        assert len(ports) == (2 if new_port else 1)
        assert debugger.host.life == 2
        lives = set()
        for poke, _ in debugger.pokes:
            opened = Sealer(_KEY, AesCbc()).open(poke, _KEY.raw)
            assert opened is not None
            lives.add(decode_poke(opened.payload).life)
        assert len(lives) == 2


async def test_it_comes_from_where_it_was_told_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with _served("bugcheck", own="127.0.0.1", own_port=port) as (debugger, _):
        await debugger.run(StateChanged)
        assert {source for _, source in debugger.pokes} == {("127.0.0.1", port)}


# ---- how it is written -----------------------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    assert parse_net(f"net:127.0.0.1:50000,key={_TEXT}", {}) == NetLine("127.0.0.1", 50000, _KEY)
    assert parse_net("net:pc.example:5,version=2", {"KDBRIDGE_KEY": _TEXT}) == NetLine("pc.example", 5, _KEY, 2)
    line = parse_net(f"net:[::1]:5,key={_TEXT},version=4,from=[::1]:7,newport", {})
    assert line == NetLine("::1", 5, _KEY, 4, "::1", 7, True)
    assert parse_net(f"net:h:5,key={_TEXT},from=10.0.0.1", {}).own_port is None
    assert parse_net(f"net:h:5,key={_TEXT},from=fd00::1", {}).own == "fd00::1"
    assert _TEXT not in repr(line) and _KEY.raw.hex() not in repr(line)


@pytest.mark.parametrize(
    "text",
    ["net:", "net:h", "net::5", "net:h:0", "net:h:x", "net:h:65536", "net:h:5,version=3", "net:h:5,colour=red",
     "net:h:5,version=2,version=2", "net:h:5,from=eth0", "net:h:5,from=10.0.0.1:x", f"net:h:5,{_TEXT}"],
)  # fmt: skip
def test_what_is_wrong_is_said_without_the_key(text: str) -> None:
    with pytest.raises(SimulationError) as raised:
        parse_net(text if _TEXT in text else f"{text},key={_TEXT}", {})
    assert _TEXT not in str(raised.value)


def test_a_key_has_to_be_somewhere_and_right() -> None:
    with pytest.raises(SimulationError, match="there is no key"):
        parse_net("net:h:5", {})
    with pytest.raises(SimulationError, match="has 4 parts") as raised:
        parse_net("net:h:5,key=secret", {})
    assert "secret" not in str(raised.value)


async def test_a_debugger_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*words: object, **more: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("trio.socket.getaddrinfo", unknown)
    running = start("bugcheck", ScenarioOptions(memory_size=16 << 20))
    with pytest.raises(SimulationError, match=r"cannot poke nobody\.example port 5: Name or service not known"):
        await run_net(running.target, NetLine("nobody.example", 5, _KEY), lambda url: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "net:h:5"], "there is no key"),
        (["--on", "net:h:5,key=1.2.3.4", "--baud", "9600"], "a network has no --baud"),
        (["--on", "net:h:5,key=1.2.3.4", "--once"], "nobody hangs up there"),
        (["--on", "net:h:5,key=1.2.3.4", "--fault", "loss=2"], "loss is a number from 0 to 1"),
        (["--on", "pty:", "--fault", "jitter=0.1"], "jitter is what a network does to datagrams"),
    ],
)
def test_what_cannot_be_is_said_by_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KDBRIDGE_KEY", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["bugcheck", "--memory", "16M", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


async def test_another_process_is_a_machine_on_the_network() -> None:
    debugger = _Debugger()
    port = await debugger.listen()
    command = [sys.executable, "-m", "simulator", "running", "--memory", "16M", "--on", f"net:127.0.0.1:{port}"]
    command += ["--fault", "loss=0.05,dup=0.1,jitter=0.01,seed=4"]
    environment = {**os.environ, "KDBRIDGE_KEY": _TEXT}
    with debugger.socket:
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=_ROOT, env=environment)
            try:
                with trio.fail_after(60):
                    assert process.stdout is not None
                    first = await process.stdout.receive_some(100)
                    assert first == f"net:port={port},key=…\n".encode()
                    while debugger.link.peer is None:
                        with trio.move_on_after(0.5):
                            await debugger.run(StateChanged)
                    while True:
                        debugger.host.send_break_in(trio.current_time())
                        with trio.move_on_after(1):
                            assert isinstance(await debugger.run(StateChanged), StateChanged)
                            break
            finally:
                process.kill()
                await process.wait()
                nursery.cancel_scope.cancel()
