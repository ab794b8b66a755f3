"""dump --within, --until, --bytes: it ends in time, the file opens, and it is as good as was promised."""

from __future__ import annotations

import random
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kdbridge.dump import DumpKind
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from tests.amount import drawn
from tests.kdbridge.cli.calling import Ended, call, sim

_LINE = sim(baud=115200, processors=4)
_KINDS = [DumpKind.SMALL, DumpKind.KERNEL, DumpKind.ACTIVE, DumpKind.COMPLETE]
_TYPES = {4: DumpKind.SMALL, 6: DumpKind.KERNEL, 5: DumpKind.ACTIVE, 1: DumpKind.COMPLETE}


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What --dry-run says of each kind."""
    out = tmp_path_factory.mktemp("promised") / "out.dmp"
    ended = call("dump", _LINE, out, "--dry-run", "--json")
    assert ended.code == 0, ended.err
    assert not out.exists()
    kinds: dict[str, Any] = ended.document["kinds"]
    assert list(kinds) == [str(kind) for kind in _KINDS]
    return kinds


def _check(ended: Ended, out: Path, seconds: float, promised: dict[str, Any]) -> None:
    assert ended.seconds <= seconds + 2
    kind = DumpKind(ended.document["kind"])
    with DumpFile(out) as dump:
        assert dump.layout.header.number_processors == 4
        assert _TYPES[int(dump.layout.kind)] is kind
        partial = "PARTIAL" in (dump.layout.header.comment or "")
    # The promise is good to 10 %: what it says takes less must be there, what takes more need not.
    sure = [one for one in _KINDS if promised[one]["seconds"] * 1.1 <= seconds]
    possible = [one for one in _KINDS if promised[one]["seconds"] * 0.9 <= seconds]
    assert partial is (ended.document["missing"] > 0)
    if partial:
        assert (kind, sure) == (DumpKind.SMALL, [])
    else:
        assert _KINDS.index(kind) >= len(sure) - 1 and kind in possible
    assert ended.code == (0 if kind is DumpKind.COMPLETE and not partial else 1)


def _budget(number: int) -> float:
    """From 10 s to 2 h, short ones more often: of those that suffice for all of memory a few are enough."""
    return 10 * 720 ** random.Random(f"budget {number}").random() ** 1.6


def _bring(folder: Path, number: int, promised: dict[str, Any]) -> None:
    seconds, out = round(_budget(number)), folder / "out.dmp"
    ended = call("dump", _LINE, out, "--within", f"{seconds}s", "--json")
    _check(ended, out, seconds, promised)


@pytest.mark.slow
@pytest.mark.parametrize("number", drawn(30, gate=12))
def test_within_any_time(number: int, tmp_path: Path, promised: dict[str, Any]) -> None:
    _bring(tmp_path, number, promised)


@pytest.mark.slow
def test_until_a_time_of_day(tmp_path: Path, promised: dict[str, Any]) -> None:
    out = tmp_path / "out.dmp"
    end = datetime.now().astimezone() + timedelta(minutes=3)
    ended = call("dump", _LINE, out, "--until", f"{end:%H:%M}", "--json")
    assert 100 <= ended.seconds <= 182
    _check(ended, out, ended.seconds, promised)


def test_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(processors=4), out, "--bytes", "1M", "--json", "--keep-snapshot", tmp_path / "kept")
    assert ended.code == 1
    assert (ended.document["kind"], ended.document["ended_by"]) == ("small", "the bytes")
    with Snapshot.open(tmp_path / "kept") as snapshot:
        assert 256 <= snapshot.held.page_count <= 258


@pytest.mark.slow
def test_what_comes_first_ends_it_and_resume_reads_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    first = call("dump", _LINE, out, "--kind", "kernel", "--within", "1h", "--bytes", "600K")
    assert first.code == 1
    assert "the bytes that may be used are over: a small dump is whole" in first.err
    command = re.search(r"`kdbridge (resume .*--force)` reads what is left of a kernel dump", first.err)
    assert command is not None
    second = call(*command[1].split())
    assert second.code == 0, second.err
    with DumpFile(out) as dump:
        assert int(dump.layout.kind) == 6
    held = re.search(r"; (\d+) were there before", second.err)
    assert held is not None and int(held[1]) >= 150


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [("--within", "soon", "20m, 90s or 1h30m"), ("--within", "0s", "is no time"), ("--until", "25:00", "18:30"),
     ("--bytes", "many", "10M"), ("--bytes", "0", "is no size")],
)  # fmt: skip
def test_what_is_no_budget_is_told_before_anything_happens(option: str, value: str, text: str, tmp_path: Path) -> None:
    ended = call("dump", _LINE, tmp_path / "out.dmp", option, value)
    assert ended.code == 2 and text in ended.err
    assert not ended.machines
