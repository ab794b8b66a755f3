"""What the engine needs of a way to a target: bytes out, bytes in."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Transport"]


class Transport(Protocol):
    """An open way to a target. One task uses it at a time. Cancelling `receive` loses nothing."""

    @property
    def url(self) -> str:
        """How the user named it, for messages: `serial:/dev/ttyUSB0?baud=115200`."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how it was opened: a low latency that could not be set, a peer's address."""
        ...

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises TransportLostError when the way is gone."""
        ...

    async def receive(self) -> bytes:
        """At least one byte, as soon as there is one. Raises TransportLostError when the way is gone."""
        ...

    async def aclose(self) -> None:
        """Give the port or connection back. Never raises."""
        ...
