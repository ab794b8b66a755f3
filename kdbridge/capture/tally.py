"""Tally: what was in a capture, counted, and what of it could not be opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .decoded import DecodedPacket, Kind, Odd
from .frames import Medium

__all__ = ["Tally"]

_SHUT = (Odd.AUTHENTICATION, Odd.UNDECRYPTED)
_MOST_PAIRS = 16


class Tally:
    """Counts packets as they come by."""

    def __init__(self) -> None:
        self.packets = 0
        self.datagrams = 0
        self.genuine = 0
        """Datagrams that authenticated with the key."""
        self.first = self.last = 0.0
        """Times of the first and the last packet (seconds since 1970, UTC)."""
        self.kinds: Counter[Kind] = Counter()
        self.apis: Counter[str] = Counter()
        """Requests, state changes, prints and file operations; their replies are not counted again."""
        self.ways: Counter[bool | None] = Counter()
        self.oddities: Counter[str] = Counter()
        self.shut: Counter[str] = Counter()
        """Why datagrams could not be opened, and how many each."""
        self.sessions = 0
        self.pairs: Counter[tuple[str, str]] = Counter()
        """Which two ends datagrams went between; of many, the first."""

    def count(self, packet: DecodedPacket) -> None:
        """One more."""
        if not self.packets:
            self.first = packet.time
        self.packets += 1
        self.last = max(self.last, packet.time)
        self.kinds[packet.kind] += 1
        self.ways[packet.to_target] += 1
        if packet.api and not packet.is_reply:
            self.apis[packet.api] += 1
        for odd in packet.oddities:
            if odd.kind in _SHUT:
                self.shut[odd.text] += 1
            else:
                what = odd.kind.value if odd.reason is None or odd.kind is not Odd.DISCARD else odd.reason.value
                self.oddities[what] += 1
        if packet.medium is Medium.NETWORK:
            self.datagrams += 1
            self.genuine += packet.datagram is not None
            self.sessions = max(self.sessions, packet.session)
            one, other = sorted((packet.source, packet.destination))
            if (one, other) in self.pairs or len(self.pairs) < _MOST_PAIRS:
                self.pairs[one, other] += 1

    @property
    def key_is_wrong(self) -> bool:
        """No datagram authenticates, and there were some to try."""
        return not self.genuine and any("authenticate" in text for text in self.shut)

    def lines(self) -> Iterator[str]:
        """For a person."""
        seconds = self.last - self.first
        to_target, to_host, unknown = self.ways[True], self.ways[False], self.ways[None]
        nobody = f", {unknown} either way" if unknown else ""
        yield f"{self.packets} packets in {seconds:.3f} s: {to_target} to the target, {to_host} to the host{nobody}"
        yield "  " + _counted({kind.value: count for kind, count in self.kinds.items()})
        if self.apis:
            yield "  " + _counted(self.apis)
        if self.datagrams:
            sessions = f", {self.sessions} session{'s' if self.sessions != 1 else ''}" if self.genuine else ""
            yield f"  authenticated: {self.genuine} of {self.datagrams} datagrams{sessions}"
            yield "  between " + "; ".join(f"{one} and {other}" for one, other in self.pairs)
        yield "  odd: " + (_counted(self.oddities) if self.oddities else "nothing")
        for text, count in self.shut.items():
            yield f"  NOT OPENED: {count} datagram{'s' if count > 1 else ''}: {text}"

    def document(self) -> dict[str, object]:
        """For a script."""
        return {
            "packets": self.packets,
            "to_target": self.ways[True],
            "to_host": self.ways[False],
            "seconds": self.last - self.first,
            "types": {kind.value: count for kind, count in self.kinds.items()},
            "apis": dict(self.apis),
            "datagrams": self.datagrams,
            "authenticated": self.genuine,
            "sessions": self.sessions,
            "odd": dict(self.oddities),
            "not_opened": dict(self.shut),
        }


def _counted(counts: dict[str, int] | Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)
