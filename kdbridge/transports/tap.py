"""A tap on a way to a target: whoever holds it sees every byte, or every datagram, both ways. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from protocol.kdnet import Address

from .transport import DatagramTransport, PromptTransport, Transport

__all__ = ["StreamWatch", "Tap", "tapped", "untapped"]


class StreamWatch(Protocol):
    """Is shown what goes over a line. Must not raise, and not take long."""

    def __call__(self, to_target: bool, data: bytes) -> None:
        """Bytes, as they were written or read at once."""
        ...


@dataclass(frozen=True, slots=True)
class Tap:
    """Who is shown what: of a line its bytes, of a network its datagrams, each with its source and destination."""

    stream: StreamWatch
    datagram: Callable[[Address, Address, bytes], None]


class _Tapped:
    """A line with a tap on it."""

    def __init__(self, inner: Transport, watch: StreamWatch) -> None:
        self.inner = inner
        self._watch = watch

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def notes(self) -> tuple[str, ...]:
        return self.inner.notes

    async def send(self, data: bytes) -> None:
        # Before it is written: the answer may be there before this task goes on.
        self._watch(True, data)
        await self.inner.send(data)

    async def receive(self) -> bytes:
        data = await self.inner.receive()
        self._watch(False, data)
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


class _PromptTapped(_Tapped):
    """A line that can be looked at without going to sleep, with a tap on it."""

    def __init__(self, inner: Transport, prompt: PromptTransport, watch: StreamWatch) -> None:
        super().__init__(inner, watch)
        self._prompt = prompt

    def receive_within(self, seconds: float) -> bytes | None:
        data = self._prompt.receive_within(seconds)
        if data:
            self._watch(False, data)
        return data


def tapped(way: Transport, tap: Tap) -> Transport:
    """The same way, watched from now on. What it is beside a way (prompt, of datagrams) it stays."""
    if isinstance(way, DatagramTransport):
        own = way.address

        def watch(sent: bool, data: bytes, peer: Address) -> None:
            tap.datagram(*((own, peer) if sent else (peer, own)), data)

        way.watch = watch
        return way
    if isinstance(way, PromptTransport):
        return _PromptTapped(way, way, tap.stream)
    return _Tapped(way, tap.stream)


def untapped(way: Transport) -> Transport:
    """The way itself, without the tap that may be on it."""
    return way.inner if isinstance(way, _Tapped) else way
