"""Symbol files reach the verbs: by --symbols and by the environment, from a target, a dump and a Snapshot alike.

The file is made here, of the name, GUID and age that stand in the machine's memory; nothing of ours reads them out.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kdbridge.cli.calling import Ended, call, sim
from tests.kdbridge.symbols.serving import files, server
from tests.protocol.pdb import built

_TEXT = 0x1000
_BEHIND = 0x11
"""From the function's begin to the instruction that failed."""
_VARIABLE = "_NT_SYMBOL_PATH"
_OF_NAMES = ("text", "symbol", "displacement", "known_by", "bytes_read")
_OTHERS = ("_NT_ALT_SYMBOL_PATH", "DBGHELP_HOMEDIR")


@dataclass(frozen=True)
class _Crash:
    """One machine in three forms, and a symbol file of the driver that failed in it."""

    sources: dict[str, object]
    small: Path
    pdb: bytes
    place: str
    """Where a symbol store has that file."""


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> _Crash:
    folder = tmp_path_factory.mktemp("crash")
    dump, snapshot, small = folder / "kernel.dmp", folder / "kernel.snapshot", folder / "small.dmp"
    made = call("dump", sim(), dump, "--kind", "kernel", "--keep-snapshot", snapshot)
    assert made.code == 0, made.err
    assert call("dump", sim(), small, "--kind", "small").code == 0
    (record,) = re.findall(rb"RSDS(.{16})(.{4})(mydrv\.pdb)\0", dump.read_bytes(), re.DOTALL)
    guid, age, name = record[0], int.from_bytes(record[1], "little"), record[2].decode()
    (driver,) = (one for one in made.machine.kernel.modules if one.path.endswith("mydrv.sys"))
    failed = made.machine.kernel.bug_check[4] - driver.base
    streams = [
        b"", built.info_stream(guid, age), built.types_stream([]), built.dbi_stream(6, {5: 5}, age=age), b"",
        built.section_header(".text", _TEXT, 0x1000), built.public("ReadBuffer", 1, failed - _BEHIND - _TEXT),
    ]  # fmt: skip
    words = int.from_bytes(guid[:4], "little"), int.from_bytes(guid[4:6], "little"), int.from_bytes(guid[6:8], "little")
    key = "{:08X}{:04X}{:04X}".format(*words) + guid[8:].hex().upper() + f"{age:X}"
    sources = {"target": sim(), "dump": dump, "snapshot": snapshot}
    return _Crash(sources, small, built.msf_file(streams), f"{name}/{key}/{name}")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the variables of whoever runs this say, and no proxy."""
    for name in (_VARIABLE, *_OTHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DBGHELP_HOMEDIR", str(tmp_path / "default"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every connection that this process makes, and every name that it asks for."""
    made: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(own: socket.socket, address: Any) -> None:
        made.append(address)
        connect(own, address)

    def looking_up(*words: Any, **more: Any) -> Any:
        made.append(words)
        return look_up(*words, **more)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", looking_up)
    return made


def _frames(verb: str, document: Any) -> list[Any]:
    stacks = [document["stack"]] if verb == "analyze" else document["stacks"]
    return [frame["place"] for frame in stacks[0]["frames"]]


def _named(places: list[Any]) -> Iterator[str]:
    yield from (place["text"] for place in places if place["known_by"] == "pdb")


def _nameless(value: Any) -> Any:
    """The same without the names of places, and without how much was read."""
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if name not in _OF_NAMES}
        return {name: _nameless(one) for name, one in kept.items()}
    return [_nameless(one) for one in value] if isinstance(value, list) else value


def _put(folder: Path, crash: _Crash) -> Path:
    path = folder / crash.place
    path.parent.mkdir(parents=True)
    path.write_bytes(crash.pdb)
    return folder


@pytest.mark.parametrize("source", ["target", "dump", "snapshot"])
def test_names_of_a_symbol_file_reach_every_verb_from_every_source(
    source: str, crash: _Crash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: list[object]
) -> None:
    where = crash.sources[source]
    with server(files({f"/symbols/{crash.place}": crash.pdb})) as served:
        path = f"srv*{_put(tmp_path / 'store', crash)}*{served.url};//elsewhere/share"
        plain = call("analyze", where, "--json")
        by_option = {verb: call(verb, where, "--json", "--symbols", path) for verb in ("analyze", "stack")}
        monkeypatch.setenv(_VARIABLE, path)
        by_variable = {verb: call(verb, where, "--json") for verb in ("analyze", "stack")}
        assert served.asked == []
    assert connections == [], "nobody said --download"
    for verb, ended in by_option.items():
        assert ended.code in (0, plain.code), ended.err
        assert f"symbols from {tmp_path / 'store' / crash.place}\n" in ended.err
        assert f"mydrv!ReadBuffer+{_BEHIND:#x}" in _named(_frames(verb, ended.document))
        assert by_variable[verb].document == ended.document
    analysis = by_option["analyze"].document
    assert analysis["suspect"]["place"]["text"] == f"mydrv!ReadBuffer+{_BEHIND:#x}"
    assert analysis["suspect"]["place"]["known_by"] == "pdb"
    assert "ReadBuffer" not in plain.out
    assert analysis["bucket"] == plain.document["bucket"]
    assert _nameless(analysis) == _nameless(plain.document), "symbols name what is there, and change nothing of it"


