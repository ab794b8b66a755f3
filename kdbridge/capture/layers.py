"""KDNET and KDCOM as scapy layers. Their fields come from the codecs of `protocol`, and go back through them.

    enable("8.8.8.8")
    for packet in scapy.utils.rdpcap("capture.pcapng"):
        packet.show()

A data datagram opens once the response that made its key was dissected before it, as in a capture read in order. What
does not open stays as it is, in Raw. Layers of a serial line (RtacSerial, KDCOM) need no key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from scapy.config import conf
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw, bind_bottom_up

from protocol.errors import LocalProtocolError
from protocol.framing import ControlFrame, DataFrame, Frame, FrameReader, Rubbish
from protocol.kdnet import Channel, Datagram, parse_key
from protocol.kdnet.control import Poke, Response
from protocol.kdnet.datagram import flaw
from protocol.kdnet.packet import ConnectionCheck, read_packet
from protocol.link import Role
from protocol.packet import PacketType, encode_control, encode_data

from .coded import Coded, Value
from .frames import Frame as Recorded
from .frames import Medium
from .messages import layer_of, message_layer
from .pcapng import LINKTYPE_RTAC_SERIAL, RTAC_HEADER, RTAC_SENT
from .sessions import Keyring

__all__ = ["KDCOM", "KDNET", "KDPacket", "RtacSerial", "enable"]

_PORTS = range(50000, 50040)
_KEYRING = "kdnet_keyring"
_NOWHERE = Recorded(0.0, None, b"", Medium.NETWORK, "", "")


def enable(key: str | None = None, ports: Iterable[int] = _PORTS) -> None:
    """Make scapy use these layers: KDNET on these UDP ports, opened with `key`; KDCOM on captured serial lines.

    Sessions of a key that was enabled before are forgotten. Raises KeyTextError.
    """
    conf.contribs[_KEYRING] = None if key is None else Keyring(parse_key(key))
    for port in ports:
        bind_bottom_up(UDP, KDNET, sport=port)
        bind_bottom_up(UDP, KDNET, dport=port)
    conf.l2types.register(LINKTYPE_RTAC_SERIAL, RtacSerial)


def _keyring() -> Keyring | None:
    found: Keyring | None = conf.contribs.get(_KEYRING)
    return found


class KDNET(Coded):
    """One datagram. `authentic` is True where it opened; then everything below is decrypted."""

    name: str | None = "KDNET"
    fields_desc: ClassVar[list[Any]] = [
        Value("version", 5), Value("channel", int(Channel.DATA)), Value("from_host", True), Value("sequence", 1),
        Value("authentic", True),
    ]  # fmt: skip

    def taken_apart(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """A datagram that opens is its payload, one that does not is itself."""
        keyring = _keyring()
        opened = None if keyring is None or flaw(data) is not None else keyring.open(data)
        if keyring is None or opened is None:
            return {"version": None, "channel": None, "from_host": None, "sequence": None, "authentic": False}, data
        datagram, _ = opened
        if datagram.channel == Channel.CONTROL and datagram.payload:
            keyring.control(_NOWHERE, datagram)
        return {
            "version": datagram.version, "channel": int(datagram.channel), "from_host": datagram.from_host,
            "sequence": datagram.sequence, "authentic": True,
        }, datagram.payload  # fmt: skip

    def put_together(self, payload: bytes) -> bytes:
        """Sealed with the key that `enable` was given. Raises LocalProtocolError where there is none."""
        if not self.authentic:
            return payload
        keyring = _keyring()
        sealed = None if keyring is None else keyring.seal(
            Datagram(self.version, self.channel, self.from_host, self.sequence, payload)
        )  # fmt: skip
        if sealed is None:
            raise LocalProtocolError(
                "there is no key to seal a KDNET datagram with: enable(KEY), and a response, first"
            )
        return sealed

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """Poke, response, connection check, KD packet; else bytes."""
        if not self.authentic:
            return Raw
        if self.channel == Channel.CONTROL:
            return layer_of(Response if self.from_host else Poke)
        if isinstance(read_packet(payload), ConnectionCheck):
            return layer_of(ConnectionCheck)
        return KDPacket if isinstance(read_packet(payload), (DataFrame, ControlFrame)) else Raw


class KDPacket(Coded):
    """A KD packet's header as KDNET carries it: without a trailing byte. `control`: no payload."""

    name: str | None = "KD packet"
    fields_desc: ClassVar[list[Any]] = [
        Value("control", False), Value("packet_type", int(PacketType.STATE_MANIPULATE)), Value("packet_id", 0),
    ]  # fmt: skip
    trailer = False

    def read(self, data: bytes) -> Frame | None:
        """The packet that these bytes are."""
        found = read_packet(data)
        return found if isinstance(found, (DataFrame, ControlFrame)) else None

    def taken_apart(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Header and message; what is no packet is left as bytes."""
        match self.read(data):
            case DataFrame(packet_type, packet_id, payload, None):
                return {"control": False, "packet_type": packet_type, "packet_id": packet_id}, payload
            case ControlFrame(packet_type, packet_id):
                return {"control": True, "packet_type": packet_type, "packet_id": packet_id}, b""
            case _:
                return {"control": None, "packet_type": None, "packet_id": None}, data

    def put_together(self, payload: bytes) -> bytes:
        """Byte count and checksum are reckoned."""
        if self.control is None:
            return payload
        if self.control:
            return encode_control(self.packet_type, self.packet_id)
        return encode_data(self.packet_type, self.packet_id, payload, trailer=self.trailer)

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """The message."""
        found = None if self.control is not False else message_layer(self.packet_type, self.to_target, payload)
        return Raw if found is None else found

    @property
    def to_target(self) -> bool:
        """Which way it went, by the layer around it; from the target where there is none."""
        around = self.underlayer
        if isinstance(around, KDNET):
            return bool(around.from_host)
        return isinstance(around, RtacSerial) and around.to_target


class KDCOM(KDPacket):
    """A KD packet as a serial line carries it."""

    name: str | None = "KDCOM"
    trailer = True

    def read(self, data: bytes) -> Frame | None:
        """The packet that these bytes are."""
        reader = FrameReader(Role.HOST)
        reader.feed(data)
        found = reader.next()
        return None if reader.pending else found


class RtacSerial(Coded):
    """Bytes of a serial line as `kdbridge --record` keeps them. `packets` are those that are whole in it."""

    name: str | None = "serial line"
    fields_desc: ClassVar[list[Any]] = [
        Value("seconds", 0), Value("microseconds", 0), Value("event", RTAC_SENT), Value("control_lines", 0),
        Value("footer", 0), Value("packets", [], holds_packets=1),
    ]  # fmt: skip

    @property
    def to_target(self) -> bool:
        """Which way the bytes went."""
        return bool(self.event == RTAC_SENT)

    def taken_apart(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Whole packets; what is left of one that is not, as bytes."""
        if len(data) < RTAC_HEADER.size:
            return {"event": None, "packets": []}, data
        names = ("seconds", "microseconds", "event", "control_lines", "footer")
        values: dict[str, Any] = dict(zip(names, RTAC_HEADER.unpack_from(data), strict=True))
        self.fields.update(values)
        stream = data[RTAC_HEADER.size :]
        reader = FrameReader(Role.HOST)
        reader.feed(stream)
        packets: list[Packet] = []
        start = 0
        while (found := reader.next()) is not None:
            end = len(stream) - reader.pending
            kind = Raw if isinstance(found, Rubbish) else KDCOM
            packets.append(kind(stream[start:end], _underlayer=self))
            start = end
        return {**values, "packets": packets}, stream[start:]

    def put_together(self, payload: bytes) -> bytes:
        """The header, the packets, and the rest."""
        if self.event is None:
            return payload
        head = RTAC_HEADER.pack(self.seconds, self.microseconds, self.event, self.control_lines, self.footer)
        return head + b"".join(bytes(packet) for packet in self.packets) + payload
