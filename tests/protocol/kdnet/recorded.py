"""The recorded KDNET session of a real WinDbg and a real boot debugger, as scapy reads it, and its description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

__all__ = ["KEY_TEXT", "Frame", "read_frames", "read_summary"]

KEY_TEXT = "8.8.8.8"


@dataclass(frozen=True)
class Frame:
    """One frame on the wire. `said` is what whoever described the recording says of it."""

    datagram: bytes
    source: tuple[str, int]
    destination: tuple[str, int]
    said: dict[str, Any]

    @property
    def from_host(self) -> bool:
        return self.said["direction"] == "host->target"

    @property
    def kind(self) -> str:
        """The packet's type, or which control message it is."""
        return self.said.get("kd_packet_type") or self.said["kdnet_msg"]

    @property
    def is_first_try(self) -> bool:
        """A data packet that was not sent before."""
        return self.said.get("retransmission") is False


def read_summary(shared: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((shared / "data/kdnet/kdnet-capture-summary.json").read_text())
    return summary


def read_frames(shared: Path) -> list[Frame]:
    summary = read_summary(shared)
    packets = rdpcap(str(shared / "data/kdnet/windbg-uncut.pcapng.gz"))
    frames = []
    for packet, said in zip(packets, summary["packets"], strict=True):
        udp = packet[UDP]
        datagram = bytes(udp.payload)[: said["udp_payload_len"]]
        assert udp.len - 8 == len(datagram)
        frames.append(Frame(datagram, (packet[IP].src, udp.sport), (packet[IP].dst, udp.dport), said))
    return frames
