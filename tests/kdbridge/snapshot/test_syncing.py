"""Making files durable in a thread: begun at once, waited for when it is settled, and its error told there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kdbridge.snapshot.syncing import Syncing


def test_what_is_begun_does_not_wait_and_what_is_settled_does(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    synced: list[int] = []

    def fsync(fd: int) -> None:
        may_end.wait()
        synced.append(fd)

    monkeypatch.setattr("os.fsync", fsync)
    syncing = Syncing()
    syncing.begin(7)
    before = syncing.busy, list(synced)
    may_end.set()
    syncing.settle()
    assert (before, synced, syncing.busy) == ((True, []), [7], False)
    syncing.settle()
    syncing.close()


def test_the_error_of_a_disk_is_told_when_it_is_settled(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        closed = file.fileno()
    syncing = Syncing()
    syncing.begin(closed)
    with pytest.raises(OSError, match="descriptor"):
        syncing.settle()
    assert not syncing.busy
    syncing.close()
