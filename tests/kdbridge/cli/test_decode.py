"""kdbridge decode: a conversation that a person can read, and what could not be opened, with exit code 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdbridge.capture import CaptureWriter
from tests.kdbridge.cli.calling import call, program
from tests.recording import read_chunks


@pytest.fixture
def capture(shared: Path) -> Path:
    return shared / "data/kdnet/windbg-uncut.pcapng.gz"


@pytest.fixture
def line(shared: Path, tmp_path: Path) -> Path:
    path = tmp_path / "line.pcapng"
    writer = CaptureWriter(path, name="line")
    for chunk in read_chunks(shared):
        writer.serial(1_000_000_000 + chunk.at, chunk.from_host, chunk.data)
    writer.close()
    return path


def test_the_real_capture_is_decoded(capture: Path) -> None:
    ended = call("decode", capture, "--key", "8.8.8.8")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == f"{capture}: from 2016-01-24 10:36:11.474228 UTC"
    assert lines[18] == "    0.021466 → 80000004 ReadVirtual fffff801`7bc49e30 88h"
    assert lines[20] == "    0.021507 ← 00000008 ReadVirtual fffff801`7bc49e30 88h → 88h bytes"
    assert lines[199] == "    0.543656 → 8000005e GetContext, processor 0  [retransmission: the same packet again]"
    assert len(lines) == 1 + 955 + 6
    # kdnet 7 has these numbers.
    assert lines[956] == "955 packets in 1289.050 s: 263 to the target, 692 to the host"
    assert lines[957].startswith("  Poke 427, Acknowledge 259, Manipulate 187, FileIo 66, DebugIo 7, StateChange 3")
    assert lines[958].startswith("  ReadVirtualMemory 44, CreateFile 33, RestoreBreakPoint 32")
    assert lines[959:] == [
        "  authenticated: 955 of 955 datagrams, 1 session",
        "  between 192.168.2.1:51111 and 192.168.2.72:51111",
        "  odd: retransmission 3, unacknowledged 1",
    ]


def test_a_wrong_key_and_none_are_told(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = call("decode", capture, "--key", "8.8.8.9")
    assert (ended.code, ended.last) == (1, "kdbridge: the key is wrong: none of 955 datagrams authenticates with it")
    assert "  authenticated: 0 of 955 datagrams\n" in ended.out
    ended = call("decode", capture)
    assert ended.code == 1
    assert ended.last == (
        "kdbridge: 955 datagrams are encrypted; give the key of the target with --key, --keyfile, or in KDBRIDGE_KEY"
    )
    assert "datagram of 374 bytes, a poke by its size" in ended.out
    ended = call("decode", capture, "--key", "8.8.8")
    assert (ended.code, ended.out) == (2, "")
    assert ended.last == "kdbridge: a key has 4 parts with dots between, such as 1.2.3.4, not 3 (--key)"


def test_the_key_may_be_kept_elsewhere(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "key"
    kept.write_text("8.8.8.8\n")
    kept.chmod(0o600)
    ended = call("decode", capture, "--keyfile", kept)
    assert (ended.code, ended.err) == (0, "")
    assert call("decode", capture, "--keyfile", kept, "--key", "8.8.8.8").code == 2
    ended = call("decode", capture, "--keyfile", tmp_path / "none")
    assert ended.code == 5 and ended.last.endswith("none cannot be read: No such file or directory")
    monkeypatch.setenv("KDBRIDGE_KEY", "8.8.8.8")
    assert call("decode", capture).code == 0


def test_a_script_gets_one_document_without_secrets(capture: Path) -> None:
    ended = call("decode", capture, "--key", "8.8.8.8", "--json")
    document = ended.document
    assert len(document["packets"]) == 955
    read = document["packets"][19]
    assert (read["id"], read["api"], read["reply"], read["status"]) == (8, "ReadVirtualMemory", True, 0)
    assert read["fields"] == {"address": 0xFFFFF8017BC49E30, "transfer_count": 0x88, "actual_bytes": 0x88}
    assert len(bytes.fromhex(read["payload"])) == 56 + 0x88
    assert document["summary"]["authenticated"] == 955 and document["summary"]["odd"] == {
        "retransmission": 3, "unacknowledged": 1,
    }  # fmt: skip
    # kdnet 4.2: whoever has the host's key and the control key has the session.
    assert "41b4fa1b2ddd14ee" not in ended.out and "payload" not in document["packets"][1]


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        (["odd"], 4),
        (["odd=unacknowledged"], 1),
        (["api=readvirtual"], 88),
        (["api=ReadVirtual", "dir=host"], 44),
        (["api=CreateFile,PrintString", "dir=host"], 40),
        (["type=StateChange"], 3),
        (["type=poke,response"], 428),
        (["dir=target"], 263),
    ],
)
def test_a_filter_shows_what_fits(capture: Path, terms: list[str], shown: int) -> None:
    words = [word for term in terms for word in ("--filter", term)]
    ended = call("decode", capture, "--key", "8.8.8.8", "--json", *words)
    assert len(ended.document["packets"]) == shown
    assert ended.document["summary"]["packets"] == 955, "what is counted is all of it"


@pytest.mark.parametrize("term", ["", "odd=", "odd=strange", "type=x", "dir=up", "api=", "colour=red", "read"])
def test_a_filter_that_makes_no_sense_is_a_usage_error(capture: Path, term: str) -> None:
    ended = call("decode", capture, "--filter", term)
    assert (ended.code, ended.out) == (2, "") and ended.last.startswith(f"kdbridge: --filter {term}: ")


def test_a_serial_line_needs_no_key(line: Path) -> None:
    ended = call("decode", line)
    assert (ended.code, ended.err) == (0, "")
    assert "626 packets in " in ended.out and "authenticated" not in ended.out
    assert "  odd: retransmission 1\n" in ended.out


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(line: Path) -> None:
    line.write_bytes(line.read_bytes()[:-3])
    ended = call("decode", line)
    assert ended.code == 0
    assert ended.last == f"kdbridge: {line} was cut off: it ends in the middle of a frame"


def test_what_is_no_capture_is_a_file_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    ended = call("decode", path)
    assert (ended.code, ended.out) == (5, "")
    assert ended.last == f"kdbridge: {path} is no capture: it begins with neither pcap's nor pcapng's mark"
    CaptureWriter(tmp_path / "empty.pcapng", name="line").close()
    ended = call("decode", tmp_path / "empty.pcapng")
    assert (ended.code, ended.out) == (1, "")
    assert ended.last == (
        f"kdbridge: {tmp_path}/empty.pcapng: nothing of a kernel debugger is in it, "
        "neither serial bytes nor KDNET's datagrams"
    )


def test_the_program_does_it_too(line: Path) -> None:
    ended = program("decode", line, "--filter", "type=StateChange")
    assert ended.code == 0 and ended.out.count("stopped: STATUS_BREAKPOINT (80000003)") == 2


def test_verbs_that_read_no_capture_do_not_wait_for_scapy() -> None:
    code = "import sys, kdbridge.cli, kdbridge.cli.main; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
