"""How much a capture may take: until when, and how many bytes. What comes first ends it; what was read stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio

__all__ = ["Budget"]


class Budget:
    """One capture's. Over several connections to the same target it is the same one."""

    def __init__(self, *, deadline: float = inf, size: float = inf) -> None:
        """`deadline` on trio's clock; `size` in bytes of memory read."""
        self.deadline = deadline
        self.size = size
        self.used = 0
        self.spent = ""
        """What ended the capture, in words; empty while nothing has."""
        self._scope: trio.CancelScope | None = None

    def use(self, size: int) -> None:
        """So many bytes were read."""
        self.used += size
        if self.used >= self.size and self._scope is not None:
            self._scope.cancel()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What runs in here ends, wherever it is, when the budget is used up. `spent` says whether it was."""
        with trio.CancelScope(deadline=self.deadline) as self._scope:
            yield
        if self._scope.cancelled_caught:
            self.spent = "the bytes" if self.used >= self.size else "the time"
        self._scope = None
