"""kdbridge dump: stopped in the middle, by the user or by the machine, it keeps what it has and says how to use it."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import kdbridge.cli.bringing
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.manipulate import ApiNumber
from simulator.scenarios import RunningScenario, ScenarioOptions, start
from tests.kdbridge.cli.calling import Ended, call, served, sim

pytestmark = pytest.mark.slow

_KEPT = re.compile(
    r"(\d+) pages \(([\d.]+ [KM]iB)\) are kept in (.+); `(.+)` goes on, `(.+)` makes a dump of what is there"
)


def _interrupt(number: int) -> Callable[[int], None]:
    def on_page(count: int) -> None:
        if count == 200:
            os.kill(os.getpid(), number)

    return on_page


def _assert_the_command_works(said: str, out: Path, machine: RunningScenario) -> None:
    """The command that is told makes a dump, every page of which is the machine's."""
    kept = _KEPT.search(said)
    assert kept is not None, said
    pages, folder, command = int(kept[1]), Path(kept[3]), shlex.split(kept[5])
    assert 150 < pages < 3000
    with Snapshot.open(folder) as snapshot:
        held = snapshot.held
        assert held.page_count == pages
        assert all(snapshot.page(pfn) == machine.pristine.read_page(pfn) for pfn in held.pages())
    assert command[0] == "kdbridge"
    made = call(*command[1:])
    assert made.code == 1, "pages are missing in it"
    with DumpFile(out) as dump:
        assert dump.held == held
        assert dump.layout.header.bug_check_code == machine.kernel.bug_check[0]
        differing = [pfn for pfn in held.pages() if dump.page(pfn) != machine.pristine.read_page(pfn)]
    assert len(differing) <= len(machine.kernel.processors)
    info = call("info", out)
    assert f"bug check {machine.kernel.bug_check[0]:#x} " in info.out
    registers = call("registers", out, "--all")
    assert registers.code == 0
    for processor in machine.kernel.processors:
        assert f"rip={processor.context_values['rip']:016x}" in registers.out


@pytest.mark.parametrize(("kind", "number"), [("complete", signal.SIGINT), ("kernel", signal.SIGTERM)])
def test_an_interrupted_dump_keeps_what_came(tmp_path: Path, number: int, kind: str) -> None:
    out = tmp_path / "my crash.dmp"
    ended = call("dump", sim(baud=115200), out, "--kind", kind, on_page=_interrupt(number))
    assert (ended.code, ended.out, out.exists()) == (130, "", False)
    assert ended.last.startswith("kdbridge: interrupted; 2")
    again = call("dump", sim(), out, "--kind", kind)
    assert (again.code, again.machines) == (5, ())
    folder = f"{out}.snapshot"
    assert again.err == (
        f"kdbridge: {folder} exists already, perhaps of an earlier dump that was interrupted: "
        f"`kdbridge resume '{out}'` goes on, `kdbridge convert '{folder}' '{out}' --kind {kind} --partial` "
        "makes a dump of what is there; "
        "or remove it. The target was not touched.\n"
    )
    assert ended.last.endswith(
        f"`kdbridge convert '{folder}' '{out}' --kind {kind} --partial` makes a dump of what is there"
    )
    _assert_the_command_works(ended.last, out, ended.machine)
    assert (list(ended.machine.target.machine.touched), ended.machine.target.lives) == ([], 1)


def test_an_interrupt_while_the_dump_is_checked_keeps_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(*words: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return await trio.sleep_forever()

    monkeypatch.setattr(kdbridge.cli.bringing, "verify", endless)
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(), out, "--kind", "kernel", "--then", "reboot")
    assert ended.code == 130
    assert ended.machine.target.lives == 1
    kept = _KEPT.search(ended.last)
    assert kept is not None and kept[5].endswith(" --partial --force"), "the file is there, but nobody has checked it"
    assert call(*shlex.split(kept[5])[1:]).code == 0
    assert call("verify", out, "--against", kept[3]).code == 0


def test_an_interrupt_while_nobody_answers_says_no_more_than_that(tmp_path: Path) -> None:
    ended = _interrupted_while_waiting("dump", sim("running"), tmp_path / "out.dmp")
    assert (ended.code, ended.last, list(tmp_path.iterdir())) == (130, "kdbridge: interrupted", [])


@pytest.mark.parametrize("verb", ["info", "registers", "break", "continue", "reboot", "crash"])
def test_every_verb_can_be_interrupted(verb: str) -> None:
    # A machine that runs answers `break` at its time: before that, everybody waits.
    ended = _interrupted_while_waiting(verb, sim("running"))
    assert (ended.code, ended.out, ended.last) == (130, "", "kdbridge: interrupted")


def _interrupted_while_waiting(*words: object) -> Ended:
    async def wait_for_the_user(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdbridge.transports.sim.SimTransport.receive", wait_for_the_user)
        return call(*words)


# ---- the machine goes away -------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["tcp:127.0.0.1:0", "pty:"])
def test_a_machine_that_is_gone_is_told_of_and_what_was_read_is_kept(tmp_path: Path, line: str) -> None:
    out = tmp_path / "out.dmp"
    with served("bugcheck", "--memory", "16M", "--processors", 2, "--on", line) as machine:

        def on_page(count: int) -> None:
            if count == 300:
                machine.kill()

        ended = call("dump", machine.url, out, "--reconnect", 0, on_page=on_page, real_clock=True)
    assert (ended.code, ended.out, out.exists()) == (4, "", False)
    assert ended.last.startswith(f"kdbridge: {machine.url}") or ended.last.startswith("kdbridge: the target")
    twin = start("bugcheck", ScenarioOptions(processors=2, memory_size=16 << 20))
    _assert_the_command_works(ended.err, out, twin)


def test_a_machine_that_falls_silent_is_told_of_and_what_was_read_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    machines: list[RunningScenario] = []

    def fall_silent(count: int) -> None:
        if count == 300:
            machine = machines[0].target.machine
            machine.behaviour = replace(machine.behaviour, unanswered=frozenset({ApiNumber.READ_PHYSICAL_MEMORY}))

    ended = call("dump", sim(), out, prepare=machines.append, on_page=fall_silent)
    assert ended.code == 4
    assert ended.last.startswith("kdbridge: the target no longer answers: ReadPhysicalMemory was sent, but ")
    _assert_the_command_works(ended.err, out, machines[0])
