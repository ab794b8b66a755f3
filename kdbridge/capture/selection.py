"""Selection: which packets a person wants to see: `api=ReadVirtual`, `type=StateChange`, `dir=target`, `odd`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdbridge.errors import UsageError

from .decoded import DecodedPacket, Kind, Odd

__all__ = ["Selection"]

_DIRECTIONS = {"target": True, "host": False}


class Selection:
    """Made of the terms that a user wrote; a packet is wanted if it meets them all."""

    def __init__(self, terms: Iterable[str]) -> None:
        """Each term is `name=value[,value…]`, of which one value must fit, or `odd`. Raises UsageError."""
        self._tests = [_test(term) for term in terms]

    def wants(self, packet: DecodedPacket) -> bool:
        """Whether all terms are met."""
        return all(test(packet) for test in self._tests)


def _test(term: str) -> Callable[[DecodedPacket], bool]:
    name, equals, text = term.partition("=")
    values = tuple(value for value in text.lower().split(",") if value)
    match name.strip().lower():
        case "odd" if not equals:
            return lambda packet: bool(packet.oddities)
        case "odd" if values:
            _check(term, values, [odd.value for odd in Odd])
            return lambda packet: any(oddity.kind.value in values for oddity in packet.oddities)
        case "type" if values:
            _check(term, values, [kind.value for kind in Kind])
            return lambda packet: packet.kind.value.lower() in values
        case "dir" if values:
            _check(term, values, list(_DIRECTIONS))
            ways = {_DIRECTIONS[value] for value in values}
            return lambda packet: packet.to_target in ways
        case "api" if values:
            return lambda packet: packet.api.lower().startswith(values)
    raise UsageError(
        f"--filter {term}: write api=NAME (its beginning will do), type=KIND, dir=target or dir=host, odd, or odd=KIND"
    )


def _check(term: str, values: Iterable[str], known: list[str]) -> None:
    for value in values:
        if value not in [each.lower() for each in known]:
            raise UsageError(f"--filter {term}: there is no {value}; there are {', '.join(known)}")
