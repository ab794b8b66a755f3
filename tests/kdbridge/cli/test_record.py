"""--record, and replay: of what it recorded: the same verbs print the same and make the same dumps."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbridge.capture.reader import read_frames
from tests.kdbridge.cli.calling import Ended, call, program, served, sim

_KEY = "1a2b.3c4d.5e6f.7g8h"


def _same(live: Ended, replayed: Ended) -> None:
    assert (replayed.code, replayed.out) == (live.code, live.out)


def test_what_a_line_carried_answers_every_verb_as_the_machine_did(tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    replay = f"replay:{path}"
    live = call("dump", sim(), tmp_path / "live.dmp", "--kind", "kernel", "--record", path)
    assert live.code == 0, live.err
    again = call("dump", replay, tmp_path / "again.dmp", "--kind", "kernel")
    assert again.code == 0, again.err
    assert (tmp_path / "again.dmp").read_bytes() == (tmp_path / "live.dmp").read_bytes()
    _same(call("info", sim()), call("info", replay))
    _same(call("info", sim(), "--json"), call("info", replay, "--json"))
    _same(call("registers", sim(), "--all"), call("registers", replay, "--all"))
    kdbg = hex(live.machine.kernel.kdbg_address)
    _same(call("memory", sim(), kdbg, "256"), call("memory", replay, kdbg, "256"))


@pytest.mark.parametrize("scenario", ["breakpoint", "no-physical-reads", "bugcheck-attached"])
def test_info_of_other_stops_is_the_same_from_a_recording(scenario: str, tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    live = call("info", sim(scenario), "--record", path)
    _same(live, call("info", f"replay:{path}"))


@pytest.mark.parametrize("words", [("break",), ("continue",), ("reboot",), ("crash",)])
def test_every_verb_that_touches_a_target_records_too(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    ended = call(*words, sim("running") if words == ("break",) else sim(), "--record", path)
    assert ended.code in (0, 1), ended.err
    frames = list(read_frames(path))
    assert {frame.to_target for frame in frames} == {True, False}


@pytest.mark.parametrize("verb", ["continue", "reboot", "crash"])
def test_nothing_is_done_to_a_recording_and_it_is_said(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    assert call("info", sim(), "--record", path).code == 0
    ended = call(verb, f"replay:{path}")
    assert ended.code == 4
    assert ended.last.startswith(f"kdbridge: replay:{path}: a recording can only be read: there is no machine to carry")


def test_a_file_that_exists_is_left_alone_and_the_target_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "session.pcapng"
    path.write_text("precious")
    ended = call("info", sim(), "--record", path)
    assert ended.code == 5
    assert ended.last == f"kdbridge: {path} exists already; a recording never overwrites a file"
    assert path.read_text() == "precious"
    assert ended.machine.target.machine.counts.total() == 0


def test_of_a_dump_there_is_nothing_to_be_recorded(tmp_path: Path) -> None:
    dump = tmp_path / "a.dmp"
    dump.write_bytes(b"PAGEDU64")
    ended = call("info", dump, "--record", tmp_path / "session.pcapng")
    assert ended.code == 2
    assert ended.last.endswith("is no target: there is no line to be recorded into " + str(tmp_path / "session.pcapng"))
    assert not (tmp_path / "session.pcapng").exists()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def on_network(port: int) -> Iterator[None]:
    with served("bugcheck", "--memory", "16M", "--on", f"net:127.0.0.1:{port},key={_KEY}"):
        yield


@pytest.mark.slow
def test_what_a_network_carried_answers_again_with_the_key_which_is_not_in_it(tmp_path: Path) -> None:
    path, port = tmp_path / "session.pcapng", free_port()
    replay = f"replay:{path}"
    environment = {"KDBRIDGE_KEY": _KEY}
    with on_network(port):
        live = program(
            "dump", f"net:port={port}", tmp_path / "live.dmp", "--kind", "kernel", "--record", path,
            environment=environment,
        )  # fmt: skip
    assert live.code == 0, live.err
    again = program("dump", replay, tmp_path / "again.dmp", "--kind", "kernel", environment=environment)
    assert again.code == 0, again.err
    assert (tmp_path / "again.dmp").read_bytes() == (tmp_path / "live.dmp").read_bytes()
    data = path.read_bytes()
    numbers = [int(part, 36).to_bytes(8, "little") for part in _KEY.split(".")]
    assert not any(secret in data for secret in (_KEY.encode(), b"".join(numbers), *numbers))
    os.environ.pop("KDBRIDGE_KEY", None)
    without = call("info", replay)
    assert without.code == 2 and "is encrypted" in without.last
    wrong = call("info", f"{replay}?key=1.2.3.4")
    assert wrong.code == 2 and "authenticates; that machine had another key" in wrong.last
