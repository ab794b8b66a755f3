"""What happens to a target by itself, in the order of its script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from protocol.ntstatus import STATUS_BREAKPOINT
from protocol.state_change import LoadSymbols

from .machine import Machine

__all__ = ["Ask", "Event", "Load", "OpenFile", "Print", "Quiet", "Stop"]


@dataclass(frozen=True, slots=True)
class Stop:
    """The machine stops on an exception. `apply` sets the registers first."""

    code: int = STATUS_BREAKPOINT
    apply: Callable[[Machine], None] | None = None
    first_chance: bool = True
    again: bool = False
    """After a continue it stops here again, for ever (the final break of a bug check, T60)."""


@dataclass(frozen=True, slots=True)
class Load:
    """A module-load notification: the machine stops, and nobody answering makes it go on."""

    image: LoadSymbols


@dataclass(frozen=True, slots=True)
class Print:
    """A debug print."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt: asked again and again until it is answered (T19)."""

    prompt: bytes
    longest_answer: int = 8


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The kernel asks the debugger's machine for a file."""

    path: str


@dataclass(frozen=True, slots=True)
class Quiet:
    """Seconds in which nothing is heard nor said: the dump is being written, or firmware runs.

    `noise` is what firmware writes to the port at the beginning.
    """

    seconds: float
    noise: bytes = b""


Event: TypeAlias = Stop | Load | Print | Ask | OpenFile | Quiet
