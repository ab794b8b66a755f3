"""A real Windows crash before Microsoft's engine: written again it shows the same, and attached to it, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.dumpfile import parse_header
from protocol.dumpfile.triage import encode_triage, parse_triage
from tests.dumps import reader
from tests.kdbridge.cli.calling import served
from tests.referee import Kdexec, Transcript, parse
from tests.simulator.small_dumped import contents_of

pytestmark = pytest.mark.referee

_PROCESSORS = 16
_NO_THREAD = "Unable to read KTHREAD address"
"""Of other processors no thread is in a small dump; the engine says so only of a machine on a line."""


@pytest.fixture(scope="module")
def dumps(shared: Path) -> Path:
    return shared / "data" / "dumps"


@pytest.mark.parametrize("name", ["triage_x64", "triage_arm64", "dbgeng-written/triage_type4_comment"])
def test_a_small_dump_taken_apart_and_written_again_shows_the_same(
    kdexec: Kdexec, dumps: Path, tmp_path: Path, name: str
) -> None:
    path, again = dumps / f"{name}.dmp", tmp_path / "again.dmp"
    data = path.read_bytes()
    header = parse_header(data[:0x2000])
    layout = parse_triage(reader(data), header, len(data))
    again.write_bytes(b"".join(encode_triage(header, contents_of(layout, data), data[layout.fields["size_of_dump"] :])))
    others = [f"~{number}s;r;k" for number in range(header.number_processors)]
    ask = (".bugcheck", "vertarget", "r", "k", "lm", ".thread", ".process", ".enumtag", *others)
    before, after = parse(kdexec("-z", path, *ask)), parse(kdexec("-z", again, *ask))
    assert len(before["lm"].lines) > len(layout.drivers)
    assert [answer.text for answer in after.answers] == [answer.text for answer in before.answers]
    assert _said(after) == _said(before)


def _said(transcript: Transcript) -> list[str]:
    """What was printed while opening, without the file's name, and without how many milliseconds a folder took."""
    lines = [line for line in transcript.opening.splitlines() if "Loading Dump File" not in line]
    return [re.sub(r"^Error +\d* +(?=C:)", "Error ", line) for line in lines]


def test_the_engine_attached_to_a_real_crash_sees_what_it_sees_in_the_file(kdexec: Kdexec, dumps: Path) -> None:
    path = dumps / "triage_x64.dmp"
    others = [f"~{number}s;r" for number in range(1, _PROCESSORS)]
    ask = (".reload", "r", "k", "lm", ".bugcheck", *others)
    with served(str(path), "--on", "tcp:127.0.0.1:0") as machine:
        connection = f"com:port=127.0.0.1,ipport={machine.url.rpartition(':')[2]}"
        attached = parse(kdexec("-k", connection, *ask))
    opened = parse(kdexec("-z", path, *ask))
    for command in ("r", "k", "lm", ".bugcheck"):
        assert attached[command].text == opened[command].text, command
    for command in others:
        assert _registers(attached, command) == _registers(opened, command)
        assert any(line.startswith("rip=") for line in _registers(opened, command))


def _registers(transcript: Transcript, command: str) -> list[str]:
    talk = (_NO_THREAD, "WARNING: Unable to reset page directories")
    return [line for line in transcript[command].lines if not line.startswith(talk)]
