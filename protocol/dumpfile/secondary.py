"""Secondary data: tagged pieces that drivers leave behind the last page of a dump (dump-formats 2.6)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protocol.errors import DumpFormatError

__all__ = ["MOST_BLOBS", "SecondaryBlob", "encode_secondary", "format_guid", "parse_guid", "parse_secondary"]

MOST_BLOBS = 4096
"""More pieces than this are not believed; real dumps have a few dozen."""

_FILE_HEADER = struct.Struct("<8sII")
_BLOB_HEADER = struct.Struct("<I16sIII")
_GUID = struct.Struct("<IHH8s")
assert (_FILE_HEADER.size, _BLOB_HEADER.size, _GUID.size) == (0x10, 0x20, 16)
_MAGIC = b"DumpBlob"
_ALIGNMENT = 8
_TEXT = re.compile(r"\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SecondaryBlob:
    """One piece: whose it is, and where in the file its bytes lie."""

    guid: str
    """As registries write it: 54c84888-01d1-4e1e-bed7-28c8cbcbd8a0."""
    file_offset: int
    size: int


def parse_secondary(
    read: Callable[[int, int], bytes], offset: int, size: int
) -> tuple[tuple[SecondaryBlob, ...], tuple[str, ...]]:
    """Find the pieces that begin at this file offset, in a file of `size` bytes; and what is wrong with them.

    `read(offset, size)` gives bytes of the file, fewer only at its end. What no secondary data begins is no fault:
    nothing is found there.
    """
    head = read(offset, _FILE_HEADER.size)
    if len(head) < _FILE_HEADER.size or head[:8] != _MAGIC:
        return (), ()
    at = offset + max(_FILE_HEADER.unpack(head)[1], _FILE_HEADER.size)
    blobs: list[SecondaryBlob] = []
    while at < size:
        raw = read(at, _BLOB_HEADER.size)
        if len(raw) < _BLOB_HEADER.size:
            return tuple(blobs), (f"secondary data ends inside a header at file offset {at:#x}",)
        header_size, guid, data_size, before, behind = _BLOB_HEADER.unpack(raw)
        start = at + header_size + before
        if header_size < _BLOB_HEADER.size or start + data_size > size:
            return tuple(blobs), (f"secondary data at file offset {at:#x} does not end inside the file",)
        if len(blobs) == MOST_BLOBS:
            return tuple(blobs), (f"more than {MOST_BLOBS} pieces of secondary data: the rest was not looked at",)
        blobs.append(SecondaryBlob(format_guid(guid), start, data_size))
        at = start + data_size + behind
    return tuple(blobs), ()


def encode_secondary(blobs: Iterable[tuple[str, bytes]], build: int) -> bytes:
    """Lay (GUID, data) pieces out as they follow the last page. `build` as Windows says it, such as 0xF0004A61.

    Raises DumpFormatError for what is no GUID.
    """
    out = bytearray(_FILE_HEADER.pack(_MAGIC, _FILE_HEADER.size, build))
    for guid, data in blobs:
        padding = -len(data) % _ALIGNMENT
        out += _BLOB_HEADER.pack(_BLOB_HEADER.size, parse_guid(guid), len(data), 0, padding)
        out += data + bytes(padding)
    return bytes(out)


def format_guid(raw: bytes) -> str:
    """The 16 bytes of a GUID, as text."""
    one, two, three, rest = _GUID.unpack(raw)
    return f"{one:08x}-{two:04x}-{three:04x}-{rest[:2].hex()}-{rest[2:].hex()}"


def parse_guid(text: str) -> bytes:
    """The 16 bytes of a GUID, from text with or without braces. Raises DumpFormatError when it is none."""
    if not _TEXT.fullmatch(text):
        raise DumpFormatError(f"{text!r} is no GUID; they look like 54c84888-01d1-4e1e-bed7-28c8cbcbd8a0")
    one, two, three, rest = text.strip("{}").split("-", 3)
    return _GUID.pack(int(one, 16), int(two, 16), int(three, 16), bytes.fromhex(rest.replace("-", "")))
