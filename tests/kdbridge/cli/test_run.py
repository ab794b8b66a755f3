"""What a machine prints is shown as it comes and kept; nothing of it, nor of a file's name, steers a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbridge.snapshot import Snapshot
from simulator.scenarios import RunningScenario
from simulator.target import Print
from tests.kdbridge.cli.calling import call, sim

_EVIL = b"\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\x00 caf\xc3\xa9 \xff \xe2\x80\xae" + b"after\r\n"


def _says(*texts: bytes) -> Callable[[RunningScenario], None]:
    def prepare(running: RunningScenario) -> None:
        running.target.script.extendleft(Print(text) for text in reversed(texts))

    return prepare


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("breakpoint", "mydrv: queue is up\n"),
        ("bugcheck-attached", "KDTARGET: Refreshing KD connection\n\n*** Fatal System Error: 0x000000d1\n"),
    ],
)
def test_prints_are_shown_as_they_come_and_kept(tmp_path: Path, scenario: str, text: str) -> None:
    folder = tmp_path / "snapshot"
    ended = call("dump", sim(scenario), tmp_path / "out.dmp", "--kind", "kernel", "--keep-snapshot", folder)
    assert ended.code == 0
    assert 0 < ended.err.index(text) < ended.err.index("found Windows ")
    assert text.encode() in (folder / "console.txt").read_bytes()
    with Snapshot.open(folder) as snapshot:
        assert text.encode() in snapshot.console_text


def test_prints_cannot_steer_the_terminal_and_are_kept_to_the_byte(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    ended = call(
        "dump", sim("breakpoint"), tmp_path / "out.dmp", "--kind", "kernel", "--keep-snapshot", folder,
        prepare=_says(_EVIL),
    )  # fmt: skip
    assert ended.code == 0
    assert ".]0;owned..[2J\ufffd31m... café \ufffd .after\n" in ended.err
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ended.err) == []
    assert _EVIL in (folder / "console.txt").read_bytes()


def test_prints_of_many_lines_and_none_stay_what_they_are() -> None:
    ended = call("info", sim("breakpoint"), prepare=_says(b"one\n\ttwo\r\n", b"", b"three", b"\n"))
    assert "one\n\ttwo\n" in ended.err and "three\n" in ended.err
    assert ended.code == 0


def test_what_a_machine_asks_for_is_told_and_declined() -> None:
    ended = call("info", sim("abandoned-prompt"))
    assert ended.code == 0
    assert (
        "the target asked this machine for the file '\\\\SystemRoot\\\\System32\\\\drivers\\\\mydrv.sys'; declined\n"
        in ended.err
    )
    assert "answered 'b' (break), so that it stays stopped\n" in ended.err


def test_a_folder_that_is_no_snapshot_and_a_snapshot_that_is_damaged_are_told_of(tmp_path: Path) -> None:
    for verb in ("info", "registers"):
        ended = call(verb, tmp_path)
        assert (ended.code, ended.out) == (5, "")
        assert (
            ended.err
            == f"kdbridge: {tmp_path} is a folder, but no Snapshot: target.json or coverage is missing in it\n"
        )
    for name in ("target.json", "coverage", "memory.raw"):
        (tmp_path / name).write_bytes(b"{}")
    ended = call("info", tmp_path)
    assert ended.code == 5 and str(tmp_path) in ended.last


@pytest.mark.parametrize("data", [b"", b"hello", b"PAGEDU64" + bytes(0x1000), bytes(0x4000), b"MDMP" + bytes(0x4000)])
def test_a_file_that_is_no_dump_is_told_of(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for words in (("info", path), ("registers", path), ("memory", path, "0", "10"), ("convert", path, tmp_path / "x")):
        ended = call(*words)
        assert (ended.code, ended.out) == (5, "")
        assert ended.err.startswith(f"kdbridge: {path} is not a dump that can be read: ") and ended.err.count("\n") == 1
