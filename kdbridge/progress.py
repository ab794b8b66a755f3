"""Progress: what is being done, how much of how much, how fast, and how long it will still take. Plain values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Meter", "Progress", "ProgressSink"]

_WINDOW = 15.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at how far it is. Sizes in bytes, times in seconds."""

    what: str
    done: int
    total: int | None
    rate: float
    """Bytes a second over the last quarter of a minute."""
    unreadable: int
    """Pages that the target refused so far."""
    next: str = ""
    """What will be whole first, before all is done; empty where nothing is."""
    next_total: int | None = None
    """Bytes up to there."""

    @property
    def time_left(self) -> float | None:
        """At the present rate; None while nobody can know."""
        if self.total is None or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate

    @property
    def time_to_next(self) -> float | None:
        """Until `next` is whole; None while nobody can know."""
        if not self.next or self.next_total is None or self.rate <= 0:
            return None
        return max(self.next_total - self.done, 0) / self.rate


ProgressSink = Callable[[Progress], None]


class Meter:
    """Turns what was done into Progress, a few times a second and not at every page."""

    __slots__ = (
        "_last_told", "_points", "_sink", "done", "interval", "next", "next_total", "total",
        "unreadable", "what",
    )  # fmt: skip

    def __init__(self, sink: ProgressSink | None, what: str, total: int | None, interval: float = 0.25) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self.unreadable = 0
        self.next = ""
        self.next_total: int | None = None
        self.interval = interval
        self._sink = sink
        self._points: deque[tuple[float, int]] = deque()
        self._last_told = float("-inf")

    def tell(self, now: float, *, always: bool = False) -> None:
        """Tell the sink, if it is time to."""
        if self._sink is None or (now < self._last_told + self.interval and not always):
            return
        self._last_told = now
        self._points.append((now, self.done))
        while len(self._points) > 2 and self._points[0][0] < now - _WINDOW:
            self._points.popleft()
        start, amount = self._points[0]
        rate = (self.done - amount) / (now - start) if now > start else 0.0
        self._sink(Progress(self.what, self.done, self.total, rate, self.unreadable, self.next, self.next_total))
