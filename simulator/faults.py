"""What may be wrong with a serial line, as values, and how a user writes it. What each does: damage.py."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from .errors import SimulationError

__all__ = ["LineFaults", "parse_line_faults"]


@dataclass(frozen=True, slots=True)
class LineFaults:
    """What a serial line does to what it carries, each way unless `way` says which. Shares are from 0 to 1."""

    flip: float = 0.0
    """Share of bits that are turned over."""
    drop: float = 0.0
    """Share of bytes that get lost."""
    insert: float = 0.0
    """Share of bytes before which one comes that nobody sent."""
    overrun: float = 0.0
    """Share of bytes at which the receiver is late: its FIFO takes 16 more, of those behind them up to 48 get lost."""
    loss: float = 0.0
    """Share of packets that get lost as a whole."""
    dup: float = 0.0
    """Share of packets that come twice."""
    truncate: float = 0.0
    """Share of packets of which only a beginning comes."""
    stall: float = 0.0
    """Share of packets in the middle of which the line stands still for two seconds."""
    keepsum: float = 0.0
    """Share of the replies with data in which two bytes of it change, and KD's checksum, their sum, does not."""
    xonxoff: bool = False
    """11 and 13 are taken out, as software flow control does."""
    iac: bool = False
    """A telnet server in the way: FF is doubled on its way to the host, and is a command on its way to the target."""
    crlf: bool = False
    """A console server in the way: a line feed becomes a carriage return and a line feed."""
    sevenbit: bool = False
    """The eighth bit is lost."""
    parity: bool = False
    """The other port is set to seven bits and even parity."""
    inverted: bool = False
    """The line's levels are upside down."""
    wrongbaud: int = 0
    """Speed of the target's port, whatever the line's is (115200 where it has none); 0: the line's."""
    way: str = "both"
    """`host`: all of the above is done to what comes to the host only; `target`: to the target."""
    echo: bool = False
    """What the host sends comes back to it."""
    deaf: bool = False
    """Nothing comes to the target."""
    mute: bool = False
    """Nothing comes to the host."""
    latency: float = 0.0
    """Milliseconds for which the host's adapter keeps what came."""
    die: float | None = None
    """The line is dead from so many seconds after its first use; None: it never is."""
    back: float | None = None
    """From then on it is alive again; None: it stays dead."""
    restart: float | None = None
    """The target is reset so many seconds after the line's first use; None: it is not."""
    text: str = ""
    """What another console writes to the host, every five seconds."""
    debugger: bool = False
    """Another debugger is on the line: every five seconds its packets come to the target, and to the host too."""
    seed: int = 1
    """One seed is one line."""


_SHARES = ("flip", "drop", "insert", "overrun", "loss", "dup", "truncate", "stall", "keepsum")
_TIMES = ("latency", "die", "back", "restart")
_SWITCHES = ("xonxoff", "iac", "crlf", "sevenbit", "parity", "inverted", "echo", "deaf", "mute", "debugger")
_WAYS = ("host", "target", "both")
_OF_NETWORKS = ("reorder", "delay", "jitter")
_MOST_TIME = 1e6
_SPEEDS = (50, 50_000_000)
_LONGEST_TEXT = 200
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")


def parse_line_faults(text: str) -> LineFaults:
    """Read `flip=1e-5,drop=0.01,deaf,seed=7`; in `text`, %2C is a comma and %0A a new line. Raises SimulationError."""
    found: dict[str, object] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        name = name.strip()
        if name in _OF_NETWORKS:
            raise SimulationError(f"{name} is what a network does to datagrams; a serial line knows {_names()}")
        if name not in LineFaults.__slots__ or name in found:
            raise SimulationError(f"{item!r} is no fault of a serial line, or is given twice; there are {_names()}")
        found[name] = _value(name, value if name == "text" else value.strip(), item)
    faults = LineFaults(**found)  # type: ignore[arg-type]
    if faults.back is not None and (faults.die is None or faults.back <= faults.die):
        raise SimulationError("back= says when a line that died is alive again: write die=10,back=20")
    return faults


def _value(name: str, value: str, item: str) -> object:
    if name in _SHARES:
        return _number(name, value, item, 0.0, 1.0)
    if name in _TIMES:
        return _number(name, value, item, 0.0, _MOST_TIME)
    if name in _SWITCHES:
        if value not in ("", "0", "1"):
            raise SimulationError(f"{item!r}: {name} is there or not; write {name} alone")
        return value != "0"
    if name == "way":
        if value not in _WAYS:
            raise SimulationError(f"{item!r}: way is one of {', '.join(_WAYS)}")
        return value
    if name == "text":
        said = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), value)
        if not 0 < len(said) <= _LONGEST_TEXT or not value.isascii():
            raise SimulationError(f"{item!r}: the text has 1 to {_LONGEST_TEXT} ASCII characters, such as text=login:")
        return said
    lowest, highest = _SPEEDS if name == "wrongbaud" else (0, 2**32)
    number = _number(name, value, item, lowest, highest)
    if number != int(number):
        raise SimulationError(f"{item!r}: {name} is a whole number")
    return int(number)


def _number(name: str, value: str, item: str, least: float, most: float) -> float:
    try:
        number = float(value) if value.isascii() and "_" not in value else float("nan")
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise SimulationError(f"{item!r}: {name} is a number from {least:g} to {most:g}")
    return number


def _names() -> str:
    return ", ".join(field.name for field in fields(LineFaults))
