"""A decoded packet as a line for people, and as an object for scripts."""

from __future__ import annotations

from datetime import UTC, datetime

from kdbridge.capture.decoded import DecodedPacket, Kind
from protocol.manipulate import Manipulate

__all__ = ["packet_document", "packet_line", "when"]

_ARROWS = {True: "→", False: "←", None: "·"}
_KEY_EXCHANGE = (Kind.POKE, Kind.RESPONSE, Kind.SOLICITATION, Kind.OPAQUE)


def when(time: float) -> str:
    """Seconds since 1970 as a date, in UTC."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    except (OverflowError, ValueError, OSError):
        return f"{time:g} s after 1970"


def packet_line(packet: DecodedPacket, start: float) -> str:
    """Time since `start`, direction, id, meaning, and what is odd."""
    number = "" if packet.id is None else f"{packet.id:08x}"
    odd = "".join(f"  [{odd.kind.value}: {odd.text}]" for odd in packet.oddities)
    return f"{packet.time - start:12.6f} {_ARROWS[packet.to_target]} {number:8} {packet.text}{odd}"


def packet_document(packet: DecodedPacket) -> dict[str, object]:
    """All of it but secrets: what key exchanges carry, and what could not be opened, is left out."""
    document: dict[str, object] = {
        "number": packet.number,
        "time": packet.time,
        "to_target": packet.to_target,
        "source": packet.source,
        "destination": packet.destination,
        "type": packet.kind.value,
        "id": packet.id,
        "api": packet.api or None,
        "reply": packet.is_reply,
        "text": packet.text,
        "size": len(packet.raw),
        "odd": [
            {"kind": odd.kind.value, "text": odd.text, "reason": None if odd.reason is None else odd.reason.name}
            for odd in packet.oddities
        ],
    }
    if isinstance(packet.message, Manipulate):
        document["status"] = packet.message.status
        document["fields"] = packet.message.fields()
    if packet.datagram is not None:
        document["version"] = packet.datagram.version
        document["sequence"] = packet.datagram.sequence
        document["session"] = packet.session or None
    if packet.kind not in _KEY_EXCHANGE:
        document["payload"] = packet.payload.hex()
    return document
