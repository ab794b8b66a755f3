"""What stops a dump in real life, and how it goes on after: a full disk, a folder that cannot be written, a clock."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from tests.kdbridge.cli.calling import call, sim

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def _assert_whole(out: Path, machine: object) -> None:
    with DumpFile(out) as dump:
        image = machine.pristine  # type: ignore[attr-defined]
        assert dump.held == machine.kernel.image.runs  # type: ignore[attr-defined]
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != image.read_page(pfn)]
    assert len(wrong) <= 2


def test_a_disk_that_fills_up_stops_it_cleanly_and_room_lets_it_go_on(small_disk: Path) -> None:
    out = small_disk / "out.dmp"
    ended = call("dump", sim(content="12M"), out)
    assert ended.code == 5
    assert f"{small_disk / 'out.dmp.snapshot'} cannot be written: No space left on device" in ended.last
    assert "more are needed to read all, and room for the dump" in ended.last
    with Snapshot.open(small_disk / "out.dmp.snapshot") as snapshot:
        held = snapshot.held
        assert held.page_count > 1000
        assert all(snapshot.page(pfn) == ended.machine.pristine.read_page(pfn) for pfn in held.pages())
    again = call("resume", out)
    assert again.code == 5, "nothing was freed yet"
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    last = call("resume", out)
    assert last.code == 0, last.err
    _assert_whole(out, last.machine)


def test_a_folder_that_cannot_be_written_is_told_before_the_target_is_touched(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = call("dump", sim(), small_disk / "out.dmp")
    assert (ended.code, ended.machines) == (5, ())
    assert ended.last.endswith("cannot be written: Read-only file system. The target was not touched.")


def test_a_snapshot_that_became_read_only_is_told_and_goes_on_later(small_disk: Path) -> None:
    out = small_disk / "out.dmp"

    def on_page(count: int) -> None:
        if count == 100:
            os.kill(os.getpid(), 2)

    assert call("dump", sim(baud=921600), out, on_page=on_page).code == 130
    subprocess.run(["mount", "-o", "remount,ro,size=64m", small_disk], check=True)
    ended = call("resume", out)
    assert (ended.code, ended.machines) == (5, ())
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    last = call("resume", out)
    assert last.code == 0, last.err
    _assert_whole(out, last.machine)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.dmp"
    real = time.time  # noqa: TID251  (what jumps is this clock)
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 86400.0 * 365)
    ended = call("dump", sim(baud=921600), out)
    assert ended.code == 0, ended.err
    _assert_whole(out, ended.machine)
