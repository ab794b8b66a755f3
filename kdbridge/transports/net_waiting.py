"""What has come over the network while nothing usable has, and what to do about it: evidence first, then causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from protocol.kdnet import Address, KdnetFacts, SeenPoke
from protocol.link import Discard

__all__ = ["Place", "explain_waiting", "show_address"]

_SHOWN = 3


@dataclass(slots=True)
class Place:
    """Where this end listens, and whom it asked to poke."""

    port: int
    addresses: tuple[str, ...]
    """Without port: of every interface it listens on."""
    target: str = ""
    """Who is asked twice a second to poke; empty: nobody, the target comes by itself."""
    unsent: dict[str, str] = field(default_factory=dict)
    """To whom nothing can be sent, and what the system says of it."""

    @property
    def listening(self) -> str:
        """All addresses, each with its port."""
        return _listed([show_address((address, self.port)) for address in self.addresses])


def show_address(address: Address | tuple[str, int]) -> str:
    """An address and its port."""
    host = address[0]
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def explain_waiting(place: Place, facts: KdnetFacts, wait: float | None) -> str:
    """Everything that keeps a session from coming about, the most telling first.

    `wait`: seconds after which waiting has ended. Without it there are no numbers in the text: it changes when what
    came does, and not with every datagram.
    """
    within = "so far" if wait is None else f"within {wait:g} seconds"
    asked = f", which was asked twice a second from port {place.port}" if place.target else ""
    sentences = [*_genuine(facts, wait), *_others(facts, wait)]
    for host, why in place.unsent.items():
        sentences.append(f"nothing can be sent to {host}: {why}.")
    if not facts.datagrams:
        fourth = [address for address in place.addresses if ":" not in address]
        told = f"hostip:{fourth[0] if fourth else 'ADDRESS'} port:{place.port}"
        sentences.insert(0, (
            f"not a single datagram came {within}{f' from {place.target}' if place.target else ''}{asked}; "
            f"listening at {place.listening} (UDP). A firewall on this machine drops what comes to that port, or the "
            f"target was told another address or port (there, bcdedit /dbgsettings should show {told}, or another "
            "address of this machine), or it is not at a stop and has no network: it is off, it was not restarted "
            "since, or its network card is none that KDNET drives."
        ))  # fmt: skip
    elif not sentences:
        sentences.append(f"what came {within} says nothing of a target; listening at {place.listening} (UDP).")
    return " ".join(sentences)


def _genuine(facts: KdnetFacts, wait: float | None) -> Iterator[str]:
    """Of targets that have our key."""
    for seen in _latest(facts.poked_by.values()):
        where = show_address(seen.source)
        times = "" if wait is None else f" ({seen.count} times)"
        if seen.owned_elsewhere:
            owner = show_address((seen.poke.bound.address, seen.poke.bound.port))
            yield (
                f"the target at {where} pokes with this key{times}, but another debugger, at {owner}, owns it, and it "
                "takes no answer of ours: end that debugger."
            )
        else:
            yield (
                f"the target at {where} pokes with this key{times}, and takes no answer of ours: what is sent to it "
                "does not arrive. A firewall or a router stands between, or two machines answer it."
            )
        if seen.is_link_local:
            own = seen.poke.own.address
            yield (
                f"the target calls itself {own}: no DHCP server gave it an address, and with that one it reaches "
                "its own cable only. Give it one, or this machine an address of that kind on the same cable."
            )
    orphans = facts.sources.get(Discard.NO_SESSION)
    if orphans:
        yield (
            f"data{_number(facts, Discard.NO_SESSION, wait)} came from {_sources(orphans)}, under a key that was "
            "agreed with a debugger that is gone: the target will poke within 3 seconds, and be answered."
        )
    if facts.unknown_versions:
        versions = _listed([str(version) for version in sorted(facts.unknown_versions)])
        yield f"it speaks KDNET version {versions}, of which nothing is known; it is answered all the same."


def _others(facts: KdnetFacts, wait: float | None) -> Iterator[str]:
    """Of whoever else sends something here."""
    forged = facts.sources.get(Discard.NOT_AUTHENTIC)
    if forged:
        yield (
            f"KDNET datagrams{_number(facts, Discard.NOT_AUTHENTIC, wait)} came from {_sources(forged)} that do not "
            "authenticate: that target has another key than the one given here (there, bcdedit /dbgsettings shows it)."
        )
    strange = facts.sources.get(Discard.NOT_KDNET)
    if strange:
        yield (
            f"datagrams{_number(facts, Discard.NOT_KDNET, wait)} came from {_sources(strange)} that are not of KDNET "
            "(they do not begin with MDBG): another program sends to this port."
        )
    cut = facts.sources.get(Discard.BAD_DATAGRAM)
    if cut:
        yield (
            f"datagrams{_number(facts, Discard.BAD_DATAGRAM, wait)} came from {_sources(cut)} that begin as KDNET's do "
            "and have a size that none has: they are cut on the way, or another program makes them."
        )
    mirrored = facts.sources.get(Discard.REFLECTED)
    if mirrored:
        yield (
            f"datagrams{_number(facts, Discard.REFLECTED, wait)} of a debugger's came from {_sources(mirrored)}: "
            "another debugger was told this machine's address as that of its target, or something sends ours back."
        )


def _latest(pokes: Iterable[SeenPoke]) -> list[SeenPoke]:
    return sorted(pokes, key=lambda seen: seen.last_at, reverse=True)[:_SHOWN]


def _number(facts: KdnetFacts, reason: Discard, wait: float | None) -> str:
    return "" if wait is None else f" ({facts.discarded[reason]})"


def _sources(heard: dict[Address, int]) -> str:
    return _listed([show_address(each) for each in heard])


def _listed(texts: Sequence[str]) -> str:
    if not texts:
        return "no address"
    shown = list(texts[:_SHOWN]) if len(texts) > _SHOWN + 1 else list(texts)
    more = len(texts) - len(shown)
    if more:
        return f"{', '.join(shown)} and {more} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
