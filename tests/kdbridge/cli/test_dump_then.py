"""kdbridge dump: what happens to the machine, before and after."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import kdbridge.cli.bringing
from kdbridge.dump import Rendered, render
from kdbridge.memory.files import DumpFile
from simulator.machine import Machine
from simulator.scenarios import RunningScenario
from simulator.target import Activity, Quiet
from tests.kdbridge.cli.calling import Ended, call, sim


def _touched(ended: Ended) -> list[str]:
    return [logged.request.name for logged in ended.machine.target.machine.touched]


def _before_next(ended: Ended) -> str:
    """The line before the last one, which says what to type next."""
    *_, line, last = ended.err.splitlines()
    assert last.startswith("next: kdbridge analyze ")
    return line


def _pages_of(dump: Path) -> int:
    with DumpFile(dump) as opened:
        return opened.held.page_count


class _Watched:
    """Looks at the file at the moment when the machine is told to restart."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.there: list[bytes | None] = []
        self.asked: list[str] = []

    def __call__(self, running: RunningScenario) -> None:
        restart = running.target.restart
        assert restart is not None

        def watched() -> tuple[Machine, object]:
            self.there.append(self.out.read_bytes() if self.out.exists() else None)
            self.asked += [logged.request.name for logged in running.target.machine.touched]
            return restart()

        running.target.restart = watched  # type: ignore[assignment]


def test_a_machine_is_restarted_only_when_the_dump_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    watched = _Watched(out)
    ended = call("dump", sim("bugcheck-attached"), out, "--kind", "kernel", "--then", "reboot", prepare=watched)
    assert ended.code == 0
    assert ended.machine.target.lives == 2
    assert watched.there == [out.read_bytes()], "restarted once, and all of the file was there"
    assert watched.asked == ["Reboot"], "nothing else was done to it"
    said = ended.err.splitlines()
    assert said[-2] == "the machine restarts"
    (verified,) = [at for at, line in enumerate(said) if line.endswith(" pages, verified")]
    assert verified < len(said) - 1


@pytest.mark.parametrize("then", ["reboot", "continue"])
def test_a_dump_that_does_not_pass_verification_leaves_the_machine_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    out = tmp_path / "out.dmp"

    async def badly_rendered(*words: object, **more: object) -> Rendered:
        rendered = await render(*words, **more)  # type: ignore[arg-type]
        data = bytearray(rendered.path.read_bytes())
        data[-1] ^= 1
        rendered.path.write_bytes(data)
        return rendered

    monkeypatch.setattr(kdbridge.cli.bringing, "render", badly_rendered)
    ended = call("dump", sim(), out, "--kind", "kernel", "--then", then)
    assert ended.code == 5
    assert ended.last.startswith(f"kdbridge: {out} was written, but does not pass verification: frame 0x")
    assert ended.last.endswith(" differs. The Snapshot is kept.")
    assert (tmp_path / "out.dmp.snapshot" / "memory.raw").exists()
    assert (ended.machine.target.lives, _touched(ended)) == (1, [])
    # The command that is told makes a good one of it, over the bad one.
    monkeypatch.undo()
    command = ended.err.splitlines()[-2].split("`")[3].split()
    assert command[-1] == "--force"
    assert call(*command[1:]).code == 0
    assert call("verify", out, "--against", tmp_path / "out.dmp.snapshot").code == 0


def test_a_running_machine_is_stopped_dumped_and_set_going(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim("running"), out, "--kind", "kernel", "--break-in", "--then", "continue")
    assert ended.code == 0
    target = ended.machine.target
    assert (target.activity, target.lives) == (Activity.RUNNING, 1)
    assert _touched(ended) == ["SetContext", "Continue2"], "moved past the int3, and continued"
    said = ended.err.splitlines()
    assert said[0] == f"listening on {sim('running')} (a break-in is sent if it runs)"
    assert said.index("no answer; sending a break-in") < said.index("stopped by a break-in")
    assert said[-2] == "the machine goes on"
    assert _pages_of(out) > 600


def test_a_machine_that_was_stopped_is_left_so_and_the_way_on_is_told(tmp_path: Path) -> None:
    ended = call("dump", sim("running"), tmp_path / "out.dmp", "--kind", "kernel", "--break-in")
    assert ended.code == 0
    assert ended.machine.target.activity in (Activity.WAITING, Activity.REPLYING)
    assert _touched(ended) == []
    assert _before_next(ended) == f"the machine is left stopped; `kdbridge continue '{sim('running')}'` lets it go on"


def test_a_machine_that_stops_again_at_once_is_told_of(tmp_path: Path) -> None:
    ended = call("dump", sim(), tmp_path / "out.dmp", "--kind", "kernel", "--then", "continue")
    assert ended.code == 0
    assert _before_next(ended) == "told to go on; it stopped again at once (a bug check's last break does)"


def test_a_running_machine_is_waited_for_and_the_user_is_told_how_to_stop_it(tmp_path: Path) -> None:
    ended = call("dump", sim("running"), tmp_path / "out.dmp", "--wait", "20")
    assert ended.code == 3
    said = ended.err.splitlines()
    assert said[2] == (
        "no state change so far: asking a stopped target to repeat it; "
        "a running one is waited for (kdbridge break stops it)"
    )
    assert said[-1].startswith(f"kdbridge: not a single byte came from {sim('running')} within 20 seconds")
    assert "--break-in" in said[-1]
    assert ended.machine.target.activity is Activity.RUNNING
    assert _touched(ended) == [] and list(tmp_path.iterdir()) == []


def test_a_machine_that_stops_while_it_is_waited_for_is_dumped(tmp_path: Path) -> None:
    def later(running: RunningScenario) -> None:
        running.target.script.appendleft(Quiet(12.0))

    began: list[float] = []
    ended = call(
        "dump", sim("bugcheck-attached"), tmp_path / "out.dmp", "--kind", "kernel", prepare=later,
        on_page=lambda count: began.append(trio.current_time()) if count == 1 else None,
    )  # fmt: skip
    assert ended.code == 0
    assert began and began[0] >= 12
    assert "a running one is waited for" in ended.err
