"""Text on a line: whose it may be, by the words in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["SHOWN", "Console", "look_for_text", "shown"]

SHOWN = 48
"""Characters that are shown of a text."""
_LEAST = 4
_SHARE = 0.9
_WORDS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("an EMS/SAC prompt of Windows (Special Administration Console)",
     re.compile(rb"SAC>|!SAC|Special Administration Console|<machine-info>|EVENT: The CMD command")),
    ("a telnet or console server",
     re.compile(rb"Escape character is|Trying \d|Connected to |Telnet |Port Name|Username:")),
    ("a boot menu", re.compile(
        rb"GRUB|GNU GRUB|LILO|Choose an operating system|Windows Boot Manager|Boot Menu|boot:|press any key to boot"
        rb"|iPXE|PXE-", re.IGNORECASE)),
    ("a Linux console", re.compile(
        rb"login: ?|Linux version|\[ {0,4}\d+\.\d{6}\]|systemd\[|Kernel panic|localhost|Last login|[\w-]+@[\w-]+[:~]")),
    ("a modem", re.compile(rb"^\s*(?:RING|NO CARRIER|CONNECT|OK|ERROR)\s*$|\bAT[&ZDHE]", re.MULTILINE)),
    ("firmware", re.compile(
        rb"BIOS|UEFI|firmware|POST |Press (?:<?F\d+|<?DEL|ESC)|Booting from|Memory Test|\x1b\[\d*;?\d*[HJ]",
        re.IGNORECASE)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Console:
    """Text of something that is no debugger."""

    text: str
    whose: str
    """What it looks like; empty: nothing that is known here."""
    parity: str = ""
    """How the highest bit was set: even, odd, mark; empty: it was 0."""


def look_for_text(data: bytes) -> Console | None:
    """Whether these bytes are text, also with a parity bit; None: they are not."""
    if _is_text(data):
        return Console(data.decode("latin-1"), _whose(data))
    plain = bytes(byte & 0x7F for byte in data)
    if plain == data or not _is_text(plain) or len(plain) < 4 * _LEAST:
        return None
    ones = [byte.bit_count() & 1 for byte in plain]
    for name, bits in (("even", ones), ("odd", [1 - one for one in ones]), ("mark", [1] * len(ones))):
        if all(byte >> 7 == bit for byte, bit in zip(data, bits, strict=True)):
            return Console(plain.decode("latin-1"), _whose(plain), name)
    return None


def _is_text(data: bytes) -> bool:
    good = sum(0x20 <= byte < 0x7F or byte in b"\r\n\t\x1b\b" for byte in data)
    return len(data) >= _LEAST and good > _SHARE * len(data)


def _whose(data: bytes) -> str:
    return next((whose for whose, words in _WORDS if words.search(data)), "")


def shown(text: str) -> str:
    """The beginning of a text, in quotation marks, without control characters."""
    return repr(text[:SHOWN])
