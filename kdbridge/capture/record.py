"""Recording what goes over the way to a target, while somebody works over it. A full disk ends the recording alone."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import trio

from kdbridge.errors import FileError
from kdbridge.transports.tap import Tap
from protocol.kdnet import Address

from .writer import CaptureWriter

__all__ = ["Recorder"]


class Recorder:
    """A new recording. Its `tap` is what is put on a way; `close` ends it. Keys never come near it.

    When the file cannot grow any more, `tell` gets one sentence, and the rest is not recorded.
    """

    def __init__(self, path: Path, *, name: str, tell: Callable[[str], None] | None = None) -> None:
        """Raises FileError when the file exists or cannot be made."""
        self._writer: CaptureWriter | None = CaptureWriter(path, name=name)
        self._path = path
        self._tell = tell or (lambda text: None)
        self._own: dict[str, str] = {}
        # Wall-clock time at the beginning; from there on a clock that nobody sets.
        self._epoch = datetime.now(UTC).timestamp() - trio.current_time()

    @property
    def tap(self) -> Tap:
        """What is put on a way."""
        return Tap(self.serial, self.datagram)

    def serial(self, to_target: bool, data: bytes) -> None:
        """Bytes of a line."""
        if self._writer is not None:
            try:
                self._writer.serial(self._now(), to_target, data)
            except FileError as error:
                self._failed(error)

    def datagram(self, source: Address, destination: Address, data: bytes) -> None:
        """A datagram of a network. An end that is bound to all addresses of this machine gets the one it came by."""
        if self._writer is not None:
            try:
                ends = self._here(source, destination), self._here(destination, source)
                self._writer.datagram(self._now(), *ends, data)
            except FileError as error:
                self._failed(error)

    def close(self) -> None:
        """The recording is at its end."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _now(self) -> float:
        return self._epoch + trio.current_time()

    def _failed(self, error: FileError) -> None:
        self.close()
        self._tell(f"{error}: the recording ends here; what was recorded up to here is kept, and the work goes on")

    def _here(self, own: Address, peer: Address) -> Address:
        """This end's address as the peer sees it, where the socket is bound to all of them."""
        with suppress(ValueError):
            if not ipaddress.ip_address(own[0].partition("%")[0]).is_unspecified:
                return own
        known = self._own.get(peer[0])
        if known is None:
            known = self._own[peer[0]] = _leading_to(peer)
        return known, own[1]


def _leading_to(peer: Address) -> str:
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Says which way it is; nothing is sent.
        probe.connect(peer)
        return str(probe.getsockname()[0])
    return "::" if family == socket.AF_INET6 else "0.0.0.0"
