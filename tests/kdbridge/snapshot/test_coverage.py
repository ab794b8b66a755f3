"""Coverage: one byte a frame, as its file's layout says; damaged files are named."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbridge.errors import SnapshotError
from kdbridge.snapshot.coverage import Coverage, PageState
from protocol.address import PageRun, PageRuns

_READ, _UNREADABLE = PageState.READ, PageState.UNREADABLE
_HEAD = b"KDCOVER1" + (4096).to_bytes(4, "little") + bytes(4)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "coverage", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def _file(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def test_the_file_holds_one_byte_a_frame_behind_its_header(fd: int) -> None:
    coverage = Coverage.create(fd)
    assert _file(fd) == _HEAD
    for pfn, state in ((2, _READ), (3, _READ), (5, _UNREADABLE)):
        coverage.add(pfn, state)
    assert _file(fd) == _HEAD, "nothing is said before it is saved"
    coverage.save()
    assert _file(fd) == _HEAD + bytes([0, 0, 1, 1, 0, 2])


def test_what_was_added_is_known_before_and_after_it_is_saved(fd: int) -> None:
    rng = random.Random(3)
    coverage = Coverage.create(fd)
    truth: dict[int, PageState] = {}
    for _ in range(2000):
        pfn = rng.randrange(400)
        if pfn not in truth:
            truth[pfn] = rng.choice([_READ, _READ, _UNREADABLE])
            coverage.add(pfn, truth[pfn])
        if rng.random() < 0.01:
            coverage.save()
        probe = rng.randrange(500)
        assert coverage.state_of(probe) is truth.get(probe, PageState.MISSING)
    coverage.save()
    for one in (coverage, Coverage.load(fd, "coverage")):
        for state in (_READ, _UNREADABLE):
            assert one.runs(state) == PageRuns.from_pages(pfn for pfn, known in truth.items() if known is state)


@pytest.mark.parametrize("saved", [False, True])
def test_a_page_that_was_refused_once_and_came_later_is_read(fd: int, saved: bool) -> None:
    coverage = Coverage.create(fd)
    for pfn in (6, 7, 8):
        coverage.add(pfn, _UNREADABLE)
    if saved:
        coverage.save()
    coverage.add(7, _READ)
    coverage.add(7, _UNREADABLE)  # its content is here: that it cannot be had now says nothing
    coverage.save()
    for one in (coverage, Coverage.load(fd, "coverage")):
        assert one.runs(_READ) == PageRuns([PageRun(7, 1)])
        assert one.runs(_UNREADABLE) == PageRuns.from_pages([6, 8])
        assert one.state_of(7) is _READ


def test_frames_far_apart_cost_no_disk(fd: int) -> None:
    coverage = Coverage.create(fd)
    for pfn in (0, (64 << 30) >> 12, (4 << 40) >> 12):
        coverage.add(pfn, _READ)
    coverage.save()
    assert os.fstat(fd).st_size == len(_HEAD) + (4 << 28) + 1
    assert os.fstat(fd).st_blocks * 512 < 1 << 20
    assert Coverage.load(fd, "coverage").runs(_READ).page_count == 3


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a coverage file"),
        (_HEAD[:15], "not a coverage file"),
        (b"KDCOVER2" + _HEAD[8:], "not a coverage file"),
        (_HEAD[:8] + (8192).to_bytes(4, "little") + bytes(4), "not a coverage file"),
        (_HEAD + bytes([1, 0, 5, 1]), "holds the state 5 at frame 0x2"),
        (_HEAD + bytes(5000) + b"\xff", "holds the state 255 at frame 0x1388"),
    ],
)
def test_a_file_that_is_none_is_named(fd: int, data: bytes, problem: str) -> None:
    os.pwrite(fd, data, 0)
    with pytest.raises(SnapshotError, match=problem):
        Coverage.load(fd, "the file")


def test_a_torn_file_is_read_in_one_pass(fd: int) -> None:
    def seconds(frames: int) -> float:
        os.pwrite(fd, _HEAD + bytes([1, 2]) * (frames // 2), 0)
        started = time.process_time()
        coverage = Coverage.load(fd, "coverage")
        took = time.process_time() - started
        assert len(coverage.runs(_READ)) == len(coverage.runs(_UNREADABLE)) == frames // 2
        return took

    small, large = seconds(1 << 13), seconds(1 << 17)
    assert large < 16 * small * 5, "sixteen times as many frames take about sixteen times as long, not 256 times"
