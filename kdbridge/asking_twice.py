"""Asking twice: what everything else is built on (registers, KDBG, lists) is asked for again on a bad line."""

from __future__ import annotations

from collections.abc import Callable

from protocol.conversation import Replied, RequestFailed, Told
from protocol.manipulate import Manipulate

from .engine import Engine

__all__ = ["AskingTwice"]

_ENOUGH = 3
_MOST_ASKED = 8


class AskingTwice:
    """Single questions to a target, where it matters each until two of its answers are alike."""

    __slots__ = ("_engine", "_settle", "always", "never")

    def __init__(self, engine: Engine, settle: Callable[[Replied | Told | RequestFailed], Manipulate]) -> None:
        """`settle` makes a reply of what came of a request, or raises."""
        self._engine = engine
        self._settle = settle
        self.always = False
        """Even on a line that did nothing wrong."""
        self.never = False
        """Not even on a line that did."""

    @property
    def wanted(self) -> bool:
        """Whether one answer is not enough: where some packets came damaged, others may have and passed for good."""
        return not self.never and (self.always or self._engine.damaged >= _ENOUGH)

    async def ask(self, request: Manipulate, *, repeatable: bool) -> Manipulate:
        """The answer; if it is `repeatable` and wanted, the first that came twice, or the last if each is another."""
        outcome = await self._engine.request(request, repeatable=repeatable)
        replies = [self._settle(outcome)]
        # A long read may have become a shorter one on the way.
        request = outcome.request
        while repeatable and self.wanted and len(replies) < _MOST_ASKED:
            reply = self._settle(await self._engine.request(request, repeatable=True))
            if any(_alike(reply, other) for other in replies):
                return reply
            replies.append(reply)
        return replies[-1]


def _alike(one: Manipulate, other: Manipulate) -> bool:
    """In all that an answer says; the processor's number in it may be garbage."""
    return (one.status, one.union, one.data) == (other.status, other.union, other.data)
