"""What scapy layers over our codecs have in common: fields without a layout, and bytes that a codec takes apart."""

from __future__ import annotations

from typing import Any

from scapy.fields import Field
from scapy.packet import Packet

__all__ = ["Coded", "Value"]

_SHOWN = 32


class Value(Field[Any, Any]):
    """A field of a layer whose codec reads and writes it. `holds_packets`: a list of layers."""

    __slots__ = ("holds_packets", "islist")

    def __init__(self, name: str, default: Any, *, holds_packets: int = 0) -> None:
        super().__init__(name, default, "B")
        self.holds_packets = holds_packets
        self.islist = holds_packets

    def addfield(self, pkt: Packet, s: bytes, val: Any) -> bytes:
        """Nothing is added: the layer's codec does that."""
        return s

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, Any]:
        """Nothing is taken: the layer's codec does that."""
        return s, None

    def any2i(self, pkt: Packet | None, x: Any) -> Any:
        """A value is itself."""
        return x

    def i2repr(self, pkt: Packet | None, x: Any) -> str:
        """Numbers as the debugger's world writes them."""
        if isinstance(x, bytes) and len(x) > _SHOWN:
            return f"{x[:_SHOWN].hex(' ')} … ({len(x):#x} bytes)"
        return f"{x:#x}" if isinstance(x, int) and not isinstance(x, bool) else repr(x)


class Coded(Packet):
    """A layer of which `taken_apart` and `put_together` say what its bytes are."""

    def do_dissect(self, s: bytes) -> bytes:
        """Scapy asks for the rest."""
        values, payload = self.taken_apart(bytes(s))
        self.fields.update(values)
        self.explicit = 1
        return payload

    def do_build(self) -> bytes:
        """Scapy asks for the bytes, payload included."""
        return self.put_together(self.do_build_payload())

    def taken_apart(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Field values, and the payload."""
        raise NotImplementedError

    def put_together(self, payload: bytes) -> bytes:
        """The bytes of this layer around its payload."""
        raise NotImplementedError