def test_a_file_of_another_build_names_nothing(crash: _Crash, tmp_path: Path) -> None:
    other = bytearray(crash.pdb)
    guid = bytes.fromhex(crash.place.split("/")[1][16:32])
    other[other.index(guid)] ^= 1
    (tmp_path / "mydrv.pdb").write_bytes(other)
    ended = call("stack", crash.sources["dump"], "--json", "--symbols", tmp_path)
    assert ended.code == 0 and "ReadBuffer" not in ended.out
    assert f"{tmp_path / 'mydrv.pdb'} is of another build" in ended.err


def test_a_download_comes_once_and_serves_the_next_time(crash: _Crash, tmp_path: Path) -> None:
    with server(files({f"/symbols/{crash.place}": crash.pdb})) as served:
        words = "stack", crash.sources["dump"], "--json", "--symbols", f"srv*{tmp_path / 'store'}*{served.url}"
        first, again = (call(*words, "--download", real_clock=True) for _ in range(2))
        later = call(*words)
        # Of the kernel there is no file, and each time it is asked for: one may have come.
        assert served.asked.count(f"/symbols/{crash.place}") == 1, first.err + again.err
    for ended in (first, again, later):
        assert f"mydrv!ReadBuffer+{_BEHIND:#x}" in _named(_frames("stack", ended.document)), ended.err
    assert (tmp_path / "store" / crash.place).read_bytes() == crash.pdb


def test_a_share_alone_is_something_to_ask(crash: _Crash, tmp_path: Path) -> None:
    """On this system the path is a local one that begins with two slashes."""
    share = f"/{_put(tmp_path / 'share', crash)}"
    words = "stack", crash.sources["dump"], "--json", "--symbols", f"srv*{tmp_path / 'store'}*{share}"
    without, with_leave = call(*words), call(*words, "--download")
    assert "ReadBuffer" not in without.out and "asked only with --download" in without.err
    assert f"mydrv!ReadBuffer+{_BEHIND:#x}" in _named(_frames("stack", with_leave.document)), with_leave.err


def _both(path: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[Ended, Ended]:
    by_option = call(*words, "--symbols", path)
    monkeypatch.setenv(_VARIABLE, path)
    return by_option, call(*words)


def test_a_mistake_is_an_error_of_the_command_and_a_note_of_the_environment(
    crash: _Crash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"web*/a;{_put(tmp_path, crash)}"
    by_option, by_variable = _both(path, monkeypatch, "stack", crash.sources["snapshot"], "--json")
    assert (by_option.code, by_option.out) == (2, "")
    assert by_option.last.startswith("kdbridge: 'web*/a' in the symbol path: ")
    assert by_variable.code == 0
    assert by_variable.err.startswith("'web*/a' in the symbol path: ")
    assert by_variable.err.splitlines()[0].endswith(f"; this part of {_VARIABLE} is passed over")
    assert f"mydrv!ReadBuffer+{_BEHIND:#x}" in _named(_frames("stack", by_variable.document)), "the rest is used"


def test_a_download_from_nowhere_is_told_before_the_target_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    for ended in _both("/nowhere", monkeypatch, "analyze", sim(), "--download"):
        assert (ended.code, ended.out, ended.machines) == (2, "", ())
        assert "--download needs a symbol server or a folder on another machine" in ended.last


def test_an_image_that_cannot_say_which_file_is_its_own_is_noted(crash: _Crash, tmp_path: Path) -> None:
    """A small dump has an image's headers, and not the page with the name of its symbol file."""
    assert crash.small.read_bytes().find(b"mydrv.pdb\0") == -1
    ended = call("stack", crash.small, "--symbols", _put(tmp_path, crash))
    assert "ReadBuffer" not in ended.out
    assert "symbols of mydrv.sys: what file has them cannot be read (" in ended.err
