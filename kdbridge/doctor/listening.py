"""Listening to a line without sending: what comes, and when; at other speeds, where the port can have them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from kdbridge.errors import TransportError
from kdbridge.overheard import Overheard
from kdbridge.transports import Transport

from .packets import scan
from .texts import look_for_text

__all__ = ["OpenAt", "Progress", "find_baud", "listen"]

OpenAt = Callable[[int], Awaitable[Transport]]
"""Opens the same port at another speed."""

Progress = Callable[[str], None]
"""Is told in words what is being done, when that takes long."""

_ENOUGH = 16
_EVERY = 2.0
_LOUDEST = 1 << 24
"""Bytes that are listened to at most: a line that floods us says no more afterwards."""


async def listen(way: Transport, overheard: Overheard, seconds: float, progress: Progress) -> None:
    """Add what comes within this time. Sends nothing. Ends early where the way is lost."""
    started = trio.current_time()
    begun = overheard.seconds
    due = started + _EVERY
    with trio.move_on_after(seconds):
        while overheard.counted[False] < _LOUDEST:
            with trio.move_on_at(due):
                data = await way.receive()
                overheard.add(begun + trio.current_time() - started, False, data)
            passed = trio.current_time() - started
            if trio.current_time() >= due:
                due = trio.current_time() + _EVERY
                progress(f"listening: {overheard.counted[False]} bytes in {passed:.0f} of {seconds:g} seconds")
    overheard.seconds = max(overheard.seconds, begun + trio.current_time() - started)


async def find_baud(open_at: OpenAt, rates: Iterable[int], seconds: float, progress: Progress) -> int | None:
    """The speed at which packets come; where none do, the first at which text comes. Sends nothing."""
    text: int | None = None
    for rate in rates:
        progress(f"listening at {rate} baud")
        heard = Overheard(rate)
        try:
            way = await open_at(rate)
            try:
                await listen(way, heard, seconds, lambda text: None)
            finally:
                await way.aclose()
        except TransportError as error:
            progress(str(error))
        stream = heard.received
        if scan(stream, ended=False).good:
            return rate
        # At a wrong speed, too, some bytes may be characters by chance: packets at another one outweigh them.
        console = look_for_text(stream) if len(stream) >= _ENOUGH else None
        if text is None and console is not None and not console.parity and len(set(stream)) >= _ENOUGH // 2:
            text = rate
    return text
