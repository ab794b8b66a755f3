"""Hostile bytes out of good ones: flips, splices, truncations, and numbers that lie about sizes, counts and offsets."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["Field", "chunks", "hostile_number", "mutated", "noise"]

Field = tuple[int, int]
"""Offset and width of a number that others depend on, in bytes."""

_LARGEST = 1 << 20


def hostile_number(rng: random.Random, width: int, size: int = 0) -> int:
    """0, 1, the largest, the smallest negative, powers of two and their neighbours, something near `size`, anything."""
    bits = 8 * width
    kind = rng.randrange(8)
    if kind == 0:
        value = rng.choice((0, 1, 2, 3))
    elif kind == 1:
        value = -rng.choice((1, 2, 8, 0x1000))
    elif kind == 2:
        value = 1 << bits - 1
    elif kind == 3:
        value = (1 << rng.randrange(bits)) + rng.choice((-1, 0, 1))
    elif kind == 4:
        value = size + rng.choice((-0x1000, -8, -1, 0, 1, 8, 0x1000))
    elif kind == 5:
        value = rng.randrange(0x100)
    elif kind == 6:
        value = rng.randrange(0x1000000)
    else:
        value = rng.getrandbits(bits)
    return value & (1 << bits) - 1


def noise(rng: random.Random, most: int) -> bytes:
    """Nothing but random bytes, short ones more often than long ones."""
    return rng.randbytes(rng.randrange(1 + rng.randrange(1 + most)))


def mutated(rng: random.Random, data: bytes, fields: Sequence[Field] = (), others: Sequence[bytes] = ()) -> bytes:
    """A few changes of every kind, most of them small. `others` are what a splice takes its second half from."""
    raw = bytearray(data)
    for _ in range(1 + min(rng.getrandbits(8).bit_count() // 2, rng.randrange(1, 6))):
        kind = rng.randrange(12)
        at = rng.randrange(len(raw) + 1)
        if kind <= 3 and fields:
            at, width = rng.choice(fields)
            if at + width <= len(raw):
                raw[at : at + width] = hostile_number(rng, width, len(raw)).to_bytes(width, "little")
        elif kind <= 4 and len(raw) >= 8:
            width = rng.choice((1, 2, 4, 8))
            at = min(at, len(raw) - width) & ~(width - 1)
            raw[at : at + width] = hostile_number(rng, width, len(raw)).to_bytes(width, "little")
        elif kind <= 6 and raw:
            for _ in range(1 + rng.randrange(8)):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        elif kind == 7:
            del raw[at:]
        elif kind == 8:
            del raw[at : at + 1 + rng.randrange(64)]
        elif kind == 9:
            raw[at:at] = noise(rng, 64)
        elif kind == 10 and others:
            second = rng.choice(others)
            raw[at:] = second[rng.randrange(len(second) + 1) :]
        elif raw:
            # A piece of itself, again, somewhere else.
            start = rng.randrange(len(raw))
            piece = bytes(raw[start : start + 1 + rng.randrange(256)])
            at = min(at, len(raw) - 1)
            if rng.getrandbits(1):
                raw[at : at + len(piece)] = piece
            else:
                raw[at:at] = piece
        if len(raw) > _LARGEST:
            del raw[_LARGEST:]
    return bytes(raw)


def chunks(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes as a line may bring them: at once, one by one, or in pieces."""
    style = rng.randrange(4)
    if style == 0 or not data:
        return [data]
    # What is long comes in fewer pieces than bytes: a hundred cuts find as much as four thousand.
    most = max((1, 24, 600)[style - 1], len(data) // 50)
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        length = 1 + rng.randrange(most)
        parts.append(data[at : at + length])
        at += length
    return parts
