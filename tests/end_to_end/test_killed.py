"""kill -9 in the middle of a dump costs what was read in the last second, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.address import PageRuns
from tests.end_to_end.killed import Killing
from tests.end_to_end.printed import parse_bug_check
from tests.referee import Kdexec, parse


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_dump_that_is_killed_again_and_again_comes_home(tmp_path: Path) -> None:
    killing = Killing(tmp_path, seed=5, kind="kernel")
    killing.run(kills=3, most_seconds=0.5)
    assert killing.lives == 3


@pytest.mark.referee
@pytest.mark.timeout(300)
def test_what_a_kill_leaves_opens_in_the_debugger(tmp_path: Path, kdexec: Kdexec) -> None:
    opened: list[int] = []

    def open_it(path: Path, held: PageRuns) -> None:
        transcript = parse(kdexec("-z", str(path), ".bugcheck", "r", "lm"))
        assert parse_bug_check(transcript[".bugcheck"].text) == killing.running.kernel.bug_check
        assert "rip=" in transcript["r"].text and "nt " in transcript["lm"].text
        opened.append(held.page_count)

    killing = Killing(tmp_path, seed=6, baud=20_000_000, partial=open_it)
    killing.run(kills=3, most_seconds=0.8)
    assert opened == sorted(opened) and len(opened) == 3
