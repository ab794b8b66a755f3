"""kdbridge analyze: the same answer from a target, a dump and a Snapshot, the truth, and nothing read twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import kdbridge.cli.analysing
from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.reading import ReadOnce
from kdbridge.errors import TargetLostError
from kdbridge.snapshot import Snapshot
from protocol.address import format_address
from tests.kdbridge.analysis.schema import differences
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.watched import watched

_OF_THE_SOURCE = ("source", "bytes_read", "coverage", "missing", "console")
"""What may differ between a machine and what was brought home of it."""


def _common(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _OF_THE_SOURCE}


def test_target_dump_and_snapshot_give_one_answer(home: Home) -> None:
    live, complete, snapshot = (
        call("analyze", source, "--json").document for source in (sim(), home.complete, home.snapshot)
    )
    assert _common(live) == _common(complete) == _common(snapshot)
    assert live["coverage"] is None and complete["coverage"]["held"] == snapshot["coverage"]["held"]


def test_it_tells_the_truth(home: Home) -> None:
    kernel = home.kernel
    text = call("analyze", home.small).out
    code, *parameters = kernel.bug_check
    assert text.startswith(f"DRIVER_IRQL_NOT_LESS_OR_EQUAL ({code:x})\n")
    assert f"      1  {format_address(parameters[0])}" in text and f"      4  {format_address(parameters[3])}" in text
    for module in kernel.modules:
        name = module.path.rpartition("\\")[2]
        assert re.search(rf"^[ !*] {format_address(module.base)} +{module.size:x} {module.time_date_stamp:08x}  {name}",
                         text, re.MULTILINE)  # fmt: skip
    for gone in kernel.unloaded_modules:
        assert re.search(rf"^  {format_address(gone.start)} .* {gone.name}$", text, re.MULTILINE)
    assert kernel.build_lab in text


def test_the_document_is_the_documented_one_and_alone_on_stdout(home: Home) -> None:
    for source in (sim(), home.complete, sim("breakpoint"), sim("no-physical-reads")):
        assert differences(call("analyze", source, "--json").document, "document", "document") == []


def test_nothing_is_read_twice_and_nothing_is_touched() -> None:
    with watched() as reads:
        ended = call("analyze", sim(), "--json")
    assert reads.twice == []
    assert reads.bytes == ended.document["bytes_read"]
    assert list(ended.machine.target.machine.touched) == []


def test_what_was_read_stays_and_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "kept.snapshot"
    with watched() as reads:
        live = call("analyze", sim(), "--json", "--snapshot", folder)
    assert f"are kept in {folder}; `kdbridge analyze {folder}` analyses what is there" in live.last
    with Snapshot.open(folder) as snapshot:
        assert snapshot.pieces[1] == reads.bytes
    again = call("analyze", folder, "--json")
    assert _common(live.document) == _common(again.document)
    assert [one["what"] for one in live.document["missing"]] == [one["what"] for one in again.document["missing"]]
    assert (live.code, again.machines) == (again.code, ())


def test_prints_that_came_before_are_kept_too(tmp_path: Path) -> None:
    folder = tmp_path / "kept.snapshot"
    live = call("analyze", sim("bugcheck-attached"), "--json", "--snapshot", folder).document
    assert live["console"] and call("analyze", folder, "--json").document["console"] == live["console"]


def test_brief_is_the_beginning_of_it() -> None:
    brief, whole = call("analyze", sim(), "--brief"), call("analyze", sim())
    first = brief.out.partition("\n\nwhat could not be determined")[0].rstrip("\n")
    assert whole.out.startswith(first) and len(whole.out) > 2 * len(first)


def test_a_page_is_written_once(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    ended = call("analyze", home.complete, "--brief", "--html", path)
    assert ended.last == f"page written to {path}"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "DRIVER_IRQL_NOT_LESS_OR_EQUAL" in page.replace("<wbr>", "")
    again = call("analyze", sim(), "--html", path)
    assert (again.code, again.out, again.machines) == (5, "", ())
    assert again.last == f"kdbridge: {path} exists already; --force overwrites it"
    assert path.read_text(encoding="utf-8") == page
    assert call("analyze", home.small, "--brief", "--html", path, "--force").last == f"page written to {path}"
    assert path.read_text(encoding="utf-8") != page
    nowhere = call("analyze", home.complete, "--brief", "--html", tmp_path / "no" / "page.html")
    assert nowhere.code == 5 and "cannot be written" in nowhere.last


def test_a_snapshot_is_of_a_target_and_into_a_new_folder(home: Home, tmp_path: Path) -> None:
    ended = call("analyze", home.complete, "--snapshot", tmp_path / "new")
    assert (ended.code, ended.out) == (2, "") and "is no target: --snapshot keeps" in ended.last
    ended = call("analyze", sim(), "--snapshot", tmp_path)
    assert (ended.code, ended.machines) == (5, ()) and "The target was not touched." in ended.last


def test_a_page_has_everything_and_is_never_the_source(home: Home, tmp_path: Path) -> None:
    brief, whole = tmp_path / "brief.html", tmp_path / "whole.html"
    call("analyze", home.complete, "--brief", "--html", brief)
    call("analyze", home.complete, "--html", whole)
    assert brief.read_bytes() == whole.read_bytes()
    dump, link = tmp_path / "copy.dmp", tmp_path / "link.dmp"
    dump.write_bytes(home.small.read_bytes())
    link.hardlink_to(dump)
    for path in (dump, link):
        ended = call("analyze", dump, "--html", path, "--force")
        assert (ended.code, ended.out, ended.last) == (5, "", f"kdbridge: {path} is the source itself")
    assert dump.read_bytes() == home.small.read_bytes()


def test_a_short_document_says_that_it_is_one(home: Home) -> None:
    brief, whole = (call("analyze", home.complete, "--json", *more).document for more in (["--brief"], []))
    assert (brief["extent"], whole["extent"]) == ("first screen", "all")
    assert differences(brief, "document", "document") == []
    for part in ("stacks", "processes", "coverage", "print_buffer"):
        assert brief[part] is None and whole[part], part


def test_a_machine_that_nobody_crashed_is_told_of() -> None:
    ended = call("analyze", sim("breakpoint"), "--brief")
    assert ended.out.startswith("no bug check: STATUS_BREAKPOINT")
    assert "\nbucket       NO_BUGCHECK_" in ended.out


def test_a_break_in_is_no_breakpoint_live_or_at_home(tmp_path: Path) -> None:
    path = tmp_path / "running.dmp"
    assert call("dump", sim("running"), path, "--kind", "kernel", "--break-in").code == 0
    assert "\nstopped by a break-in\n" in call("info", path).out
    assert call("analyze", path, "--brief").out.startswith("no bug check: stopped by a break-in\n")
    document = call("analyze", path, "--json", "--brief").document
    assert (document["bug_check_known"], document["bug_check"]) == (True, None)
    assert document["stopped_by"] == "a break-in"


def test_what_nobody_knows_is_not_told_as_none(home: Home, tmp_path: Path) -> None:
    """A Snapshot of a machine whose KiBugCheckData could not be read."""
    folder = tmp_path / "unknown.snapshot"
    shutil.copytree(home.snapshot, folder)
    told = json.loads((folder / "target.json").read_text())
    told["bug_check_code"] = None
    (folder / "target.json").write_text(json.dumps(told))
    text = call("analyze", folder, "--brief").out
    assert text.startswith("whether there was a bug check is not known") and "\nbucket       UNKNOWN_" in text
    document = call("analyze", folder, "--json", "--brief").document
    assert (document["bug_check_known"], document["bug_check"]) == (False, None)
    named = call("triage-name", folder)
    assert named.code == 1 and named.out.startswith("UNKNOWN_")
    assert named.last.endswith("whether there was a bug check is not known")


def test_who_waits_for_a_line_learns_which_process_died() -> None:
    ended = call("analyze", sim("bugcheck-ef"))
    machine = ended.machine.kernel
    process = next(one for one in machine.processes if one.address == machine.bug_check[1])
    assert f": process {process.name}, id {process.process_id}\n" in ended.out


def test_what_is_wrong_with_the_file_stands_first(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "cut.dmp"
    path.write_bytes(home.small.read_bytes()[:1_500_000])
    page = tmp_path / "cut.html"
    ended = call("analyze", path, "--json", "--html", page)
    first = ended.document["missing"][0]
    assert ended.code == 1 and first["what"] == "the file" and "was cut off" in first["why"]
    assert first["why"] in ended.err and "was cut off" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("at", ["first", "all"])
def test_ctrl_c_keeps_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Interrupted in either part, what is kept is what was read, and can be analysed."""
    folder = tmp_path / "kept.snapshot"
    analyst = Analyst
    part = getattr(analyst, at)

    async def interrupted(self: Any) -> Any:
        result = await part(self)
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):  # until the signal is there
            await trio.sleep(0.01)
        return result

    monkeypatch.setattr(analyst, at, interrupted)
    with watched() as reads:
        ended = call("analyze", sim(), "--snapshot", folder)
    assert ended.code == 130
    assert re.fullmatch(
        rf"kdbridge: interrupted; \d+ pieces \(.+\) are kept in {re.escape(str(folder))}; `kdbridge analyze .*",
        ended.last,
    )
    with Snapshot.open(folder) as snapshot:
        assert snapshot.pieces[1] == reads.bytes
    monkeypatch.undo()
    assert call("analyze", folder, "--brief").out.startswith("DRIVER_IRQL_NOT_LESS_OR_EQUAL (d1)\n")
    modules = call("modules", folder, "--json").document
    names, missing = {one["name"] for one in modules["modules"]}, {one["what"] for one in modules["missing"]}
    assert {"ntoskrnl.exe", "mydrv.sys"} <= names
    # Of those that the first screen did not need names were not read yet.
    assert ("names of modules" in missing) == ("<name not readable>" in names) == (at == "first")


