"""A pseudo terminal of ours, as a line that another program opens, closes and opens again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.errors import TransportLostError, TransportOpenError
from kdbridge.transports.pty import PtyTransport, open_pty

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are none on Windows")


def _is_open(line: PtyTransport) -> bool:
    return line.connected


async def test_bytes_go_both_ways_as_they_are(tmp_path: Path) -> None:
    everything = bytes(range(256))
    line = open_pty(f"pty:{tmp_path / 'line'}")
    assert line.notes == (f"waits at {tmp_path / 'line'} for somebody to open it",)
    assert _is_open(line) is False
    peer = os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY)
    try:
        await line.wait()
        assert _is_open(line) and line.notes[-1] == f"opened: {tmp_path / 'line'}"
        await line.send(everything)
        assert os.read(peer, 4096) == everything
        os.write(peer, everything)
        assert await line.receive() == everything
    finally:
        os.close(peer)
    await line.aclose()


async def test_whoever_closes_it_is_gone_and_the_next_finds_nothing_of_what_was_left(tmp_path: Path) -> None:
    line = open_pty(f"pty:{tmp_path / 'line'}")
    first = os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY)
    await line.wait()
    await line.send(b"unread")
    os.close(first)
    gone = trio.Event()

    async def hear() -> None:
        with pytest.raises(TransportLostError, match="whoever had it open has closed it"):
            await line.receive()
        gone.set()

    async with trio.open_nursery() as nursery:
        second = os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY)
        nursery.start_soon(hear)
        await trio.testing.wait_all_tasks_blocked()
        os.close(second)
        with trio.fail_after(5):
            await gone.wait()
    assert _is_open(line) is False
    third: list[int] = []

    async def come() -> None:
        third.append(os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(come)
    await line.send(b"new")
    assert os.read(third[0], 100) == b"new"
    os.close(third[0])
    await line.aclose()
    assert not (tmp_path / "line").exists()


async def test_a_link_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportOpenError, match="no pseudo terminal can be made there: No such file or directory"):
        open_pty(f"pty:{tmp_path / 'missing' / 'line'}")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(TransportOpenError, match="File exists"):
        open_pty(f"pty:{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "precious"


async def test_what_was_written_before_it_was_closed_comes_and_then_that_it_was(tmp_path: Path) -> None:
    line = open_pty(f"pty:{tmp_path / 'line'}")
    peer = os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY)
    await line.wait()
    os.write(peer, b"the last words")
    os.close(peer)
    with trio.fail_after(5):
        assert await line.receive() == b"the last words"
        with pytest.raises(TransportLostError, match="whoever had it open has closed it"):
            await line.receive()
    await line.aclose()
