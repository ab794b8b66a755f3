"""kdbridge info: the same answer from a target, a dump and a Snapshot, and it is the truth."""

from __future__ import annotations

import pytest

from protocol.address import format_address
from simulator.scenarios import SCENARIOS
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home


def test_target_dump_and_snapshot_give_one_answer(home: Home) -> None:
    answers = [call("info", source) for source in (sim(), home.complete, home.small, home.snapshot)]
    assert [answer.code for answer in answers] == [0, 0, 0, 0]
    live, complete, small, snapshot = (answer.out for answer in answers)
    assert live == snapshot == complete == small
    assert [answer.err for answer in answers[1:]] == ["", "", ""]


def test_it_tells_the_truth(home: Home) -> None:
    kernel = home.kernel
    text = call("info", home.small).out
    code, *parameters = kernel.bug_check
    assert text.startswith("Windows 10.0 build 19041 free x64, 2 processors, 15.6 MiB of memory\n")
    assert f"  built as {kernel.build_lab}\n" in text
    assert f"bug check {code:#x} DRIVER_IRQL_NOT_LESS_OR_EQUAL" in text
    assert f"parameter 1: {format_address(parameters[0])}" in text
    assert "stopped by a bug check, at its end\n" in text
    for processor in kernel.processors:
        assert f"KPRCB {format_address(processor.prcb)}" in text
        assert f"rip {format_address(processor.context_values['rip'])}" in text
    for module in kernel.modules:
        assert (
            f"  {format_address(module.base)}  {module.size:8x}  {module.time_date_stamp:08x}  {module.path}\n" in text
        )
    for gone in kernel.unloaded_modules:
        assert f"  {format_address(gone.start)}  {gone.end - gone.start:8x}  {gone.name}\n" in text
    for run in kernel.image.runs:
        assert f"  {run.base_page << 12:#014x} - {run.end_page << 12:#014x}  " in text


def test_json_tells_the_same_and_nothing_else_is_on_stdout(home: Home) -> None:
    kernel = home.kernel
    live, stored, small = (call("info", source, "--json").document for source in (sim(), home.snapshot, home.small))
    assert live == stored
    for document in (live, small):
        assert document["schema"] == 1 and document["architecture"] == "x64"
        assert int(document["bug_check_code"], 16) == kernel.bug_check[0]
        assert tuple(int(word, 16) for word in document["bug_check_parameters"]) == kernel.bug_check[1:]
        assert document["bug_check"]["name"] == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
        assert [int(module["base"], 16) for module in document["modules"]] == [m.base for m in kernel.modules]
        assert [int(module["size"], 16) for module in document["modules"]] == [m.size for m in kernel.modules]
        assert [module["path"] for module in document["modules"]] == [m.path for m in kernel.modules]
        assert [int(p["prcb"], 16) for p in document["processors"]] == [p.prcb for p in kernel.processors]
        assert [[int(word, 16) for word in run] for run in document["runs"]] == [
            [run.base_page, run.page_count] for run in kernel.image.runs
        ]
        assert int(document["directory_table_base"], 16) == kernel.directory_table_base


def test_what_could_not_be_found_is_named_and_the_exit_code_is_1() -> None:
    ended = call("info", sim("no-physical-reads"))
    assert ended.code == 1
    assert ended.out.endswith(
        "what could not be found\n"
        "  physical memory: the target refuses physical reads; only what is mapped can be read\n"
    )


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "running"])
def test_every_stopped_machine_is_told_of_and_left_alone(name: str) -> None:
    ended = call("info", sim(name))
    assert ended.code in (0, 1) and ended.out.startswith("Windows ")
    assert list(ended.machine.target.machine.touched) == []
    assert ended.err.startswith(f"listening on {sim(name)}\na simulated machine: ")


def test_a_dump_that_was_cut_off_is_told_of(home: Home) -> None:
    half = home.folder / "half.dmp"
    half.write_bytes(home.small.read_bytes()[:1_000_000])
    ended = call("info", half)
    assert ended.code == 1
    assert f"{half}: the file was cut off: " in ended.err and "pages are not" in ended.err
    assert "what could not be found\n" in ended.out


def test_names_from_a_target_cannot_steer_the_terminal(home: Home) -> None:
    # The first letters of mydrv.sys, in the memory of the dump, become ESC ] 0 ; and a line break.
    data = home.complete.read_bytes()
    name = "mydrv.sys".encode("utf-16-le")
    assert name in data
    evil = home.folder / "evil.dmp"
    evil.write_bytes(data.replace(name, "\x1b]0;\x07\nsys".encode("utf-16-le")))
    ended = call("info", evil)
    assert "\x1b" not in ended.out and "\x07" not in ended.out
    assert "  \\??\\C:\\Lab\\x64\\.]0;..sys\n" in ended.out
