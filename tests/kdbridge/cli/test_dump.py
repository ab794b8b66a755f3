"""kdbridge dump: what is in the file, what is said about it, and what is told to be impossible from the start."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.dumpfile.header import DumpType
from simulator.scenarios import RunningScenario
from simulator.target import Activity
from tests.kdbridge.cli.calling import Ended, call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.limits import no_file_longer_than, no_longer


def _assert_left_alone(ended: Ended) -> None:
    target = ended.machine.target
    assert (list(target.machine.touched), target.lives) == ([], 1)
    # The acknowledge of its last answer is the last that was written; nobody here carries it over.
    assert target.activity in (Activity.WAITING, Activity.REPLYING)
    assert target.machine.memory.digest() == ended.machine.pristine.digest()


def _assert_true(dump: Path, machine: RunningScenario) -> None:
    """Every page of the file is the machine's, but where registers were laid over it."""
    with DumpFile(dump) as opened:
        pages = list(opened.held.pages())
        differing = [pfn for pfn in pages if opened.page(pfn) != machine.pristine.read_page(pfn)]
    assert len(pages) > 600
    assert len(differing) <= len(machine.kernel.processors)


@pytest.mark.parametrize(
    ("kind", "layout", "dump_type"),
    [
        ("complete", "runs", DumpType.FULL),
        ("complete", "bitmap", DumpType.BITMAP_FULL),
        ("kernel", "auto", DumpType.BITMAP_KERNEL),
    ],
)
def test_each_kind_and_layout_is_what_it_is_called(tmp_path: Path, kind: str, layout: str, dump_type: DumpType) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(), out, "--kind", kind, "--layout", layout, "--json")
    assert ended.code == 0
    with DumpFile(out) as dump:
        assert dump.layout.kind is dump_type
        assert dump.layout.header.bug_check_code == ended.machine.kernel.bug_check[0]
        pages = dump.held.page_count
    document = ended.document
    assert document["path"] == str(out)
    assert (document["dump_type"], document["size"], document["pages"]) == (dump_type, out.stat().st_size, pages)
    assert (document["unreadable"], document["missing"], document["shortcomings"]) == (0, 0, [])
    assert int(document["target"]["bug_check_code"], 16) == ended.machine.kernel.bug_check[0]
    _assert_true(out, ended.machine)
    _assert_left_alone(ended)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.dmp"], "nothing else is left behind"


def test_who_and_why_is_told_before_anything_is_read_and_what_to_type_next_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "my machine.dmp"
    ended = call("dump", sim(), out, "--kind", "kernel")
    said = ended.err.splitlines()
    assert (ended.code, ended.out) == (0, "")
    assert said[0] == f"listening on {sim()}"
    reading = said.index(f"reading a kernel dump into {out}.snapshot")
    assert any(line.startswith("found Windows 10.0 build 19041 free x64, 2 processors") for line in said[:reading])
    assert any(line.startswith("bug check 0xd1 DRIVER_IRQL_NOT_LESS_OR_EQUAL") for line in said[:reading])
    pages = next(int(found[1]) for line in said if (found := re.search(r", (\d+) pages, verified$", line)))
    with DumpFile(out) as dump:
        assert pages == dump.held.page_count
    command = re.fullmatch(r"next: (.+)   or, on Windows: .+", said[-1])
    assert command is not None
    assert shlex.split(command[1]) == ["kdbridge", "analyze", str(out)]
    # This machine has no lists of threads, which is named: exit code 1.
    why = call(*shlex.split(command[1])[1:])
    assert why.out.startswith("DRIVER_IRQL_NOT_LESS_OR_EQUAL (d1)\n") and why.code in (0, 1)
    assert said[-2] == "the machine is left as it was found: stopped"


