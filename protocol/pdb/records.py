"""CodeView records one after the other: how symbol and type streams are walked without holding them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from protocol.errors import PdbFormatError

from .msf import Stream

__all__ = ["c_string", "numeric", "record_at", "records"]

_PIECE = 1 << 18
"""More than the longest record, which has a length of 16 bits."""

_NUMERIC_LEAVES = {
    0x8000: (1, True),  # LF_CHAR
    0x8001: (2, True),  # LF_SHORT
    0x8002: (2, False),  # LF_USHORT
    0x8003: (4, True),  # LF_LONG
    0x8004: (4, False),  # LF_ULONG
    0x8009: (8, True),  # LF_QUADWORD
    0x800A: (8, False),  # LF_UQUADWORD
}


def records(
    stream: Stream, start: int, end: int, kinds: Collection[int] | None = None
) -> Iterator[tuple[int, bytes, int, int]]:
    """Each record of a part of the stream, or those of some kinds: its offset, a buffer, its start and end in that.

    A record is a 16-bit length of what follows, a 16-bit kind, and its body. Raises PdbFormatError for a length that
    cannot be.
    """
    offset, end = start, min(end, stream.size)
    while end - offset >= 4:
        buffer = stream.read(offset, min(_PIECE, end - offset))
        size, at = len(buffer), 0
        while size - at >= 4:
            length = buffer[at] | buffer[at + 1] << 8
            behind = at + length + 2
            if behind > size and offset + size < end:
                break  # the rest of it is in the next piece, which begins with it
            if length < 2 or behind > size:
                raise PdbFormatError(stream.name, f"the record at {offset + at:#x} is said to be {length} bytes long")
            if kinds is None or buffer[at + 2] | buffer[at + 3] << 8 in kinds:
                yield offset + at, buffer, at, behind
            at = behind
        offset += at


def record_at(stream: Stream, offset: int) -> bytes:
    """One record, whole, with its length and kind. Raises PdbFormatError where there is none."""
    head = stream.read(offset, 4)
    if len(head) == 4 and (length := head[0] | head[1] << 8) >= 2:
        data = stream.read(offset, length + 2)
        if len(data) == length + 2:
            return data
    raise PdbFormatError(stream.name, f"there is no whole record at {offset:#x}")


def c_string(data: bytes, start: int, end: int) -> tuple[str, int]:
    """Text up to a zero byte or `end`, and the offset behind that byte. What is no UTF-8 is replaced."""
    stop = data.find(b"\0", start, end)
    if stop < 0:
        stop = end
    return data[start:stop].decode("utf-8", "replace"), stop + 1


def numeric(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """A number of a type record, and the offset behind it. None: cut short, or a kind that no size or offset has."""
    if at + 2 > end:
        return None
    value = data[at] | data[at + 1] << 8
    if value < 0x8000:
        return value, at + 2
    if value not in _NUMERIC_LEAVES:
        return None
    size, signed = _NUMERIC_LEAVES[value]
    if at + 2 + size > end:
        return None
    return int.from_bytes(data[at + 2 : at + 2 + size], "little", signed=signed), at + 2 + size
