"""pty: a new pseudo terminal, as a serial line that a program on this machine opens.

pty:          its name is told
pty:PATH      with a symbolic link at PATH
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from pathlib import Path

import trio

from kdbridge.errors import TransportLostError, TransportOpenError

from .stream import reason

__all__ = ["PtyTransport", "open_pty"]

_CHUNK = 65536
_LOOK = 0.02
"""Seconds between two looks whether somebody has opened it: the kernel tells when it is closed only."""
_PATIENCE = 0.5
"""Seconds in which what is sent must be taken; then the line loses it, as a UART does with what nobody reads."""


class PtyTransport:
    """A pseudo terminal of which one side is ours. Whoever opens the other is the peer, until it is closed again."""

    def __init__(self, master: int, name: str, link: Path | None) -> None:
        self._master = master
        self._name = name
        self._link = link
        self._stream = trio.lowlevel.FdStream(master)
        self._poll = select.poll()
        self._poll.register(master, select.POLLHUP)
        self._opened = False
        """Somebody was seen to have it open, and not yet that it was closed."""
        self._notes: tuple[str, ...] = (f"waits at {self.path} for somebody to open it",)

    @property
    def path(self) -> str:
        """What has to be opened."""
        return str(self._link or self._name)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"pty:{self.path}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be opened, and that it was."""
        return self._notes

    @property
    def connected(self) -> bool:
        """Whether somebody has it open."""
        return not any(events & select.POLLHUP for _, events in self._poll.poll(0))

    async def wait(self) -> None:
        """Wait until somebody has it open."""
        if not self.connected:
            self._forget()
        while not self.connected:  # noqa: ASYNC110  (only by looking can it be known)
            await trio.sleep(_LOOK)
        self._opened = True
        self._notes = (*self._notes[:1], f"opened: {self.path}")

    async def send(self, data: bytes) -> None:
        """Write what is taken. Raises TransportLostError when it was closed."""
        try:
            with trio.move_on_after(_PATIENCE):
                await self._stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._gone(error) from error

    async def receive(self) -> bytes:
        """At least one byte. Raises TransportLostError when whoever had it open has closed it."""
        # Whoever had it open may have closed it meanwhile: that is told, and what he wrote before, too.
        if not self._opened:
            await self.wait()
        try:
            data = await self._stream.receive_some(_CHUNK)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone(None)
        return bytes(data)

    async def aclose(self) -> None:
        """Remove it."""
        with suppress(OSError):
            if self._link is not None and self._link.is_symlink() and str(self._link.readlink()) == self._name:
                self._link.unlink()
        with trio.CancelScope() as scope:
            scope.cancel()
            await self._stream.aclose()

    def _forget(self) -> None:
        """What the one before did not read is not for the next one."""
        import termios

        with suppress(OSError, termios.error):
            slave = os.open(self._name, os.O_RDWR | os.O_NOCTTY)
            try:
                termios.tcflush(slave, termios.TCIFLUSH)
            finally:
                os.close(slave)

    def _gone(self, error: BaseException | None) -> TransportLostError:
        self._opened = False
        detail = "" if error is None else f" ({reason(error)})"
        return TransportLostError(f"{self.url}: whoever had it open has closed it{detail}")


def open_pty(text: str) -> PtyTransport:
    """`pty:` or `pty:PATH`. Raises TransportOpenError."""
    if sys.platform == "win32":
        raise TransportOpenError(f"{text}: there are no pseudo terminals on Windows; use tcp-listen: or pipe:")
    import pty
    import tty

    place = text.partition(":")[2]
    link = Path(place) if place else None
    try:
        master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            name = os.ttyname(slave)
            if link is not None:
                if link.is_symlink():
                    link.unlink()
                link.symlink_to(name)
        except BaseException:
            os.close(master)
            raise
        finally:
            # Not kept open here: so the master hears when the last one has closed it.
            os.close(slave)
    except OSError as error:
        raise TransportOpenError(f"{text}: no pseudo terminal can be made there: {reason(error)}") from error
    return PtyTransport(master, name, link)
