"""Target addresses: what a user may write where a target is asked for, WinDbg's own strings included.

serial:/dev/ttyUSB0?baud=115200     also serial:COM3, or the port's name alone: /dev/ttyUSB0, COM3, \\\\.\\COM12
tcp:HOST:PORT   tcp-listen:HOST:PORT   unix:PATH   unix-listen:PATH   pipe:\\\\.\\pipe\\NAME   rfc2217:HOST:PORT
net:port=50000,key=w.x.y.z   net://[BIND]:50000?key=w.x.y.z
sim:SCENARIO   replay:FILE
com:port=COM1,baud=115200   com:ipport=5003,port=10.0.0.1   com:pipe,port=\\\\.\\pipe\\NAME,resets=0,reconnect

Options follow a question mark and are joined by &. A path is taken as it stands, whatever characters are in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from kdbridge.errors import UsageError

from .net_form import MASK, NET_EXAMPLES, masked, net_form
from .windbg import com_place

__all__ = ["DEFAULT_BAUD", "SCHEMES", "TargetAddress", "is_target", "parse_target"]

DEFAULT_BAUD = 115200
"""What bcdedit /dbgsettings serial sets when it is told no speed (baud)."""

_FASTEST = 50_000_000
_LONGEST = 4096
_PORT_NAME = re.compile(
    r"(?:\\\\\.\\)?COM\d{1,4}|/dev/(?:tty[A-Za-z]|cu\.|pts/\d|serial/|rfcomm\d).*", re.IGNORECASE | re.DOTALL
)
_PIPE_NAME = re.compile(r"\\\\[^\\]+\\pipe\\.+", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"[^\s:/?#@\[\],=]+")


@dataclass(frozen=True, slots=True)
class TargetAddress:
    """A target address, taken apart. Made by `parse_target`; `parse_target(address.url)` gives an equal one.

    But for the key of a network target: no text shows it, `url` has `key=…`.
    """

    scheme: str
    place: str = ""
    """A port's name, a path, a pipe's name, a scenario; empty where host and port say it."""
    host: str = ""
    """A name or an IP address, without brackets."""
    port: int = 0
    options: tuple[tuple[str, str], ...] = ()
    """As they were given, in that order; each is one that the scheme knows (sim: checks its own)."""
    key: str = field(default="", repr=False)
    """The text of a network target's key, or of a recording of one, where the address has it."""

    @property
    def url(self) -> str:
        """The address as text, in this program's own form. A key is masked."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"{host}:{self.port}" if self.host else self.place
        options = "&".join(f"{name}={value}" for name, value in self.options)
        if self.scheme == "net":
            place = f"//{host}:{self.port}"
        if self.key:
            options = f"key={MASK}&{options}" if options else f"key={MASK}"
        return f"{self.scheme}:{place}" + (f"?{options}" if options else "")

    @property
    def keyless(self) -> str:
        """The address without any key: what may be written down. KDBRIDGE_KEY takes its place."""
        return replace(self, key="").url

    @property
    def baud(self) -> int:
        """Speed of a serial line (baud)."""
        return int(dict(self.options).get("baud", DEFAULT_BAUD))

    def flag(self, name: str, default: bool) -> bool:
        """An option that is 0 or 1."""
        return dict(self.options).get(name, "1" if default else "0") == "1"


def _baud(value: str) -> str | None:
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= _FASTEST:
        return f"baud={value} is no speed; write one such as baud=115200"
    return None


def _zero_or_one(name: str) -> Callable[[str], str | None]:
    return lambda value: None if value in ("0", "1") else f"{name}={value} should be {name}=0 or {name}=1"


def _any_number(value: str) -> str | None:
    return None if value.isascii() and value.isdigit() else f"resets={value} is not a number; 0 means without end"


def _stop(value: str) -> str | None:
    good = value.isascii() and value.isdigit() and len(value) <= 9 and int(value) > 0
    return None if good else f"stop={value} is no stop of a recording; they are counted from 1"


_Check = Callable[[str], "str | None"]
_LINE: dict[str, _Check] = {"baud": _baud} | {name: _zero_or_one(name) for name in ("rtscts", "xonxoff", "dtr", "rts")}
_PIPE: dict[str, _Check] = {"resets": _any_number, "reconnect": _zero_or_one("reconnect")}
_RECORDING: dict[str, _Check] = {"key": lambda value: None, "keyfile": lambda value: None, "stop": _stop}


@dataclass(frozen=True, slots=True)
class _Form:
    """What an address of one scheme looks like."""

    kind: str
    """host, path or name"""
    example: str
    options: Mapping[str, _Check] | None
    """None: whoever opens it checks them."""


_FORMS: dict[str, _Form] = {
    "serial": _Form("name", "serial:/dev/ttyUSB0?baud=115200 or serial:COM3", _LINE),
    "tcp": _Form("host", "tcp:192.168.1.5:5003 or tcp:[fe80::1]:5003", {}),
    "tcp-listen": _Form("host", "tcp-listen:127.0.0.1:5003, or tcp-listen:0.0.0.0:5003 for all who can reach it", {}),
    "unix": _Form("path", "unix:/path/to/socket", {}),
    "unix-listen": _Form("path", "unix-listen:/path/to/socket", {}),
    "pipe": _Form("name", r"pipe:\\.\pipe\NAME", _PIPE),
    "rfc2217": _Form("host", "rfc2217:192.168.1.5:2217?baud=115200", _LINE),
    "net": _Form("net", NET_EXAMPLES, {}),
    "sim": _Form("name", "sim:bugcheck or sim:bugcheck?processors=4", None),
    "replay": _Form("name", "replay:session.pcapng or replay:session.pcapng?stop=2", _RECORDING),
}

SCHEMES = tuple(_FORMS)
"""The schemes of this program's own addresses."""

