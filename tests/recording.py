"""The recorded session of a real WinDbg and a real x64 kernel over serial KDCOM, as plain values.

The splitting here is a second one, written for this file alone and independent of `protocol.framing`: what the
codecs make of the recording is held against it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Chunk", "Packet", "read_chunks", "split"]


@dataclass(frozen=True)
class Chunk:
    at: float
    from_host: bool
    data: bytes


@dataclass(frozen=True)
class Packet:
    """One packet of the recording: where it starts in its direction's bytes, and its fields as they stand there."""

    offset: int
    packet_type: int
    packet_id: int
    checksum: int
    payload: bytes
    control: bool
    raw: bytes


def read_chunks(shared: Path) -> list[Chunk]:
    lines = (shared / "data/kdcom/windbg-attach-crashed-x64.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [Chunk(at, direction == "h", bytes.fromhex(text)) for at, direction, text in rows]


def split(stream: bytes) -> tuple[list[Packet], list[tuple[int, bytes]]]:
    """The packets of one direction, and the bytes between them. A clean stream only: every header is believed."""
    packets: list[Packet] = []
    between: list[tuple[int, bytes]] = []
    at = 0
    while at < len(stream):
        leader = stream[at : at + 4]
        if leader not in (b"0000", b"iiii"):
            between.append((at, stream[at : at + 1]))
            at += 1
            continue
        packet_type, count, packet_id, checksum = struct.unpack_from("<HHII", stream, at + 4)
        control = leader == b"iiii"
        end = at + 16 if control else at + 16 + count + 1
        assert control or stream[end - 1] == 0xAA
        payload = stream[at + 16 : at + 16 + count]
        packets.append(Packet(at, packet_type, packet_id, checksum, payload, control, stream[at:end]))
        at = end
    return packets, between
