"""kdbridge processes: those of the machine."""

from __future__ import annotations

import pytest

from protocol.address import format_address
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.watched import watched


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


def test_a_target_is_read_once_and_left_alone() -> None:
    with watched() as reads:
        ended = call("processes", sim())
    assert reads.bytes and reads.twice == [] and list(ended.machine.target.machine.touched) == []
