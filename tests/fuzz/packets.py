"""Good packets of both ends, by hand and from the recording, and hostile streams made of them."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Sequence
from pathlib import Path

from protocol.arch import AMD64
from protocol.debug_io import ControlRequest, GetString, GetStringReply, PrintString, TraceIo
from protocol.file_io import FileIo, FileIoApi
from protocol.manipulate import UNIONS, ApiNumber, Manipulate
from protocol.packet import HEADER, INITIAL_PACKET_ID, SYNC_PACKET_ID, encode_control, encode_data
from protocol.state_change import CommandString, ExceptionChange, LoadSymbols, StateChange
from tests.fuzz.mutate import hostile_number, mutated, noise
from tests.recording import read_chunks, split
from tests.small_machine import KERNEL, PC, version_of_19041

__all__ = ["FIELDS", "Payload", "from_host", "from_target", "recorded", "stream"]

Payload = tuple[int, bytes]
"""Packet type, and what is in it."""

FIELDS = {
    2: ((0, 4), (6, 2), (8, 4), (16, 8), (20, 4), (24, 4), (28, 4)),
    3: ((0, 4), (6, 2), (8, 4), (12, 4)),
    7: ((0, 4), (6, 2), (8, 4), (0x18, 8), (0x20, 4), (0x28, 8), (0x38, 4)),
    9: ((0, 4), (8, 4)),
    10: ((0, 4), (4, 4)),
    11: ((0, 4), (4, 4), (8, 8), (16, 8)),
}
"""Numbers in a packet of each type that say what the rest is."""


_USUAL = {"address": PC, "transfer_count": 64, "length": 64, "search_length": 0x100}


@functools.cache
def recorded() -> dict[bool, tuple[Payload, ...]]:
    """What a real debugger (True) and a real target said; nothing where the recording is not here."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    shared = Path(os.environ.get("KDBRIDGE_SHARED", beside))
    if not (shared / "data/kdcom").is_dir():
        return {True: (), False: ()}
    said: dict[bool, bytearray] = {True: bytearray(), False: bytearray()}
    for chunk in read_chunks(shared):
        said[chunk.from_host] += chunk.data
    return {
        host: tuple({(p.packet_type, p.payload): None for p in split(bytes(data))[0] if not p.control})
        for host, data in said.items()
    }


@functools.cache
def from_target() -> tuple[Payload, ...]:
    """One of each that a target says, and what the recording has."""
    changes = (
        ExceptionChange(0x80000003, 0, 0, PC, (0, 1, 2), True),
        LoadSymbols("\\SystemRoot\\system32\\ntoskrnl.exe", KERNEL, 4, 0x1234, 0x1000000, unload=False),
        CommandString("name", ".echo hello"),
    )
    version = Manipulate.request(ApiNumber.GET_VERSION)
    replies = [
        Manipulate(ApiNumber.GET_VERSION, union=version_of_19041().encode()),
        Manipulate.request(
            ApiNumber.READ_VIRTUAL_MEMORY, address=PC, transfer_count=64, actual_bytes=64, data=b"x" * 64
        ),
        Manipulate.request(ApiNumber.READ_PHYSICAL_MEMORY, address=0x2000, transfer_count=3944, data=bytes(3944)),
        Manipulate.request(ApiNumber.GET_CONTEXT, data=bytes(AMD64.context.size)),
        Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=2, transfer_count=0xF0, data=bytes(0xF0)),
        version.reply(0xC0000001),
    ]
    return (
        *((7, StateChange(6, 0, 1, KERNEL, PC, change).encode()) for change in changes),
        *((2, reply.encode()) for reply in replies),
        (2, version.reply(0xC0000001).encode()[:12]),
        (3, PrintString(6, 0, b"hello\n").encode()),
        (3, GetString(6, 0, b"Break, Ignore (bi)? ", 2).encode()),
        (9, TraceIo(6, 0, b"trace").encode()),
        (10, ControlRequest(0x4300, 1, 0).encode()),
        (11, FileIo.create("\\SystemRoot\\System32\\drivers\\mydrv.sys").encode()),
        (11, FileIo.transfer(FileIoApi.READ_FILE, 1, 0, 0x1000).encode()),
        (1, bytes(0x80)),
        *recorded()[False],
    )


@functools.cache
def from_host() -> tuple[Payload, ...]:
    """A request of every kind there is, answers to what a target asks, and what the recording has."""
    requests = []
    for api in ApiNumber:
        if api in UNIONS:
            takes = any(word in api.name for word in ("WRITE", "FILL", "SEARCH"))
            fields = {field: _USUAL.get(field, 1) for field in UNIONS[api].fields}
            requests.append(Manipulate.request(api, data=bytes(range(64)) if takes else b"", **fields))
    context = AMD64.context.encode({"context_flags": 0x10001F, "rip": PC})
    return (
        *((2, request.encode()) for request in requests),
        (2, Manipulate.request(ApiNumber.SET_CONTEXT, data=context).encode()),
        (2, Manipulate.request(ApiNumber.WRITE_BREAK_POINT_EX, count=2, data=bytes(32)).encode()),
        (3, GetStringReply(6, 0, 20, b"b").encode()),
        (11, FileIo.create("x").decline(0xC000000F).encode()),
        *recorded()[True],
    )


def stream(rng: random.Random, payloads: Sequence[Payload], *, synchronized: bool = True) -> bytes:
    """A conversation's half: packets with ids in turn and sums that are right, unless this is where the lie is."""
    packet_id = INITIAL_PACKET_ID
    sync = SYNC_PACKET_ID if synchronized and rng.randrange(4) else 0
    parts: list[bytes] = []
    for _ in range(1 + rng.randrange(1 + rng.randrange(12))):
        kind = rng.randrange(16)
        if kind < 10:
            packet_type, payload = rng.choice(payloads)
            if rng.getrandbits(1):
                payload = mutated(rng, payload, FIELDS.get(packet_type, ()))[:4160]
            packet = encode_data(packet_type, packet_id | sync, payload)
            if not rng.randrange(8):
                packet = _lie(rng, packet)
            elif rng.randrange(8):
                packet_id, sync = packet_id ^ 1, 0
            parts.append(packet)
        elif kind < 13:
            parts.append(encode_control(4, INITIAL_PACKET_ID | rng.getrandbits(1)))
        elif kind == 13:
            parts.append(encode_control(rng.choice((5, 6)), rng.choice((0, INITIAL_PACKET_ID))))
        elif kind == 14:
            parts.append(rng.choice((b"b", b"0000", b"iiii", b"000", b"ii", b"\xaa", b"0" * 40)))
        else:
            parts.append(noise(rng, 200))
    data = b"".join(parts)
    return mutated(rng, data, others=parts) if not rng.randrange(3) else data


def _lie(rng: random.Random, packet: bytes) -> bytes:
    """One field of the header, or the trailing byte, is wrong."""
    fields = list(HEADER.unpack_from(packet))
    which = rng.randrange(6)
    if which == 5:
        return packet[:-1] + (b"" if rng.getrandbits(1) else rng.randbytes(1))
    width = (4, 2, 2, 4, 4)[which]
    fields[which] = hostile_number(rng, width, len(packet) - HEADER.size)
    return HEADER.pack(*fields) + packet[HEADER.size :]