_NOT_HERE = {
    "usb": "debugging over USB",
    "1394": "debugging over IEEE 1394",
}
_FORMS_IN_SHORT = (
    "serial:, tcp:, tcp-listen:, unix:, unix-listen:, pipe:, rfc2217:, net:, sim:, replay: or WinDbg's com:"
)


def is_target(name: str) -> bool:
    """Whether this names a target, rightly or not; else it may name a file or folder."""
    scheme, colon, _ = name.partition(":")
    known = scheme.lower() in {"com", *_FORMS, *_NOT_HERE}
    return bool(colon and known) or _bare(name) is not None


def parse_target(text: str) -> TargetAddress:
    """Take an address apart. Raises UsageError, which says what is wrong and shows one that is right."""
    whole, text = text, masked(text)
    if len(whole) > _LONGEST or not all(" " <= c != "\x7f" for c in whole):
        raise UsageError(f"{text[:80]!r} is not a target address; write one such as {_FORMS['serial'].example}")
    bare = _bare(whole)
    if bare is not None:
        return _parse(text, bare, whole)
    scheme, colon, rest = whole.partition(":")
    scheme = scheme.lower()
    if not colon:
        raise UsageError(f"{text!r} is not a target address: it should start with {_FORMS_IN_SHORT}")
    if scheme == "com":
        scheme, rest = com_place(text, rest)
    if scheme in _NOT_HERE:
        raise UsageError(f"{text}: {_NOT_HERE[scheme]} is not supported in this version; use {_FORMS_IN_SHORT}")
    if scheme not in _FORMS:
        raise UsageError(f"{text!r}: there is no {scheme!r} target; write {_FORMS_IN_SHORT}")
    if scheme == "net":
        net = net_form(text, rest)
        return TargetAddress("net", host=net.bind, port=net.port, options=net.options, key=net.key)
    return _parse(text, scheme, rest)


def _bare(text: str) -> str | None:
    """The scheme of a port's or pipe's own name, None for any other text."""
    if _PORT_NAME.fullmatch(text.partition("?")[0]):
        return "serial"
    return "pipe" if _PIPE_NAME.fullmatch(text) else None


def _parse(text: str, scheme: str, rest: str) -> TargetAddress:
    form = _FORMS[scheme]
    if form.kind == "path":
        place, query = rest, ""
    else:
        place, _, query = rest.partition("?")
    options = _options(text, scheme, query)
    if form.kind == "host":
        host, port = _host_and_port(text, scheme, place)
        return TargetAddress(scheme, host=host, port=port, options=options)
    if not place and scheme != "sim":
        raise UsageError(f"{text!r} does not say where; write {form.example}")
    key = dict(options).get("key", "") if scheme == "replay" else ""
    if key:
        options = tuple(option for option in options if option[0] != "key")
        if "keyfile" in dict(options):
            raise UsageError(f"{text}: both key= and keyfile= are given; leave one out")
    return TargetAddress(scheme, place, options=options, key="" if key == MASK else key)


def _options(text: str, scheme: str, query: str) -> tuple[tuple[str, str], ...]:
    form = _FORMS[scheme]
    found: dict[str, str] = {}
    for item in query.split("&") if query else ():
        name, equals, value = item.partition("=")
        name = name.lower()
        if not equals or not name:
            raise UsageError(f"{text}: {item!r} is not an option; options look like {form.example}")
        if name in found:
            raise UsageError(f"{text}: {name} is given twice; write it once, as in {form.example}")
        if form.options is not None:
            if name not in form.options:
                known = f"it knows {', '.join(form.options)}" if form.options else f"it has none: {form.example}"
                raise UsageError(f"{text}: {scheme}: has no option {name!r}; {known}")
            complaint = form.options[name](value)
            if complaint:
                raise UsageError(f"{text}: {complaint}")
        found[name] = value
    if found.get("rtscts") == "1" and "rts" in found:
        raise UsageError(f"{text}: with rtscts=1 the port itself drives RTS; leave rts out")
    if found.get("rtscts") == "1" and found.get("xonxoff") == "1":
        raise UsageError(f"{text}: rtscts=1 and xonxoff=1 exclude each other; KD needs neither")
    return tuple(found.items())


def _host_and_port(text: str, scheme: str, place: str) -> tuple[str, int]:
    example = _FORMS[scheme].example
    host, colon, digits = place.rpartition(":")
    if not colon or not host:
        raise UsageError(f"{text!r} should name a host and a port; write {example}")
    if host.startswith("[") and host.endswith("]"):
        try:
            host = str(IPv6Address(host[1:-1]))
        except ValueError:
            raise UsageError(f"{text!r}: {host} is not an IPv6 address; write {example}") from None
    elif ":" in host:
        raise UsageError(f"{text!r}: an IPv6 address goes in brackets; write {example}")
    elif not _HOST.fullmatch(host):
        raise UsageError(f"{text!r}: {host!r} cannot be a host; write {example}")
    lowest = 0 if scheme.endswith("-listen") else 1
    if not digits.isascii() or not digits.isdigit() or len(digits) > 5 or not lowest <= int(digits) <= 65535:
        raise UsageError(f"{text!r}: {digits!r} is not a port number ({lowest} to 65535); write {example}")
    return host, int(digits)
