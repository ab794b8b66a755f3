"""kdbridge break, continue, reboot, crash: each says what it will do, does that, and nothing else."""

from __future__ import annotations

import pytest

from protocol.arch import AMD64
from simulator.machine import Machine
from simulator.scenarios import RunningScenario
from simulator.target import Activity
from tests.kdbridge.cli.calling import Ended, call, served, sim

_STOPPED = (Activity.WAITING, Activity.REPLYING)


def _touched(ended: Ended) -> list[str]:
    return [logged.request.name for logged in ended.machine.target.machine.touched]


def _assert_said_first(ended: Ended, announcement: str) -> None:
    """Before the machine is even listened to."""
    assert ended.err.splitlines()[0] == announcement


def test_break_stops_a_machine_that_runs() -> None:
    ended = call("break", sim("running"))
    kernel = ended.machine.kernel
    place = kernel.symbols["DbgBreakPointWithStatus"]
    assert (ended.code, ended.out) == (0, f"stopped at {place:#x}\n")
    _assert_said_first(ended, "a running machine will be stopped, and stay so until `kdbridge continue`")
    assert ended.err.splitlines()[-1] == "no answer; sending a break-in"
    assert ended.machine.target.activity in _STOPPED
    assert _touched(ended) == []
    assert call("break", sim("running"), "--json").document == {
        "stopped": True, "program_counter": hex(place), "exception_code": "0x80000003",
    }  # fmt: skip


def test_break_leaves_a_stopped_machine_as_it_is() -> None:
    for name in ("bugcheck", "silent", "breakpoint"):
        ended = call("break", sim(name))
        kernel = ended.machine.kernel
        stopped = kernel.processors[kernel.stopped_processor].context_values["rip"]
        assert (ended.code, ended.out) == (0, f"stopped at {stopped:#x}\n")
        assert "sending a break-in" not in ended.err
        assert _touched(ended) == []
        assert ended.machine.target.machine.memory.digest() == ended.machine.pristine.digest()


def test_continue_lets_a_machine_go_on() -> None:
    ended = call("continue", sim("breakpoint"))
    assert (ended.code, ended.out) == (0, "it runs\n")
    _assert_said_first(ended, "the machine will go on")
    target = ended.machine.target
    assert target.activity is Activity.RUNNING and target.lives == 1
    # It stands on an int3: that is passed, and nothing else is changed.
    assert _touched(ended) == ["SetContext", "Continue2"]
    kernel = ended.machine.kernel
    before = AMD64.context.decode(kernel.processors[kernel.stopped_processor].context())
    after = AMD64.context.decode(target.machine.touched[0].request.data)
    assert {name for name in before.values if before[name] != after[name]} == {"rip"}
    assert after["rip"] == before["rip"] + 1
    assert call("continue", sim("breakpoint"), "--json").document == {"continued": True, "stopped_again": False}


def test_continue_tells_of_a_machine_that_stops_again_at_once() -> None:
    ended = call("continue", sim("bugcheck"))
    assert ended.code == 1
    assert ended.out == "it went on, and stopped again at once: the last break of a bug check does that for ever\n"
    ended = call("continue", sim("bugcheck"), "--json")
    assert (ended.code, ended.document) == (1, {"continued": True, "stopped_again": True})


def test_reboot_restarts_the_machine() -> None:
    ended = call("reboot", sim("bugcheck"))
    assert (ended.code, ended.out) == (0, "reboot: acknowledged\n")
    _assert_said_first(ended, "the machine will restart; its memory will be lost")
    assert ended.machine.target.lives == 2
    assert call("reboot", sim("bugcheck"), "--json").document == {"reboot": True, "acknowledged": True}


def test_crash_makes_the_machine_crash() -> None:
    seen: list[str] = []

    def watch(running: RunningScenario) -> None:
        crash = running.target.crash
        assert crash is not None

        def seen_crash(machine: Machine) -> None:
            seen.append("crashed")
            crash(machine)

        running.target.crash = seen_crash

    ended = call("crash", sim("breakpoint"), prepare=watch)
    assert (ended.code, ended.out) == (0, "crash: acknowledged\n")
    _assert_said_first(ended, "the machine will crash with bug check E2, and write its own dump if it is set up to")
    assert ended.machine.target.lives == 1
    assert _touched(ended) == ["CauseBugCheck"]
    # It writes its dump now: deaf, and without the registers of the break that follows.
    assert ended.machine.target.activity is Activity.QUIET and seen == []
    assert call("crash", sim("breakpoint"), "--json").document == {"crash": True, "acknowledged": True}


@pytest.mark.parametrize("verb", ["continue", "reboot", "crash"])
def test_a_machine_that_runs_is_not_touched(verb: str) -> None:
    ended = call(verb, sim("running"), "--wait", 10)
    assert (ended.code, ended.out) == (3, "")
    assert ended.last.startswith(f"kdbridge: not a single byte came from {sim('running')} within 10 seconds")
    target = ended.machine.target
    assert (target.activity, target.lives, _touched(ended)) == (Activity.RUNNING, 1, [])


def test_break_gives_up_on_a_machine_that_does_not_listen() -> None:
    def deaf(running: RunningScenario) -> None:
        running.target.link.receive_data = lambda chunk, now: None  # type: ignore[method-assign]

    ended = call("break", sim("running"), "--wait", 10, prepare=deaf)
    assert ended.code == 3
    assert "RESET and break-in were not answered" in ended.last and "--break-in" not in ended.last


@pytest.mark.slow
def test_what_one_verb_did_the_next_finds() -> None:
    with served("breakpoint", "--memory", "16M", "--processors", 2, "--on", "tcp:127.0.0.1:0") as machine:
        assert call("info", machine.url, real_clock=True).code == 0
        assert call("continue", machine.url, real_clock=True).out == "it runs\n"
        ended = call("info", machine.url, "--wait", 0.5, real_clock=True)
        assert (ended.code, ended.out) == (3, "")
        assert ended.last.startswith(f"kdbridge: not a single byte came from {machine.url} within 0.5 seconds")
