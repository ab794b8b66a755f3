"""What the firmware says of the machine, as real dumps carry it: tables of SMBIOS, values of the registry."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["PROCESSOR_BLOB", "SMBIOS_BLOB", "firmware_texts", "registry_texts"]

SMBIOS_BLOB = "bc5c008f-1e3a-44d7-988d-86f6884c6758"
"""The tag of secondary data that holds RawSMBIOSData (dump-formats 2.6)."""
PROCESSOR_BLOB = "6c7ac389-4313-47dc-9f34-a8800a0fb56c"
"""… that holds the registry's values of the first processor."""

_RAW_HEAD = 8
"""RawSMBIOSData: how it was had, version, and the tables' length in bytes."""
_HEAD = 4
_MOST_STRUCTURES, _MOST_TEXTS, _LONGEST_TEXT = 4096, 256, 128
_END_OF_TABLE = 127
_WANTED = {
    1: ((4, "manufacturer"), (5, "product"), (6, "product version")),
    2: ((4, "board manufacturer"), (5, "board")),
    0: ((4, "BIOS vendor"), (5, "BIOS version"), (8, "BIOS date")),
}
"""By a structure's type: where the number of a text stands in it, and what the text is (DSP0134, 7.1 to 7.3).

Serial numbers and the machine's UUID are left out: nobody needs them to find a fault.
"""
_REG_SZ = 1
_MOST_VALUES = 64


def firmware_texts(data: bytes) -> tuple[tuple[str, str], ...]:
    """(what, text) of RawSMBIOSData: the machine, its board, its firmware. Never raises, whatever the bytes are."""
    found: dict[str, str] = {}
    for kind, body, texts in _structures(data[_RAW_HEAD:]):
        for at, what in _WANTED.get(kind, ()):
            number = body[at] if at < len(body) else 0
            text = _clean(texts[number - 1]) if 0 < number <= len(texts) else ""
            if text:
                found.setdefault(what, text)
    return tuple((what, found[what]) for lines in _WANTED.values() for _, what in lines if what in found)


def _structures(table: bytes) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """(type, its bytes, its texts) as far as they can be followed."""
    at = 0
    for _ in range(_MOST_STRUCTURES):
        if at + _HEAD > len(table):
            return
        kind, length = table[at], table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < _HEAD or end < 0 or kind == _END_OF_TABLE:
            return
        yield kind, table[at : at + length], table[at + length : end].split(b"\0")[:_MOST_TEXTS]
        at = end + 2


def registry_texts(data: bytes) -> dict[str, str]:
    """Texts by name of the registry's values: each is a name, a type and data, with sizes before name and data.

    Learned from real dumps. Never raises, whatever the bytes are.
    """
    found: dict[str, str] = {}
    at = 0
    for _ in range(_MOST_VALUES):
        head = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if head + 8 > len(data):
            break
        kind, size = struct.unpack_from("<II", data, head)
        name, at = data[at + 4 : head], head + 8 + size
        if at > len(data):
            break
        if kind == _REG_SZ:
            found.setdefault(_wide(name), _wide(data[head + 8 : at]))
    return found


def _wide(data: bytes) -> str:
    text = " ".join(data[: 2 * _LONGEST_TEXT].decode("utf-16-le", "replace").split("\0")[0].split())
    return text if text.isprintable() else ""


def _clean(text: bytes) -> str:
    """Printable, without blanks around it; empty where it only fills a gap."""
    words = " ".join(text[:_LONGEST_TEXT].decode("utf-8", "replace").split())
    return words if words.isprintable() and words.strip(".") else ""
