"""The cable is cut in the middle of a dump: real lines and processes, and the machine comes back, or another."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from simulator.scenarios import ScenarioOptions, start
from tests.kdbridge.cli.calling import Ended, call, served

pytestmark = pytest.mark.slow

_MACHINE = ("bugcheck", "--memory", "16M", "--processors", 2)


def _cut(out: Path, first: str, then: tuple[object, ...], *more: object) -> Ended:
    """A dump whose machine is gone after 300 pages and comes back, or something does, as another process."""
    with ExitStack() as stack:
        machine = stack.enter_context(served(*_MACHINE, "--on", first))

        def on_page(count: int) -> None:
            if count == 300:
                machine.kill()
                # TCP ports are free numbers: the second machine takes the first one's.
                where = first if first.startswith("pty:") else machine.url
                stack.enter_context(served(*then, "--on", where))

        url = machine.url if not first.startswith("pty:") else f"serial:{first.removeprefix('pty:')}"
        return call("dump", url, out, *more, on_page=on_page, real_clock=True)


@pytest.mark.parametrize("line", ["tcp:127.0.0.1:0", "pty:LINK"])
def test_a_line_that_comes_back_is_gone_on_with(tmp_path: Path, line: str) -> None:
    out = tmp_path / "out.dmp"
    ended = _cut(out, line.replace("LINK", str(tmp_path / "ttyKD")), _MACHINE)
    assert ended.code == 0, ended.err
    assert "what was read is kept; looking for the target again, until Ctrl-C" in ended.err
    assert "there it is again, after " in ended.err
    assert "it is: version, place of the stop, KDBG, boot time, clock, bug check, registers of processor 0" in ended.err
    twin = start("bugcheck", ScenarioOptions(processors=2, memory_size=16 << 20))
    with DumpFile(out) as dump:
        assert dump.held == twin.kernel.image.runs
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != twin.pristine.read_page(pfn)]
    assert len(wrong) <= 2, "the overlay of two processors"


@pytest.mark.parametrize("then", [(*_MACHINE, "--seed", 2), ("breakpoint", "--memory", "16M", "--processors", 2)])
def test_what_comes_back_as_another_is_not_mixed(tmp_path: Path, then: tuple[object, ...]) -> None:
    out = tmp_path / "out.dmp"
    ended = _cut(out, "tcp:127.0.0.1:0", then)
    assert (ended.code, out.exists()) == (4, False), ended.err
    assert ended.last.startswith(f"kdbridge: this is not the stop that {out}.snapshot was read from: ")
    twin = start("bugcheck", ScenarioOptions(processors=2, memory_size=16 << 20))
    with Snapshot.open(tmp_path / "out.dmp.snapshot") as snapshot:
        assert snapshot.held.page_count >= 250
        assert all(snapshot.page(pfn) == twin.pristine.read_page(pfn) for pfn in snapshot.held.pages())


def test_patience_can_be_limited(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    with served(*_MACHINE, "--on", "tcp:127.0.0.1:0") as machine:

        def on_page(count: int) -> None:
            if count == 300:
                machine.kill()

        ended = call("dump", machine.url, out, "--reconnect", 2, on_page=on_page, real_clock=True)
    assert ended.code == 4
    assert "looking for the target again, for 2 s" in ended.err
    assert f"are kept in {out}.snapshot; `kdbridge resume {out}` goes on" in ended.err
