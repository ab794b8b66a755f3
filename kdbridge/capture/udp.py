"""From a frame of any link type that scapy knows down to the UDP datagram in it."""

from __future__ import annotations

from typing import Any, NamedTuple

from scapy.config import conf
from scapy.layers import inet, inet6, l2, ppp  # noqa: F401  (each registers its link types)

from protocol.kdnet.datagram import MAGIC

__all__ = ["UdpDatagram", "UdpFinder"]

_UDP_HEADER = 8
_TRIES = 4
"""The magic may stand in a header too, as part of an address."""


class UdpDatagram(NamedTuple):
    """A datagram that begins with KDNET's magic, and the IP packet that it came in."""

    data: bytes
    source: str
    destination: str
    packet: bytes
    shortened: bool


class UdpFinder:
    """Knows scapy's link types; says of each frame what datagram is in it."""

    def find(self, link_type: int, frame: bytes) -> UdpDatagram | None:
        """The datagram; None: there is none with the magic, or scapy does not know the link type."""
        layer = conf.l2types.num2layer.get(link_type)
        if layer is None:
            return None
        at = frame.find(MAGIC)
        for _ in range(_TRIES):
            if at < 0:
                break
            found = self._behind(layer, frame, at)
            if found is not None:
                return found
            at = frame.find(MAGIC, at + 1)
        return None

    def _behind(self, layer: Any, frame: bytes, at: int) -> UdpDatagram | None:
        """Whether everything before the magic is headers, the last of them UDP's."""
        try:
            packet = layer(frame[:at])
        except Exception:
            # What a broken frame does to scapy is no matter of ours: it is no datagram.
            return None
        address: Any = None
        while packet.payload:
            if isinstance(packet, (inet.IP, inet6.IPv6)):
                address = packet
            packet = packet.payload
        if address is None or not isinstance(packet, inet.UDP) or len(packet.original) != _UDP_HEADER:
            return None
        length = packet.len or len(frame)
        data = frame[at : at + max(0, length - _UDP_HEADER)]
        if not data.startswith(MAGIC):
            return None
        start = at - len(address.original)
        family = "[{}]:{}" if isinstance(address, inet6.IPv6) else "{}:{}"
        return UdpDatagram(
            data,
            family.format(address.src, packet.sport),
            family.format(address.dst, packet.dport),
            frame[start : at + len(data)],
            packet.len is not None and len(data) < packet.len - _UDP_HEADER,
        )
