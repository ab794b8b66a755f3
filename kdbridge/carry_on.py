"""Carrying on: when the link to a target is lost, connect again, as often as it takes, and go on with the work.

Work is done over a connection, and picks up where it stopped when it is begun again over the next one. What was read
is in the Snapshot, so that nothing is lost with a connection but what was under way.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf

import trio

from protocol.errors import KdError

from .errors import NoContactError, TargetChangedError, TargetLostError, TransportError
from .opening import OpenTarget

__all__ = ["carried_on"]

_Connect = Callable[[], AbstractAsyncContextManager[OpenTarget]]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 0.5
_SLEPT = 5.0


@asynccontextmanager
async def carried_on(
    connect: _Connect,
    work: Callable[[OpenTarget], Awaitable[None]],
    *,
    patience: float,
    report: Callable[[str], None],
) -> AsyncIterator[OpenTarget]:
    """The connection over which `work` was finished, still open.

    A link that is lost, or a target that fell silent, is looked for again, with pauses that grow to half a second,
    until `patience` seconds went by without contact (0: at once; inf: for ever); then the loss is raised. Raised at
    once is what leaves nothing to go on with (TargetChangedError above all), and all that happens before the first
    contact.
    """
    async with AsyncExitStack() as open_still:
        sleep = _SleepWatch()
        lost_at: float | None = None
        loss: KdError | None = None
        pause = _FIRST_PAUSE
        met = False

        async def attempt() -> OpenTarget | None:
            nonlocal lost_at, loss, pause, met
            try:
                async with AsyncExitStack() as stack:
                    opened = await stack.enter_async_context(connect())
                    if lost_at is not None:
                        report(f"there it is again, after {trio.current_time() - lost_at:.0f} s")
                    met, lost_at, pause = True, None, _FIRST_PAUSE
                    await work(opened)
                    open_still.push_async_exit(stack.pop_all())
                    return opened
            except (TransportError, NoContactError, TargetLostError) as error:
                if isinstance(error, TargetChangedError) or not met or patience <= 0:
                    raise
                if slept := sleep.since_last():
                    report(f"this computer slept for {slept:,.0f} s")
                if lost_at is None:
                    lost_at, loss = trio.current_time(), error
                    until = "until Ctrl-C" if patience == inf else f"for {patience:g} s"
                    report(f"{error}\nwhat was read is kept; looking for the target again, {until}")
                if trio.current_time() + pause - lost_at > patience:
                    raise loss or error from error
                return None

        while (opened := await attempt()) is None:
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        yield opened


class _SleepWatch:
    """Notices that this computer was asleep: real time went on, and the clock that timers run by did not."""

    def __init__(self) -> None:
        self._apart = self._now()

    @staticmethod
    def _now() -> float:
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        real = time.clock_gettime(boot) if boot is not None else time.time()  # noqa: TID251  (nothing else goes on)
        return real - time.monotonic()

    def since_last(self) -> float:
        """Seconds of sleep since the last call; 0: none to speak of."""
        before, self._apart = self._apart, self._now()
        slept = self._apart - before
        return slept if slept > _SLEPT else 0.0
