"""kdbridge stack: the calls of the machine, for few bytes."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from protocol.address import PAGE_SIZE, format_address
from simulator.modules import other_drivers
from simulator.scenarios import RunningScenario
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.watched import watched


def test_target_dump_and_snapshot_give_one_answer(home: Home) -> None:
    answers = [call("stack", source, "--all", "--json").document for source in (sim(), home.complete, home.snapshot)]
    assert answers[1]["stacks"] == answers[2]["stacks"]
    # Of a target, names are not worth the time that they take.
    live, stored = (
        [
            [(frame["instruction"], frame["stack_pointer"], frame["trust"]) for frame in stack["frames"]]
            for stack in answer["stacks"]
        ]
        for answer in answers[:2]
    )
    assert live == stored and "nt!" in str(answers[1]) and "nt!" not in str(answers[0])
    assert [stack["processor"] for stack in answers[0]["stacks"]] == [0, 1]


def test_it_begins_where_the_registers_stand(home: Home) -> None:
    for number, processor in enumerate(home.kernel.processors):
        (stack,) = call("stack", home.small, "-p", number, "--json").document["stacks"]
        assert int(stack["frames"][0]["instruction"], 16) == processor.context_values["rip"]
        text = call("stack", home.small, "-p", number).out.splitlines()
        assert text[0] == f"stack of processor {number}"
        assert text[2].startswith(f"00   {format_address(processor.context_values['rsp'])} ")


@pytest.mark.parametrize("name", ["bugcheck", "breakpoint", "encoded-kdbg", "no-physical-reads"])
def test_the_stopped_thread_costs_less_than_64_kib(name: str) -> None:
    with watched() as reads:
        ended = call("stack", sim(name, processors=4, memory="64M"))
    assert ended.code in (0, 1) and ended.out.startswith("stack of processor 0"), ended.err
    assert 0 < reads.bytes < 64 << 10
    assert reads.twice == []
    assert list(ended.machine.target.machine.touched) == []


def _many(count: int) -> mock._patch[object]:
    """Machines have so many more drivers, as long as this lasts."""
    return mock.patch("simulator.kernel.other_drivers", lambda profile, _: other_drivers(profile, count))


@pytest.mark.parametrize("more", [400, pytest.param(589, marks=pytest.mark.slow)])
def test_with_many_drivers_too(more: int) -> None:
    with _many(more), watched() as reads:
        ended = call("stack", sim(processors=4, memory="64M"))
    assert ended.code == 0, ended.err
    kernel = ended.machine.kernel
    assert len(kernel.modules) == 11 + more
    assert reads.bytes < 64 << 10 and reads.twice == []
    # Each frame lies in the image that the machine says, by its name.
    names = {frame.split()[3].partition("+")[0] for frame in ended.out.splitlines()[2:]}
    assert names == {"nt", "mydrv"}


def test_an_image_that_cannot_be_read_is_told_by_its_name() -> None:
    def without_mydrv(machine: RunningScenario) -> None:
        (driver,) = [one for one in machine.kernel.modules if one.name == "mydrv"]
        for page in range(driver.base, driver.base + driver.size, PAGE_SIZE):
            if (physical := machine.kernel.tables.translate(page)) is not None:
                machine.target.machine.memory.unreadable.add(physical // PAGE_SIZE)

    ended = call("stack", sim(), prepare=without_mydrv)
    assert ended.code == 1 and "mydrv.sys cannot be read" in ended.out and "<name" not in ended.out


def test_a_processor_that_is_not_there_is_a_mistake_in_the_command(home: Home) -> None:
    ended = call("stack", home.small, "-p", 2)
    assert (ended.code, ended.out) == (2, "")
    assert ended.last == "kdbridge: there is no processor 2; this machine has 2, from 0 on"
    ended = call("stack", home.small, "-p", 1, "--all")
    assert (ended.code, ended.last) == (2, "kdbridge: --processor and --all exclude each other")


def test_a_stack_that_is_not_whole_is_named_and_the_exit_code_is_1(home: Home) -> None:
    half = home.folder / "half stack.dmp"
    half.write_bytes(home.small.read_bytes()[:1_000_000])
    ended = call("stack", half, "--all")
    assert ended.code == 1 and "what could not be determined\n" in ended.out


def test_a_stack_of_guesses_is_not_whole(shared: Path) -> None:
    """Nothing proves what the frame pointers of a real ARM64 machine lead to."""
    ended = call("stack", shared / "data/dumps/triage_arm64.dmp")
    assert (
        ended.code == 1 and "the stack of processor 0: it is not whole: the chain of frame pointers ends" in ended.out
    )
