"""The version resource of an image: a resource directory with one VS_VERSIONINFO, as every driver carries it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["VersionText", "version_section"]

_RT_VERSION, _NEUTRAL_ENGLISH, _FIRST = 16, 0x409, 1
_SIGNATURE, _STRUCTURE_VERSION = 0xFEEF04BD, 0x10000
_FOR_NT, _A_DRIVER = 0x40004, 3
_SUBDIRECTORY = 1 << 31


@dataclass(frozen=True, slots=True)
class VersionText:
    """Who made a file, what it is, and which version: "10.0.19041.1"."""

    company: str
    description: str
    version: str


def version_section(rva: int, text: VersionText, file_name: str) -> bytes:
    """The bytes of .rsrc where the section begins at this RVA."""
    info = _version_info(text, file_name)
    # Three levels of directories (type, name, language) with one entry each, then the entry that leads to the data.
    levels = [(_RT_VERSION, 0x18 | _SUBDIRECTORY), (_FIRST, 0x30 | _SUBDIRECTORY), (_NEUTRAL_ENGLISH, 0x48)]
    tree = b"".join(struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, name, place) for name, place in levels)
    data_at = 0x60
    tree += struct.pack("<IIII", rva + data_at, len(info), 0, 0)
    return tree.ljust(data_at, b"\0") + info


def _block(key: str, value: bytes, kind: int, *children: bytes, length: int | None = None) -> bytes:
    """One of the nested blocks; `length` of the value is in bytes, or in characters where it is text."""
    head = key.encode("utf-16-le") + b"\0\0"
    body = bytes(-(6 + len(head)) % 4) + value
    for child in children:
        body += bytes(-(6 + len(head) + len(body)) % 4) + child
    return struct.pack("<HHH", 6 + len(head) + len(body), len(value) if length is None else length, kind) + head + body


def _version_info(text: VersionText, file_name: str) -> bytes:
    one, two, three, four = (int(part) for part in text.version.split("."))
    most, least = one << 16 | two, three << 16 | four
    fixed = struct.pack(
        "<13I", _SIGNATURE, _STRUCTURE_VERSION, most, least, most, least, 0x3F, 0, _FOR_NT, _A_DRIVER, 7, 0, 0
    )
    strings = {
        "CompanyName": text.company, "FileDescription": text.description, "FileVersion": text.version,
        "InternalName": file_name, "OriginalFilename": file_name, "ProductVersion": text.version,
    }  # fmt: skip
    table = _block("040904B0", b"", 1, *(_string(key, value) for key, value in strings.items()))
    translation = _block("Translation", struct.pack("<HH", _NEUTRAL_ENGLISH, 1200), 0)
    return _block(
        "VS_VERSION_INFO", fixed, 0, _block("StringFileInfo", b"", 1, table), _block("VarFileInfo", b"", 1, translation)
    )


def _string(key: str, value: str) -> bytes:
    return _block(key, value.encode("utf-16-le") + b"\0\0", 1, length=len(value) + 1)