def test_a_comment_is_in_the_dump(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    text = "rack 7, [second] row; 100 % " + "x" * 99
    assert len(text) == 127
    assert call("dump", sim(), out, "--kind", "kernel", "--comment", text).code == 0
    with DumpFile(out) as dump:
        assert dump.layout.header.comment == text
    assert out.read_bytes()[0xFB0 : 0xFB0 + 128] == text.encode() + b"\0"


@pytest.mark.parametrize("comment", ["x" * 128, "Grüße", "two\nlines"])
def test_a_comment_that_a_dump_has_no_room_for_is_told_first(tmp_path: Path, comment: str) -> None:
    ended = call("dump", sim(), tmp_path / "out.dmp", "--comment", comment)
    assert (ended.code, ended.machines) == (2, ())
    assert ended.last == "kdbridge: --comment: a dump has room for 127 characters of plain ASCII"


def test_a_snapshot_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    out, folder = tmp_path / "out.dmp", tmp_path / "deep" / "down"
    ended = call("dump", sim("bugcheck-attached"), out, "--kind", "kernel", "--keep-snapshot", folder)
    assert ended.code == 0
    assert f"the Snapshot is in {folder}\n" in ended.err
    with Snapshot.open(folder) as snapshot:
        assert snapshot.held.page_count > 600
        for pfn in snapshot.held.pages():
            assert snapshot.page(pfn) == ended.machine.pristine.read_page(pfn)
        assert b"*** Fatal System Error: 0x000000d1" in snapshot.console_text
    assert "*** Fatal System Error: 0x000000d1" in ended.err
    assert not (tmp_path / "out.dmp.snapshot").exists()


def test_pages_that_a_machine_refuses_are_counted_and_the_exit_code_is_1(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(unreadable=3), out, "--json")
    refused = ended.machine.pristine.unreadable
    assert len(refused) == 3
    assert (ended.code, ended.document["unreadable"]) == (1, 3)
    assert "3 pages could not be read; the Snapshot's log lists them\n" in ended.err
    with DumpFile(out) as dump:
        assert set(dump.unreadable.pages()) == refused
    log = (tmp_path / "out.dmp.snapshot" / "requests.log").read_text()
    for pfn in refused:
        assert f"page {pfn:#x} is unreadable: " in log


# ---- what is there already, and what cannot be --------------------------------------------------------------


def test_a_file_that_is_there_is_not_overwritten_unless_told_to(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    out.write_text("mine")
    ended = call("dump", sim(), out, "--kind", "kernel")
    assert (ended.code, ended.machines, out.read_text()) == (5, (), "mine")
    assert ended.err == f"kdbridge: {out} exists already; --force overwrites it. The target was not touched.\n"
    ended = call("dump", sim(), out, "--kind", "kernel", "--force")
    assert ended.code == 0
    _assert_true(out, ended.machine)


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    out, folder = tmp_path / "out.dmp", tmp_path / "out.dmp.snapshot"
    folder.mkdir()
    ended = call("dump", sim(), out, "--force")
    assert (ended.code, ended.machines, list(folder.iterdir())) == (5, (), [])
    assert ended.err == (
        f"kdbridge: {folder} exists already and is no Snapshot: remove it, or name another folder with "
        "--keep-snapshot. The target was not touched.\n"
    )


def test_a_place_where_no_file_can_be_is_told_before_the_machine_is_asked(tmp_path: Path) -> None:
    for out, why in (
        (tmp_path, f"{tmp_path} is a folder; name the file that is to be written"),
        (tmp_path / "no" / "x.dmp", f"{tmp_path}/no/x.dmp cannot be written: there is no folder {tmp_path}/no"),
        (Path("/dev/null/x.dmp"), "/dev/null/x.dmp cannot be written: Not a directory"),
    ):
        ended = call("dump", sim(), out, "--force", "--keep-snapshot", tmp_path / "snapshot")
        assert (ended.code, ended.machines) == (5, ())
        assert ended.err == f"kdbridge: {why}. The target was not touched.\n"
    ended = call("dump", sim(), tmp_path / "x", "--keep-snapshot", tmp_path / "x")
    assert (ended.code, ended.machines) == (2, ())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def readonly(tmp_path: Path) -> None:
    (tmp_path / "readonly").mkdir(mode=0o555)


def test_a_folder_that_may_not_be_written_is_told_before_the_machine_is_asked(readonly: None, nobody: None) -> None:
    ended = call("dump", sim(), "readonly/x.dmp")
    assert (ended.code, ended.machines) == (5, ())
    assert ended.err == ("kdbridge: readonly/x.dmp cannot be written: Permission denied. The target was not touched.\n")


def test_a_layout_that_cannot_hold_the_machine_is_told_before_a_page_is_read(tmp_path: Path) -> None:
    pages: list[int] = []
    ended = call("dump", sim("many-runs"), tmp_path / "x.dmp", "--layout", "runs", on_page=pages.append)
    assert (ended.code, pages, list(tmp_path.iterdir())) == (2, [], [])
    assert ended.last == (
        "kdbridge: --layout runs has room for 42 runs of memory, and this machine has 60; "
        "--layout bitmap (or auto) takes them. No page was read."
    )
    ended = call("dump", sim(), tmp_path / "x.dmp", "--layout", "runs", "--kind", "kernel")
    assert (ended.code, ended.machines) == (2, ())
    assert ended.last == ("kdbridge: --layout runs is for complete dumps: a kernel dump is always a bitmap (type 6)")


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_read_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    with no_file_longer_than(1 << 30):
        # The disk is full after some seconds.
        ended = call("dump", sim(baud=921600), out, on_page=lambda count: no_longer(1 << 20) if count == 1000 else None)
    folder = tmp_path / "out.dmp.snapshot"
    assert ended.code == 5
    said = re.fullmatch(
        rf"kdbridge: {folder} cannot be written: File too large. What is in it stays; about ([\d.]+) MiB more are "
        rf"needed to read all, and room for the dump. When there is, `kdbridge resume {out}` goes on",
        ended.last,
    )
    assert said is not None, ended.last
    missing = ended.machine.kernel.image.runs.page_count - 1000 << 12
    assert float(said[1]) == pytest.approx(missing / (1 << 20), rel=0.05)
    assert re.search(rf"^\d+ pages \(.*\) are kept in {folder}; `kdbridge resume ", ended.err, re.MULTILINE)
    with Snapshot.open(folder) as snapshot:
        held = list(snapshot.held.pages())
        assert 900 < len(held) <= 1000
        assert all(snapshot.page(pfn) == ended.machine.pristine.read_page(pfn) for pfn in held)
    assert not out.exists()
    _assert_left_alone(ended)


# ---- a dry run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pytest.param("complete", marks=pytest.mark.slow), "kernel"])
def test_a_dry_run_writes_nothing_and_knows_what_would_come(home: Home, tmp_path: Path, kind: str) -> None:
    baud = 115200
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(baud=baud), out, "--kind", kind, "--dry-run", "--json")
    assert (ended.code, list(tmp_path.iterdir())) == (0, [])
    document = ended.document
    dump = home.complete if kind == "complete" else home.small
    with DumpFile(dump) as opened:
        assert document["pages"] == opened.held.page_count
    assert (document["kind"], document["bytes"]) == (kind, document["pages"] * 4096)
    # Ten bits of the line are one byte, and requests, headers and acknowledges are no payload.
    assert 0.5 * baud / 10 < document["bytes_per_second"] <= baud / 10
    assert document["seconds"] == pytest.approx(document["bytes"] / document["bytes_per_second"], rel=0.02)
    assert int(document["target"]["bug_check_code"], 16) == 0xD1
    _assert_left_alone(ended)


@pytest.mark.slow
def test_a_dry_run_does_not_mind_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    out.write_text("mine")
    ended = call("dump", sim(baud=115200), out, "--dry-run")
    assert ended.code == 0 and out.read_text() == "mine"
    kinds = re.findall(r"^ *(\w+): +(\d+) pages, +[\d.]+ .iB, about (.+?)(?:  <- asked for)?$", ended.out, re.MULTILINE)
    assert [kind for kind, _, _ in kinds] == ["small", "kernel", "active", "complete"]
    assert kinds[-1][1] == "3998" and re.fullmatch(r"\d+ min( \d+ s)?", kinds[-1][2])