def test_a_first_screen_names_only_what_it_needs_but_what_it_keeps_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "kept.snapshot"
    ended = call("analyze", sim(), "--brief", "--json")
    kernel = ended.machine.kernel
    names = {int(one["base"], 16): one["name"] for one in ended.document["modules"]}
    needed = {frame["place"]["module"] for frame in ended.document["stack"]["frames"]}
    assert list(names) == [one.base for one in kernel.modules]
    for one in kernel.modules:
        assert names[one.base] == (one.file_name if one.name in needed else None), one.name
    assert differences(ended.document, "document", "document") == []
    assert "<name" not in ended.out
    # What is kept is for later, when the target can be asked no more.
    call("analyze", sim(), "--brief", "--snapshot", folder)
    modules = call("modules", folder, "--json").document["modules"]
    assert [one["name"] for one in modules] == [one.file_name for one in kernel.modules]


def test_what_was_read_of_a_machine_that_went_away_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kept.snapshot"

    async def lost(self: Any) -> None:
        raise TargetLostError("the target no longer answers")

    monkeypatch.setattr(Analyst, "all", lost)
    ended = call("analyze", sim(), "--snapshot", folder)
    assert (ended.code, ended.last) == (4, "kdbridge: the target no longer answers")
    assert f"are kept in {folder}; `kdbridge analyze {folder}` analyses what is there" in ended.err
    monkeypatch.undo()
    assert call("analyze", folder, "--brief").out.startswith("DRIVER_IRQL_NOT_LESS_OR_EQUAL (d1)\n")


