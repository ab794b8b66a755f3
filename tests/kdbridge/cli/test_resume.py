"""kdbridge resume: goes on where a dump stopped, reads nothing twice, and never mixes two stops of a machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from protocol.manipulate import ApiNumber
from simulator.image import MemoryImage
from simulator.scenarios import RunningScenario
from tests.kdbridge.cli.calling import Ended, call, sim

pytestmark = pytest.mark.slow


def _interrupt_at(pages: int) -> Callable[[int], None]:
    def on_page(count: int) -> None:
        if count == pages:
            os.kill(os.getpid(), signal.SIGINT)

    return on_page


def _begun(out: Path, pages: int = 500, *more: object, machine: str = "") -> Ended:
    ended = call("dump", machine or sim(baud=921600), out, *more, on_page=_interrupt_at(pages))
    assert ended.code == 130
    return ended


def test_what_is_in_the_snapshot_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)
    with Snapshot.open(tmp_path / "out.dmp.snapshot") as snapshot:
        held = snapshot.held
    frames: list[int] = []
    read_some = MemoryImage.read_some

    def noted(image: MemoryImage, address: int, size: int) -> bytes:
        data = read_some(image, address, size)
        frames.extend(range(address >> 12, address + len(data) >> 12))
        return data

    monkeypatch.setattr(MemoryImage, "read_some", noted)
    ended = call("resume", out)
    assert ended.code == 0, ended.err
    again = [pfn for pfn in frames if pfn in held]
    # Each of the 16 that the proof reads comes in two requests; page tables of virtual reads are the target's own.
    assert len(again) <= 32, again
    assert "16 of 500 pages read before are as before" in ended.err
    with DumpFile(out) as dump:
        assert dump.held == ended.machine.kernel.image.runs
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != ended.machine.pristine.read_page(pfn)]
    assert len(wrong) <= len(ended.machine.kernel.processors)
    assert list(ended.machine.target.machine.touched) == []
    assert not (tmp_path / "out.dmp.snapshot").exists()


def test_a_kernel_dump_goes_on_too_and_again_and_again(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    _begun(out, 100, "--kind", "kernel", "--comment", "third rack")
    for _ in range(3):
        assert call("resume", out, on_page=_interrupt_at(60)).code == 130
    ended = call("resume", out)
    assert ended.code == 0, ended.err
    whole = tmp_path / "whole.dmp"
    assert call("dump", sim(), whole, "--kind", "kernel", "--comment", "third rack").code == 0
    with DumpFile(out) as one, DumpFile(whole) as other:
        assert one.held == other.held
        assert one.layout.header.comment == "third rack"
        assert all(one.page(pfn) == other.page(pfn) for pfn in one.held.pages())


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        (sim(seed=2), "became build"),
        (sim("breakpoint"), "it stood at"),
    ],
)
def test_another_machine_or_another_stop_is_refused(tmp_path: Path, now: str, difference: str) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)
    folder = tmp_path / "out.dmp.snapshot"
    before = (folder / "coverage").read_bytes()
    ended = call("resume", out, "--target", now)
    assert (ended.code, out.exists()) == (4, False)
    assert ended.last.startswith(f"kdbridge: this is not the stop that {folder} was read from: ")
    assert difference in ended.last
    assert ended.last.endswith(f"`kdbridge resume {out} --new-life` begins anew, and keeps what was read beside")
    assert (folder / "coverage").read_bytes() == before


def test_a_machine_that_went_on_for_a_while_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)

    def let_time_pass(running: RunningScenario) -> None:
        # Its clock, in KUSER_SHARED_DATA: InterruptTime, 25 s later.
        machine = running.target.machine
        at = 0xFFFFF780_00000008
        now = int.from_bytes(machine.read_virtual(at, 8), "little") + 250_000_000
        machine.write_virtual(at, now.to_bytes(8, "little"))
        system = int.from_bytes(machine.read_virtual(at + 12, 8), "little") + 250_000_000
        machine.write_virtual(at + 12, system.to_bytes(8, "little"))

    ended = call("resume", out, prepare=let_time_pass)
    assert ended.code == 4
    assert "its clock went on by 25.000 s: somebody let it continue" in ended.last


def test_a_new_life_begins_anew_and_keeps_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    first = _begun(out)
    ended = call("resume", out, "--target", sim(seed=2), "--new-life")
    assert ended.code == 0, ended.err
    kept = tmp_path / "out.dmp.snapshot.1"
    assert f"what was read before is kept in {kept}" in ended.err
    with Snapshot.open(kept) as old:
        assert all(old.page(pfn) == first.machine.pristine.read_page(pfn) for pfn in old.held.pages())
    with DumpFile(out) as dump:
        new = ended.machine.pristine
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != new.read_page(pfn)]
    assert len(wrong) <= len(ended.machine.kernel.processors)


def test_it_goes_on_where_the_target_is_now_and_no_key_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)
    order = json.loads((tmp_path / "out.dmp.snapshot" / "order.json").read_text())
    assert (order["target"], order["kind"], order["out"]) == (sim(baud=921600), "complete", str(out))
    (tmp_path / "out.dmp.snapshot" / "order.json").write_text(json.dumps({**order, "target": "tcp:127.0.0.1:1"}))
    assert call("resume", out).code == 3
    assert call("resume", out, "--target", sim()).code == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "order.json is not valid JSON: the Snapshot is damaged"),
        ("[]", "order.json is no order of schema 1: it is damaged, or of another version"),
        ('{"schema": 1, "target": 5}', "order.json is no order of schema 1: it is damaged, or of another version"),
    ],
)
def test_a_damaged_order_is_named(tmp_path: Path, text: str, problem: str) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)
    (tmp_path / "out.dmp.snapshot" / "order.json").write_text(text)
    ended = call("resume", out)
    assert (ended.code, ended.machines) == (5, ())
    assert ended.last.endswith(problem)


def test_without_a_snapshot_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    ended = call("resume", tmp_path / "out.dmp")
    assert ended.code == 5
    assert ended.last == (
        f"kdbridge: {tmp_path / 'out.dmp.snapshot'} is no Snapshot: there is nothing to go on with. "
        "`kdbridge dump` begins a dump"
    )


def test_a_partial_dump_made_meanwhile_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    words = shlex.split(_begun(out).last.split("`")[3])
    assert call(*words[1:]).code == 1
    with DumpFile(out) as partial:
        assert partial.held.page_count == 500
        assert partial.layout.header.comment == "PARTIAL: 500 of 3998 pages; kdbridge"
    refused = call("resume", out)
    assert (refused.code, refused.last) == (5, f"kdbridge: {out} exists already; --force overwrites it")
    assert call("resume", out, "--force").code == 0


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    _begun(out)
    folder = tmp_path / "out.dmp.snapshot"
    with Snapshot.open(folder, writable=True):
        ended = call("resume", out)
        assert ended.code == 5
        assert f"kdbridge: {folder} is being written by another kdbridge" in ended.err
        made = call("convert", folder, tmp_path / "now.dmp", "--partial")
        assert made.code == 1, "reading it is no harm"
    assert call("resume", out).code == 0


def test_nothing_changes_the_machine_unless_it_is_said_again(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    _begun(out, 500, "--then", "reboot")
    ended = call("resume", out)
    assert (ended.code, ended.machine.target.lives) == (0, 1)
    assert ApiNumber.REBOOT not in {one.request.api for one in ended.machine.target.machine.touched}
