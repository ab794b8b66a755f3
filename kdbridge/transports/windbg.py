"""WinDbg's own connection strings for serial lines: what follows -k com:, read as WinDbg reads it.

port=COM1,baud=115200                         a serial port
ipport=5003,port=10.0.0.1                     a serial line over TCP
pipe,port=\\\\.\\pipe\\NAME,resets=0,reconnect    a virtual machine's serial port on a named pipe
"""

from __future__ import annotations

from kdbridge.errors import UsageError

__all__ = ["com_place"]

_KNOWN = ("port", "baud", "ipport", "pipe", "resets", "reconnect")
_WORDS = ("pipe", "reconnect")
_EXAMPLES = (
    r"com:port=COM1,baud=115200, com:ipport=5003,port=10.0.0.1 or com:pipe,port=\\.\pipe\NAME,resets=0,reconnect"
)


def com_place(text: str, rest: str) -> tuple[str, str]:
    """Scheme and rest of the address in this program's own form. `text` is the whole, for messages; UsageError."""
    found: dict[str, str] = {}
    for item in rest.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        name = name.lower()
        if name not in _KNOWN:
            raise UsageError(f"{text!r}: com: has no {name!r}; it knows {', '.join(_KNOWN)}. Write {_EXAMPLES}")
        if bool(equals) == (name in _WORDS) or (equals and not value):
            right = name if name in _WORDS else f"{name}=…"
            raise UsageError(f"{text!r}: {item.strip()!r} should be {right}. Write {_EXAMPLES}")
        if name in found:
            raise UsageError(f"{text!r}: {name} is given twice. Write {_EXAMPLES}")
        found[name] = value
    if "port" not in found:
        raise UsageError(f"{text!r} lacks port=. Write {_EXAMPLES}")
    if "pipe" in found:
        return "pipe", _with_options(text, found, "pipe", {"resets": None, "reconnect": "1"})
    if "ipport" in found:
        port = found["port"]
        host = f"[{port}]" if ":" in port and not port.startswith("[") else port
        _with_options(text, found, "ipport", {})
        return "tcp", f"{host}:{found['ipport']}"
    return "serial", _with_options(text, found, "port", {"baud": None})


def _with_options(text: str, found: dict[str, str], kind: str, allowed: dict[str, str | None]) -> str:
    options = []
    for name, value in found.items():
        if name in ("port", kind):
            continue
        if name not in allowed:
            raise UsageError(f"{text!r}: {name} does not go with {kind}. Write {_EXAMPLES}")
        options.append(f"{name}={allowed[name] or value}")
    if "?" in found["port"]:
        raise UsageError(f"{text!r}: port={found['port']} has a question mark in it. Write {_EXAMPLES}")
    return found["port"] + ("?" + "&".join(options) if options else "")
