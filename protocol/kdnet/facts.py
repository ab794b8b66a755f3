"""What has been heard on the network, counted: all that somebody who waits in vain needs to know. Bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from protocol.link import Discard, Discarded

from .control import Endpoint, Poke
from .datagram import KNOWN_VERSIONS

__all__ = ["MOST_SOURCES", "Address", "KdnetFacts", "SeenPoke"]

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""A UDP peer as its socket names it: address and port, and two more numbers for IPv6. Given back as it came."""

MOST_SOURCES = 16
"""Addresses remembered for one reason; a new one takes the place of the one heard least."""

_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class SeenPoke:
    """The last genuine poke from one address."""

    source: Address
    poke: Poke
    version: int
    count: int
    """How many came from there."""
    first_at: float
    last_at: float

    @property
    def is_link_local(self) -> bool:
        """The target got no DHCP lease: it has an address that no router forwards."""
        return self.poke.own.is_link_local or Endpoint(self.source[0], self.source[1]).is_link_local

    @property
    def owned_elsewhere(self) -> bool:
        """Its data channel belongs to a debugger that is not where the target was told to look for one."""
        return self.poke.bound.port != 0 and self.poke.bound != self.poke.configured


@dataclass(slots=True)
class KdnetFacts:
    """Read it, never write it. Datagrams are counted here, bytes in `Discarded` events."""

    datagrams: int = 0
    discarded: Counter[Discard] = field(default_factory=Counter)
    sources: dict[Discard, dict[Address, int]] = field(default_factory=dict)
    """For every reason, from which addresses how many; at most MOST_SOURCES each."""
    poked_by: dict[Address, SeenPoke] = field(default_factory=dict)
    """Genuine pokes; at most MOST_SOURCES addresses."""
    pokes: int = 0
    """Genuine pokes heard (host) or sent (target)."""
    keep_alives: int = 0
    """Pokes of a target that is ours already."""
    responses: int = 0
    """Responses sent (host) or accepted (target)."""
    sessions: int = 0
    """Keys that came into use."""
    restarts: int = 0
    """Of these, how often the target had begun a new life in the middle of a session."""
    moves: int = 0
    """How often a session went on from another address or port."""
    gaps: int = 0
    """Packets that the target counts as delivered and that never came."""
    unknown_versions: set[int] = field(default_factory=set)
    """Version bytes of genuine datagrams that no target was seen with before."""
    _undelivered: dict[Discard, Discarded] = field(default_factory=dict)

    @property
    def link_local(self) -> list[SeenPoke]:
        """Targets without a DHCP lease."""
        return [seen for seen in self.poked_by.values() if seen.is_link_local]

    @property
    def owned_elsewhere(self) -> list[SeenPoke]:
        """Targets that another debugger has."""
        return [seen for seen in self.poked_by.values() if seen.owned_elsewhere]

    def discard(self, reason: Discard, data: bytes, source: Address | None = None) -> None:
        """Count what was thrown away. Of each reason one event at most waits to be taken, with its bytes added up."""
        self.discarded[reason] += 1
        before = self._undelivered.get(reason)
        if before is None:
            self._undelivered[reason] = Discarded(reason, len(data), data[:_SAMPLE])
        else:
            self._undelivered[reason] = Discarded(reason, before.count + len(data), before.sample)
        if source is not None:
            heard = self.sources.setdefault(reason, {})
            if source not in heard and len(heard) >= MOST_SOURCES:
                del heard[min(heard, key=heard.__getitem__)]
            heard[source] = heard.get(source, 0) + 1

    def take_discarded(self) -> Discarded | None:
        """What was thrown away since this was asked last, one reason after the other."""
        if not self._undelivered:
            return None
        return self._undelivered.pop(next(iter(self._undelivered)))

    def saw_version(self, version: int) -> None:
        """A genuine datagram had this version byte."""
        if version not in KNOWN_VERSIONS:
            self.unknown_versions.add(version)

    def saw_poke(self, source: Address, poke: Poke, version: int, now: float) -> None:
        """A genuine poke came."""
        self.pokes += 1
        self.saw_version(version)
        before = self.poked_by.get(source)
        if before is None and len(self.poked_by) >= MOST_SOURCES:
            del self.poked_by[min(self.poked_by, key=lambda each: self.poked_by[each].last_at)]
        count, first_at = (before.count + 1, before.first_at) if before else (1, now)
        self.poked_by[source] = SeenPoke(source, poke, version, count, first_at, now)
