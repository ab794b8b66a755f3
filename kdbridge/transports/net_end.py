"""The host's end of KDNET, whatever carries its datagrams: the link, what is told of it, and what is sent by itself."""

from __future__ import annotations

import os
from collections.abc import Callable

from kdbridge.cipher import AesCbc
from protocol.kdnet import Address, ControlKey, HostChannel, KdnetLink
from protocol.link import Discard

from .net_waiting import Place, explain_waiting, show_address

__all__ = ["HostEnd", "HostWay"]

_EVERY_TARGET = 1096
"""Data bytes that targets of every version send in one reply (kdnet 6)."""
_SOLICIT = 0.5
_STRANGERS = 100.0
"""Datagrams a second that are looked at from elsewhere than the target: more than targets poke, and few to decrypt."""


class HostEnd:
    """A link that is driven: datagrams in, datagrams out, news in words."""

    def __init__(self, key: ControlKey, place: Place, target: Address | None = None) -> None:
        self.place = place
        self.received = 0
        """Bytes of all datagrams that moved the conversation."""
        self.unexamined = 0
        """Datagrams from elsewhere than the target that nobody looked at: there were too many."""
        self.tell: Callable[[str], None] = lambda text: None
        self._channel = HostChannel(key, AesCbc(), os.urandom)
        self.link = KdnetLink(self._channel)
        self._target = target
        self._next_solicit = float("-inf")
        self._patience, self._patience_at = _STRANGERS, float("-inf")
        self._restarts = self._moves = self._strangers = self._versions = 0

    def receive(self, datagram: bytes, source: Address, now: float) -> bool:
        """One datagram came. True: who sits above has to be woken."""
        if source != self.link.peer and self.link.peer is not None and not self._has_patience(now):
            self.unexamined += 1
            return False
        woken = self.link.receive_datagram(datagram, source, now)
        if woken:
            self.received += len(datagram)
        self._tell_news(source)
        return woken

    def solicit(self, now: float) -> float | None:
        """Ask the target to poke, where that is due; when to ask again. None: there is nobody to be asked."""
        if self._target is None or self.link.peer is not None:
            return None
        if now >= self._next_solicit:
            self._channel.solicit(self._target)
            self._next_solicit = now + _SOLICIT
        return self._next_solicit

    @property
    def transfer_sizes(self) -> tuple[int, int]:
        """Data bytes of a reply: what every target can send, and what one of this version was seen to."""
        return _EVERY_TARGET, max(_EVERY_TARGET, self.link.largest_transfer)

    def explain(self, wait: float | None = None) -> str | None:
        """Why there is no session; None: there is one."""
        return None if self.link.peer is not None else explain_waiting(self.place, self.link.facts, wait)

    def loss(self) -> str:
        """That another debugger has the target, or that it cannot be reached."""
        peer = self.link.peer
        if peer is None:
            return ""
        if why := self.place.unsent.get(show_address(peer)):
            return f"Nothing can be sent to {show_address(peer)}: {why}."
        seen = self.link.facts.poked_by.get(peer)
        if seen is None or not seen.owned_elsewhere:
            return ""
        owner = show_address((seen.poke.bound.address, seen.poke.bound.port))
        return f"Another debugger, at {owner}, has taken it."

    def _has_patience(self, now: float) -> bool:
        self._patience = min(_STRANGERS, self._patience + (now - self._patience_at) * _STRANGERS)
        self._patience_at = now
        if self._patience < 1:
            return False
        self._patience -= 1
        return True

    def _tell_news(self, source: Address) -> None:
        facts = self.link.facts
        if facts.restarts != self._restarts:
            self._restarts = facts.restarts
            self.tell(f"the target at {show_address(source)} restarted")
        elif facts.moves != self._moves:
            self.tell(f"the target goes on from another address: {show_address(source)}")
        self._moves = facts.moves
        strangers = len(facts.sources.get(Discard.OTHER_MACHINE, ()))
        if strangers > self._strangers:
            self.tell(f"another machine with the same key pokes from {show_address(source)}; it is left alone")
        self._strangers = max(self._strangers, strangers)
        if len(facts.unknown_versions) != self._versions:
            self._versions = len(facts.unknown_versions)
            version = max(facts.unknown_versions)
            self.tell(f"{show_address(source)} speaks KDNET version {version}, of which nothing is known; it is "
                      "answered all the same")  # fmt: skip


class HostWay:
    """What every way to a target on the network says of itself, out of the host's end behind it."""

    def __init__(self, url: str, end: HostEnd) -> None:
        self._url = url
        self._end = end
        self.watch: Callable[[bool, bytes, Address], None] | None = None
        """Is shown every datagram as it is on the wire: whether we sent it, its bytes, and the other end's address."""

    @property
    def url(self) -> str:
        """Where it is. A key is masked."""
        return self._url

    @property
    def tell(self) -> Callable[[str], None]:
        """Is told in words what happens besides the conversation."""
        return self._end.tell

    @tell.setter
    def tell(self, tell: Callable[[str], None]) -> None:
        self._end.tell = tell

    @property
    def link(self) -> KdnetLink:
        """The host's end."""
        return self._end.link

    @property
    def received(self) -> int:
        """Bytes of all datagrams that moved the conversation."""
        return self._end.received

    @property
    def transfer_sizes(self) -> tuple[int, int]:
        """Data bytes of a reply: what every target can send, and what this one may be tried with."""
        return self._end.transfer_sizes

    def explain(self, wait: float | None = None) -> str | None:
        """Why there is no session; None: there is one."""
        return self._end.explain(wait)

    def loss(self) -> str:
        """What speaks for the target being lost."""
        return self._end.loss()
