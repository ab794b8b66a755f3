"""Microsoft's engine works through `kdbridge tap` as without it; what was recorded decodes whole, and replays."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.kernel import SimulatedKernel
from simulator.scenarios import ScenarioOptions, start
from tests.end_to_end.seen import assert_seen, questions
from tests.end_to_end.served import served
from tests.kdbridge.cli.calling import call
from tests.kdbridge.cli.calling import served as served_by_command
from tests.kdbridge.tapping import Tapping, free_port, tapping
from tests.referee import Kdexec, parse

pytestmark = pytest.mark.referee

_KEY = "1a2b.3c4d.5e6f.7g8h"


def _assert_decoded(tap: Tapping, path: Path, *words: str) -> None:
    """Nothing is in the recording that was not understood, and it was shown as it went by."""
    assert tap.code == 0, tap.said
    decoded = call("decode", path, *words, "--json")
    assert decoded.code == 0, decoded.err
    packets = decoded.document["packets"]
    kinds = Counter(packet["type"] for packet in packets)
    assert not kinds.keys() & {"Noise", "Opaque"}, kinds
    assert kinds["Manipulate"] > 200
    assert len(tap.shown) == len(packets)
    asked = {packet["api"] for packet in packets if packet["type"] == "Manipulate" and packet["to_target"]}
    assert asked >= {"GetVersion", "ReadVirtualMemory", "GetContextEx", "ReadControlSpace"}


def _assert_replays(replay: str, kernel: SimulatedKernel) -> None:
    """The recording answers as the machine did: what WinDbg read of it is there."""
    registers = call("registers", replay)
    assert registers.code == 0, registers.err
    values = kernel.processors[kernel.stopped_processor].context_values
    shown = dict(re.findall(r"\b(r[a-z0-9]+)=([0-9a-f]{16})", registers.out))
    assert {name: int(shown[name], 16) for name in ("rip", "rsp", "rbx", "r15")} == {
        name: values[name] for name in ("rip", "rsp", "rbx", "r15")
    }
    size = 64
    memory = call("memory", replay, f"{kernel.kdbg_address:x}", f"0n{size}", "--json")
    assert memory.code == 0, memory.err
    assert bytes.fromhex(memory.document["bytes"]) == kernel.read_virtual(kernel.kdbg_address, size)


def test_over_a_serial_line_carried_by_tcp(kdexec: Kdexec, tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    with served("bugcheck") as machine, tapping("tcp-listen:127.0.0.1:0", machine.url, "--record", path) as tap:
        kernel = machine.kernel
        port = tap.place.rpartition(":")[2]
        text = kdexec("-k", f"com:port=127.0.0.1,ipport={port}", ".reload", *questions(kernel), timeout=240)
    assert_seen(parse(text), kernel)
    _assert_decoded(tap, path)
    _assert_replays(f"replay:{path}", kernel)


def test_the_engine_attaches_to_the_recording_of_its_own_session_and_is_told_the_same(
    kdexec: Kdexec, tmp_path: Path
) -> None:
    path = tmp_path / "session.pcapng"
    look = (".reload", "r", "k", ".bugcheck", "lm")
    answers = []
    with served("bugcheck") as machine:
        for target, more in ((machine.url, ("--record", path)), (f"replay:{path}", ())):
            with tapping("tcp-listen:127.0.0.1:0", target, *more) as tap:
                port = tap.place.rpartition(":")[2]
                transcript = parse(kdexec("-k", f"com:port=127.0.0.1,ipport={port}", *look, timeout=240))
            answers.append({command: transcript[command].lines for command in look[1:-1]})
            modules = "\n".join(transcript["lm"].lines)
            # What follows the last command is the engine's farewell: nobody carries out what it asks for.
            answers[-1]["lm"] = re.findall(r"^[0-9a-f]{8}`[0-9a-f]{8} .*", modules, re.MULTILINE)
    assert answers[0] == answers[1]
    assert all(answers[0].values())


def test_over_a_pseudo_terminal(kdexec: Kdexec, tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    with served("bugcheck") as machine, tapping("pty:", machine.url, "--record", path) as tap:
        kernel = machine.kernel
        com = {"KDEXEC_COM1": tap.place.removeprefix("pty:")}
        text = kdexec("-k", "com:port=COM1,baud=115200", ".reload", *questions(kernel), env=com, timeout=240)
    assert_seen(parse(text), kernel)
    _assert_decoded(tap, path)
    _assert_replays(f"replay:{path}", kernel)


def test_over_the_network(kdexec: Kdexec, tmp_path: Path) -> None:
    path, port = tmp_path / "session.pcapng", free_port()
    kernel = start("bugcheck", ScenarioOptions(processors=2, memory_size=32 << 20)).kernel
    with (
        tapping(f"udp:127.0.0.1:{port}", f"net:port=0,key={_KEY}", "--record", path) as tap,
        _on_network(tap.place),
    ):
        text = kdexec("-k", f"net:port={port},key={_KEY}", ".reload", *questions(kernel), timeout=240)
    assert_seen(parse(text), kernel)
    _assert_decoded(tap, path, "--key", _KEY)
    _assert_replays(f"replay:{path}?key={_KEY}", kernel)


@contextlib.contextmanager
def _on_network(port: str) -> Iterator[None]:
    # The newest version that this engine knows.
    where = f"net:127.0.0.1:{port},key={_KEY},version=4"
    with served_by_command("bugcheck", "--on", where, "--processors", 2, "--memory", "32M"):
        yield
