"""A stream over a POSIX file descriptor, with nothing between: a read waits for the line once, a write not at all.

A debugger's line is stop-and-wait: when it reads, nothing has come yet, and when it writes, there is room. What trio's
own streams do beyond that (trying first, guarding against two users) costs as much time as a target takes to answer.
"""

from __future__ import annotations

import os
import select
import time

import trio

__all__ = ["DescriptorStream"]

_SPIN = 0.0003 if (os.cpu_count() or 1) > 1 else 0.0
"""Seconds to look again and again before going to sleep: being woken takes as long as a fast target's answer. With one
processor it would keep a target on the same machine from answering."""


class DescriptorStream:
    """A socket's or tty's descriptor, which it takes over and makes non-blocking. One task uses it at a time."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    async def send_all(self, data: bytes) -> None:
        """Write all of it. Raises OSError, or trio.ClosedResourceError after `aclose`."""
        if self._fd < 0:
            raise trio.ClosedResourceError
        done = 0
        while done < len(data):
            try:
                done += os.write(self._fd, data[done:] if done else data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._fd)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, as soon as anything has; empty at the end. Always lets other tasks run. Raises as above."""
        if self._fd < 0:
            raise trio.ClosedResourceError
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return os.read(self._fd, max_bytes or 65536)
            except BlockingIOError:
                continue

    def receive_within(self, seconds: float) -> bytes | None:
        """What comes within this short time, empty at the end; None: nothing did. Nothing else runs meanwhile."""
        if self._fd < 0:
            raise trio.ClosedResourceError
        if not self._spin() and not self._poll.poll(seconds * 1000):
            return None
        try:
            return os.read(self._fd, 65536)
        except BlockingIOError:
            return None

    def _spin(self) -> bool:
        ready = self._poll.poll
        until = time.perf_counter() + _SPIN
        while not ready(0):
            if time.perf_counter() >= until:
                return False
        return True

    async def aclose(self) -> None:
        """Close it; whoever still waits for it is woken with trio.ClosedResourceError."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
