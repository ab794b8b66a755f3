"""--verify-reads: a line that changes bytes and keeps their sum deceives who reads once, and not who reads twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdbridge.snapshot import Snapshot
from tests.kdbridge.cli.calling import Ended, call, sim

pytestmark = pytest.mark.slow

_BENDING = "keepsum=0.05,seed=4"


def _wrong(ended: Ended, folder: Path) -> list[int]:
    """Frames of the Snapshot that are not what the machine's memory holds."""
    with Snapshot.open(folder) as snapshot:
        frames = list(snapshot.held.pages())
        assert len(frames) > 600
        return [pfn for pfn in frames if snapshot.page(pfn) != ended.machine.pristine.read_page(pfn)]


def _dump(tmp_path: Path, *words: str, fault: str = "seed=1") -> tuple[Ended, list[int]]:
    folder = tmp_path / "snapshot"
    ended = call("dump", sim(fault=fault), tmp_path / "out.dmp", "--kind", "kernel", "--keep-snapshot", folder, *words)
    return ended, _wrong(ended, folder)


def test_without_it_wrong_bytes_get_in(tmp_path: Path) -> None:
    _, wrong = _dump(tmp_path, fault=_BENDING)
    assert len(wrong) > 5


def test_with_it_none_do_and_what_differed_is_counted(tmp_path: Path) -> None:
    ended, wrong = _dump(tmp_path, "--verify-reads", "100%", fault=_BENDING)
    assert (ended.code, wrong) == (0, []), ended.err
    found = re.search(
        r"^  (\d+) pages were read twice and compared: (\d+) came wrong at first", ended.err, re.MULTILINE
    )
    assert found is not None, ended.err
    assert int(found[1]) > 600 and int(found[2]) > 20


def test_a_share_is_read_twice(tmp_path: Path) -> None:
    ended, wrong = _dump(tmp_path, "--verify-reads", "10")
    assert (ended.code, wrong) == (0, []), ended.err
    found = re.search(r"^  (\d+) pages were read twice and compared: all alike$", ended.err, re.MULTILINE)
    assert found is not None, ended.err
    assert 40 < int(found[1]) < 150


def test_on_a_good_line_nothing_is_read_twice_and_nothing_said(tmp_path: Path) -> None:
    ended, _ = _dump(tmp_path)
    assert ended.code == 0
    assert "twice" not in ended.err


@pytest.mark.parametrize(("words", "twice"), [((), True), (("--verify-reads", "0%"), False)])
def test_a_line_bad_enough_is_told_with_the_figure_unless_nobody_wants_to_know(
    tmp_path: Path, words: tuple[str, ...], twice: bool
) -> None:
    ended, wrong = _dump(tmp_path, *words, fault="flip=1e-5,seed=3")
    assert ("All is read twice from here on" in ended.err) == twice
    if twice:
        assert (ended.code, wrong) == (0, []), ended.err
        assert re.search(r"one packet in \d+ comes damaged", ended.err)


@pytest.mark.parametrize("share", ["x", "-1", "101%", "nan", ""])
@pytest.mark.parametrize("verb", ["dump", "resume"])
def test_what_is_no_share_is_said_before_anything_is_done(verb: str, share: str, tmp_path: Path) -> None:
    words = ("dump", sim(), tmp_path / "o.dmp") if verb == "dump" else ("resume", tmp_path / "o.dmp")
    ended = call(*words, "--verify-reads", share)
    assert ended.code == 2
    assert "0% to 100%" in ended.err
    assert ended.machines == ()