def test_ctrl_c_before_anything_is_known_keeps_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept.snapshot"

    async def interrupted(reading: ReadOnce, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            await trio.sleep(0.01)

    monkeypatch.setattr(kdbridge.cli.analysing, "discover", interrupted)
    ended = call("analyze", sim(), "--snapshot", folder)
    assert (ended.code, ended.last) == (130, "kdbridge: interrupted")
    assert not folder.exists()


def test_symbol_paths_that_are_none_are_told(home: Home) -> None:
    ended = call("analyze", home.complete, "--symbols", "what*is*this")
    assert (ended.code, ended.out) == (2, "") and "parts with an asterisk begin with" in ended.last
    ended = call("analyze", home.complete, "--download")
    assert ended.code == 2 and "--download needs a symbol server" in ended.last


@pytest.mark.slow
def test_over_a_slow_line_the_first_screen_comes_soon() -> None:
    """At 115200 baud, in the line's own time: the first screen within 15 s, all of it within 120 s."""
    for options, most in ((("--brief",), 15), ((), 120)):
        with watched() as reads:
            ended = call("analyze", sim(baud=115200, processors=4, memory="64M"), *options)
        assert ended.code in (0, 1), ended.err
        assert ended.seconds < most, f"{ended.seconds:.1f} s, {reads.bytes} bytes"
        assert ended.seconds > reads.bytes / 11520, "the line was slow"
        assert reads.twice == []
