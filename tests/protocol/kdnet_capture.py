"""The captured session of a real WinDbg and a real Windows 10 boot debugger over KDNET: its KD packets, decrypted.

Payloads are the same as over serial (kd-protocol 1.15), so they are a second witness for every codec. Every packet is
held against the hash that its description gives before anybody uses it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["Captured", "read_capture"]

_ENHANCED_PACKET = 6


@dataclass(frozen=True)
class Captured:
    """One data packet of the capture. `said` is its decoded form, as whoever described the capture wrote it."""

    from_host: bool
    packet_type: int
    payload: bytes
    said: dict[str, Any]

    @property
    def params(self) -> dict[str, Any]:
        """The fields of the message; hexadecimal texts turned into numbers."""
        return {name: _plain(value) for name, value in self.said["params"].items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def _datagrams(capture: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(capture):
        kind, size = struct.unpack_from("<II", capture, at)
        if kind == _ENHANCED_PACKET:
            (length,) = struct.unpack_from("<I", capture, at + 20)
            frame = capture[at + 28 : at + 28 + length]
            yield frame[frame.index(b"MDBG") :]
        at += size


def read_capture(shared: Path) -> list[Captured]:
    """Its data packets in order, retransmissions included."""
    summary = json.loads((shared / "data/kdnet/kdnet-capture-summary.json").read_text())
    capture = gzip.decompress((shared / "data/kdnet/windbg-uncut.pcapng.gz").read_bytes())
    key = bytes.fromhex(summary["meta"]["data_key_hex"])
    packets: list[Captured] = []
    for datagram, said in zip(_datagrams(capture), summary["packets"], strict=True):
        if said["channel"] != "data" or said.get("kd_leader") != "0x30303030":
            continue
        datagram = datagram[: said["udp_payload_len"]]
        assert hashlib.sha256(datagram).hexdigest() == said["datagram_sha256"]
        decryptor = Cipher(algorithms.AES(key), modes.CBC(datagram[-16:])).decryptor()
        inner = (decryptor.update(datagram[6:-16]) + decryptor.finalize())[8 : 8 + said["payload_len"]]
        assert hashlib.sha256(inner).hexdigest() == said["payload_sha256"]
        packet_type, count = struct.unpack_from("<HH", inner, 4)
        packets.append(Captured(said["direction"] == "host->target", packet_type, inner[16 : 16 + count], said))
    return packets
