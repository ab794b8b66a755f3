"""Symbol files made by hand: streams laid into blocks that lie anywhere, and the records that go into them."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence

from protocol.pdb import Pdb, ReadFile
from protocol.pdb.msf import Msf

MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"


def reader(data: bytes) -> ReadFile:
    return lambda offset, size: data[offset : offset + size]


def pdb_of(data: bytes) -> Pdb:
    return Pdb(reader(data), len(data))


def streams_of(data: bytes) -> list[bytes | None]:
    """What the streams of a file hold."""
    msf = Msf(reader(data), len(data))
    found: list[bytes | None] = []
    for number in range(len(msf)):
        stream = msf.stream(number, "any")
        found.append(stream.read(0, stream.size))
    return found


def msf_file(streams: Sequence[bytes | None], block_size: int = 4096, seed: int = 0) -> bytes:
    """A file with these streams, whose blocks lie in an order of chance. None: a stream that is not there."""
    chance = random.Random(seed)

    def cut(data: bytes) -> list[bytes]:
        return [data[at : at + block_size].ljust(block_size, b"\0") for at in range(0, len(data), block_size)]

    pieces = [cut(data or b"") for data in streams]
    directory_words = 1 + len(streams) + sum(map(len, pieces))
    directory_blocks = -(-4 * directory_words // block_size)
    list_blocks = -(-4 * directory_blocks // block_size)
    needed = sum(map(len, pieces)) + directory_blocks + list_blocks
    free = list(range(3, 3 + needed))
    chance.shuffle(free)
    places = [[free.pop() for _ in piece] for piece in pieces]
    sizes = [0xFFFF_FFFF if data is None else len(data) for data in streams]
    words = [len(streams), *sizes, *(block for place in places for block in place)]
    directory = struct.pack(f"<{len(words)}I", *words)
    directory_places = [free.pop() for _ in range(directory_blocks)]
    list_places = [free.pop() for _ in range(list_blocks)]
    blocks = [bytes(block_size)] * (3 + needed)
    for place, piece in zip(places, pieces, strict=True):
        for number, block in zip(place, piece, strict=True):
            blocks[number] = block
    for number, block in zip(directory_places, cut(directory), strict=True):
        blocks[number] = block
    for number, block in zip(list_places, cut(struct.pack(f"<{directory_blocks}I", *directory_places)), strict=True):
        blocks[number] = block
    head = MAGIC + struct.pack("<5I", block_size, 1, len(blocks), len(directory), 0)
    blocks[0] = (head + struct.pack(f"<{list_blocks}I", *list_places)).ljust(block_size, b"\0")
    return b"".join(blocks)


def record(kind: int, body: bytes) -> bytes:
    """One CodeView record, its length a multiple of four."""
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<HH", len(body) + 2, kind) + body


def public(name: str, section: int, offset: int, flags: int = 2) -> bytes:
    return record(0x110E, struct.pack("<IIH", flags, offset, section) + name.encode() + b"\0")


def section_header(name: str, address: int, size: int) -> bytes:
    return struct.pack("<8s8I", name.encode(), size, address, size, 0, 0, 0, 0, 0x6000_0020)


def dbi_stream(
    symbols: int, debug: dict[int, int], *, age: int = 1, machine: int = 0x8664, modules: bytes = b""
) -> bytes:
    """A DBI stream; `debug` has the numbers of streams by their place in the optional header."""
    numbers = struct.pack("<11H", *(debug.get(place, 0xFFFF) for place in range(11)))
    head = struct.pack("<iII6H", -1, 19990903, age, 0xFFFF, 0, 0xFFFF, 0, symbols, 0)
    sizes = struct.pack("<5iIii", len(modules), 0, 0, 0, 0, 0, len(numbers), 0)
    return head + sizes + struct.pack("<HHI", 0, machine, 0) + modules + numbers


def info_stream(guid: bytes, age: int = 1) -> bytes:
    return struct.pack("<III", 20000404, 0x5F5E100, age) + guid + bytes(12)


def types_stream(records: Sequence[bytes]) -> bytes:
    body = b"".join(records)
    return struct.pack("<5I36x", 20040203, 56, 0x1000, 0x1000 + len(records), len(body)) + body


def structures(fields: Mapping[str, Mapping[str, int]]) -> list[bytes]:
    """Type records of structures: by name, their members with their offsets (below 0x8000)."""
    types: list[bytes] = []
    for name, members in fields.items():
        entries = b""
        for member, offset in members.items():
            entry = struct.pack("<HHIH", 0x150D, 3, 0x74, offset) + member.encode() + b"\0"
            entries += entry + bytes(0xF0 + left for left in range(-len(entry) % 4, 0, -1))
        types.append(record(0x1203, entries))
        head = struct.pack("<HHI8xH", len(members), 0, 0x1000 + len(types) - 1, 8)
        types.append(record(0x1505, head + name.encode() + b"\0"))
    return types


def symbol_file(records: bytes, sections: bytes, *, types: Sequence[bytes] = (), machine: int = 0x8664) -> bytes:
    """A whole file with public symbols: streams 5 (sections) and 6 (records)."""
    dbi = dbi_stream(6, {5: 5}, machine=machine)
    return msf_file([b"", info_stream(bytes(range(16))), types_stream(types), dbi, b"", sections, records])
