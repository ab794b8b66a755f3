"""kdbridge processes: those of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocol.address import format_address
from simulator.scenarios import RunningScenario
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.watched import watched
from tests.kdbridge.symbols.of_a_kernel import put_symbol_file, structures_of


def test_those_of_the_machine(home: Home) -> None:
    answers = [call("processes", source, "--json").document for source in (sim(), home.complete, home.snapshot)]
    assert answers[0]["processes"] == answers[1]["processes"] == answers[2]["processes"]
    told = [(int(one["address"], 16), one["process_id"]) for one in answers[0]["processes"]]
    assert told == [(one.address, one.process_id) for one in home.kernel.processes]
    assert all(one["threads"] == [] for one in answers[0]["processes"])


@pytest.mark.slow
def test_threads_are_shown_if_asked_for() -> None:
    server = sim(layout="server", memory="64M")
    ended = call("processes", server, "--threads")
    # The idle process is in no list of processes.
    processes = {process.address for process in ended.machine.kernel.processes}
    threads = [thread for thread in ended.machine.kernel.threads if thread.process.address in processes]
    assert "  thread " not in call("processes", server).out
    assert ended.out.count("  thread ") == len(threads) > 20
    assert all(format_address(thread.address) in ended.out for thread in threads)
    document = call("processes", server, "--threads", "--json").document
    told = [
        (thread["process_id"], int(thread["address"], 16)) for one in document["processes"] for thread in one["threads"]
    ]
    assert sorted(address for _, address in told) == sorted(thread.address for thread in threads)


def test_threads_that_cannot_be_listed_are_missing(home: Home) -> None:
    ended = call("processes", home.complete, "--threads")
    assert ended.code == 1 and "  threads: no list of threads was found" in ended.out
    assert call("processes", home.complete).code == 0


def test_symbols_help_where_the_target_does_not_prove_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """System's DISPATCHER_HEADER is none that a process has; its symbols tell where its fields are all the same."""

    def spoil(machine: RunningScenario) -> None:
        physical = machine.kernel.tables.translate(machine.kernel.processes[0].address + 1)
        assert physical is not None
        machine.target.machine.memory.write(physical, b"\2")

    modules = call("modules", sim(), "--json")
    (pdb,) = [one["pdb"] for one in modules.document["modules"] if one["name"] == "ntoskrnl.exe"]
    kernel = modules.machine.kernel
    put_symbol_file(tmp_path, (pdb["name"], pdb["guid"], pdb["age"]), structures_of(kernel))
    blind = call("processes", sim(), prepare=spoil)
    assert blind.code == 1 and "is not System" in " ".join(blind.out.split())
    truth = [one.process_id for one in kernel.processes]
    assert [one["process_id"] for one in call("processes", sim(), "--json").document["processes"]] == truth
    seeing = call("processes", sim(), "--json", "--symbols", tmp_path, prepare=spoil)
    assert ([one["process_id"] for one in seeing.document["processes"]], seeing.code) == (truth, 0)
    monkeypatch.setenv("_NT_SYMBOL_PATH", str(tmp_path))
    assert call("processes", sim(), "--json", prepare=spoil).document == seeing.document


@pytest.mark.parametrize("name", ["triage_x64.dmp", "triage_arm64.dmp"])
def test_every_verb_says_alike_what_a_small_dump_lacks(shared: Path, name: str) -> None:
    dump = shared / "data/dumps" / name
    whole = call("analyze", dump, "--json")
    said = {json.dumps(one) for one in whole.document["missing"]}
    for verb, what in (
        (("modules",), "versions and symbol files of modules"),
        (("print-buffer",), "the kernel's print buffer"),
        (("processes", "--threads"), "threads"),
    ):
        ended = call(*verb, dump, "--json")
        assert ended.code == whole.code == 1
        missing = ended.document["missing"]
        assert what in [one["what"] for one in missing]
        assert {json.dumps(one) for one in missing} <= said


def test_a_target_is_read_once_and_left_alone() -> None:
    with watched() as reads:
        ended = call("processes", sim())
    assert reads.bytes and reads.twice == [] and list(ended.machine.target.machine.touched) == []
