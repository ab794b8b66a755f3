"""How network targets are written: WinDbg's own form, this program's, and keys that are shown to nobody.

net:port=50000,key=w.x.y.z[,target=ADDRESS][,bind=ADDRESS][,keyfile=PATH]
net://[BIND]:50000[?key=w.x.y.z&target=ADDRESS&keyfile=PATH]

ADDRESS is a name or an IP address; that of `target` may have a port, an IPv6 address is then in brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from kdbridge.errors import UsageError

__all__ = ["MASK", "NET_EXAMPLES", "NetForm", "masked", "masked_keys", "net_form", "target_place"]

MASK = "…"
"""What stands in the place of a key wherever an address is shown. Given as a key, it means none."""

NET_EXAMPLES = "net:port=50000,key=w.x.y.z or net://:50000?key=w.x.y.z (the key may also be in KDBRIDGE_KEY)"

_KNOWN = ("port", "key", "target", "bind", "keyfile")
_SHOWN_OPTIONS = frozenset(_KNOWN) - {"key"}
# All but the example that our own sentences give.
_KEY_GIVEN = re.compile(r"(\bkey(?:\s*=\s*|:))(?!w\.x\.y\.z(?![^,&\s'\"]))[^,&\s'\"]+", re.IGNORECASE)
_HOST = re.compile(r"[^\s/?#@\[\],=&]+")


@dataclass(frozen=True, slots=True)
class NetForm:
    """A network target, taken apart."""

    bind: str
    """An IP address of this machine, or empty: all of them."""
    port: int
    """Of both ends; 0: a free one."""
    options: tuple[tuple[str, str], ...]
    """target and keyfile, where they were given."""
    key: str = field(repr=False)


def masked_keys(text: str) -> str:
    """A text in which every `key=w.x.y.z` is `key=…`."""
    return _KEY_GIVEN.sub(rf"\g<1>{MASK}", text)


def masked(address: str) -> str:
    """A target's address that may be shown: of a network target also without what could be a key misspelt."""
    if address[:3].lower() != "net":
        return masked_keys(address)
    scheme, colon, rest = address.partition(":")
    place, mark, query = rest.partition("?") if rest.startswith("//") else ("", "", rest)
    return scheme + colon + place + mark + "".join(_masked_item(item) for item in re.split("([,&])", query))


def _masked_item(item: str) -> str:
    name, equals, _ = item.partition("=")
    if item in (",", "&", "") or (equals and name.strip().lower() in _SHOWN_OPTIONS):
        return item
    return f"{name}={MASK}" if equals else MASK


def net_form(shown: str, rest: str) -> NetForm:
    """Take apart what follows `net:`. `shown` is the whole, masked, for messages. Raises UsageError."""
    if rest.startswith("//"):
        place, _, query = rest[2:].partition("?")
        host, colon, port = place.rpartition(":")
        found = _pairs(shown, query.split("&") if query else [])
        if "port" in found or not colon:
            raise UsageError(f"{shown!r}: the port goes behind a colon. Write {NET_EXAMPLES}")
        found["port"] = port
        if host:
            if "bind" in found:
                raise UsageError(f"{shown!r}: the address to listen at is given twice. Write {NET_EXAMPLES}")
            found["bind"] = host
    else:
        found = _pairs(shown, rest.split(","))
    port = found.pop("port", "")
    if not port:
        raise UsageError(f"{shown!r} lacks port=. Write {NET_EXAMPLES}")
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 0xFFFF:
        raise UsageError(f"{shown!r}: {port!r} is not a port number (0 to 65535). Write {NET_EXAMPLES}")
    bind, key = found.pop("bind", ""), found.pop("key", "")
    if "target" in found:
        target_place(found["target"], 0, shown)
    if key == MASK:
        key = ""
    if key and "keyfile" in found:
        raise UsageError(f"{shown!r}: both key= and keyfile= are given; leave one out")
    return NetForm(_bind(shown, bind), int(port), tuple(found.items()), key)


def target_place(text: str, port: int, shown: str = "") -> tuple[str, int]:
    """Host and port of `target=`: `port` where it names none. Raises UsageError."""
    host, digits = text, ""
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
        if tail and not tail.startswith(":"):
            host = ""
        digits = tail[1:]
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
    if digits:
        port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
    if not _HOST.fullmatch(host) or (digits and not 1 <= port <= 0xFFFF):
        raise UsageError(f"{shown!r}: target={text} is no host; write target=192.168.1.5, or a name")
    return host, port


def _pairs(shown: str, items: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = (part.strip() for part in item.partition("="))
        name = name.lower()
        if name not in _KNOWN:
            raise UsageError(
                f"{shown!r}: net: has no option {name if equals else MASK!r}; it knows {', '.join(_KNOWN)}. "
                f"Write {NET_EXAMPLES}"
            )
        if not equals or not value:
            raise UsageError(f"{shown!r}: {name} has no value. Write {NET_EXAMPLES}")
        if name in found:
            raise UsageError(f"{shown!r}: {name} is given twice. Write {NET_EXAMPLES}")
        found[name] = value
    return found


def _bind(shown: str, text: str) -> str:
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        raise UsageError(
            f"{shown!r}: {text!r} is no IP address of this machine to listen at; leave it out to listen at all"
        ) from None
