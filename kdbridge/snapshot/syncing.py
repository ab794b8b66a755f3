"""Making a file durable without waiting for the disk: in a thread, while more is read."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Syncing"]


class Syncing:
    """The fsync of one file that is under way, if any."""

    __slots__ = ("_pool", "_under_way")

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """One was begun and not settled."""
        return self._under_way is not None

    def begin(self, fd: int) -> None:
        """Begin to make what was written to this file up to now durable."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "fsync")
        self._under_way = self._pool.submit(os.fsync, fd)

    def settle(self) -> None:
        """Wait until it is durable. Raises OSError."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Wait for what is under way, however it ends."""
        if self._pool is not None:
            self._pool.shutdown()
