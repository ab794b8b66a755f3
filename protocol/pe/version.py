"""VS_VERSIONINFO: nested blocks that say who made a file, what it is, and which version."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocol.errors import LayoutError

__all__ = ["LARGEST_VERSION_INFO", "VersionInfo", "parse_version_info"]

LARGEST_VERSION_INFO = 1 << 15
"""Bytes that are looked at; a block's length has 16 bits, and one in many languages is a few thousand."""

_KEY = "VS_VERSION_INFO"
_SIGNATURE, _FIXED_SIZE = 0xFEEF04BD, 52
_HEAD_SIZE = 6
_MOST_BLOCKS = 256
_LONGEST_TEXT = 1024


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """What could be taken from the bytes that were there. `strings` are those of the first table that has them."""

    file_version: str
    """"10.0.19041.1", of VS_FIXEDFILEINFO; empty where there is none."""
    strings: Mapping[str, str]
    """CompanyName, FileDescription … as they stand there."""


@dataclass(frozen=True, slots=True)
class _Block:
    key: str
    value: bytes
    """What the block says its value is; it may be cut off."""
    start: int
    """Where its children begin."""
    end: int


def parse_version_info(data: bytes, address: int | None = None) -> VersionInfo:
    """The first bytes of a version resource are enough, as far as they go. Raises LayoutError where it is none."""
    data = data[:LARGEST_VERSION_INFO]
    root = next(_blocks(data, 0, len(data), 1), None)
    if root is None or root.key != _KEY:
        raise LayoutError("VS_VERSIONINFO", "it is none", address)
    version = ""
    if len(root.value) >= _FIXED_SIZE and int.from_bytes(root.value[:4], "little") == _SIGNATURE:
        most, least = struct.unpack_from("<II", root.value, 8)
        version = f"{most >> 16}.{most & 0xFFFF}.{least >> 16}.{least & 0xFFFF}"
    strings: dict[str, str] = {}
    for part in _blocks(data, root.start, root.end, _MOST_BLOCKS):
        if part.key != "StringFileInfo":
            continue
        for table in _blocks(data, part.start, part.end, _MOST_BLOCKS):
            for one in _blocks(data, table.start, table.end, _MOST_BLOCKS):
                strings.setdefault(one.key, _text(one.value))
            if len(strings) >= _MOST_BLOCKS:
                break
    return VersionInfo(version, strings)


def _blocks(data: bytes, start: int, end: int, most: int) -> Iterator[_Block]:
    """The blocks that lie beside each other; the last may be cut off by the end of the data."""
    at, end = start, min(end, len(data))
    for _ in range(most):
        if at + _HEAD_SIZE > end:
            return
        length, value_length, kind = struct.unpack_from("<HHH", data, at)
        if length < _HEAD_SIZE:
            return
        stop = min(at + length, end)
        key, value_at = _key(data, at + _HEAD_SIZE, stop)
        if key is None:
            return
        # A text's length is told in characters; some tools write bytes, so it may reach further than it does.
        value_end = min(value_at + value_length * (2 if kind == 1 else 1), stop)
        whole = value_at + value_length <= stop or kind == 1
        if kind == 1 and at + length > end and value_end == end:
            return  # cut off in the middle: half a name is none
        yield _Block(key, data[value_at:value_end] if whole else b"", _aligned(value_end), stop)
        at = _aligned(at + length)


def _key(data: bytes, start: int, stop: int) -> tuple[str | None, int]:
    """The key, and where the value begins."""
    for at in range(start, min(stop, start + _LONGEST_TEXT) - 1, 2):
        if data[at : at + 2] == b"\0\0":
            return data[start:at].decode("utf-16-le", "replace"), _aligned(at + 2)
    return None, stop


def _text(value: bytes) -> str:
    return value[: 2 * _LONGEST_TEXT].decode("utf-16-le", "replace").split("\0")[0].strip()


def _aligned(at: int) -> int:
    return at + 3 & ~3
