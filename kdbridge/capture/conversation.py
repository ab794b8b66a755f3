"""Conversation: frames in, decoded packets out. A third party's ear, for both links.

    frames (live, or from a file) ─► Conversation ─► DecodedPacket: what it means, and what is odd about it

Serial: each direction's bytes through a FrameReader, as the end that receives them would. Network: each datagram
opened with the key; the response that is in the capture gives the key of the data that follows it (kdnet 4.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protocol.framing import ControlFrame, DataFrame, FrameReader, HeaderFrame, Rubbish
from protocol.framing import Frame as Found
from protocol.kdnet import Channel, ControlKey, Datagram
from protocol.kdnet.control import Response
from protocol.kdnet.datagram import flaw
from protocol.kdnet.packet import ConnectionCheck, read_packet
from protocol.link import Discard, Role
from protocol.packet import BREAK_IN_BYTE, PacketType, encode_control, encode_data

from .decoded import DecodedPacket, Kind, Message, Odd, Oddity
from .frames import Frame, Medium
from .meanings import api_of, meaning
from .sessions import Keyring, OverheardSession
from .talk import Talk

__all__ = ["Conversation", "decode_frames"]

_BYTE_TIMEOUT = 1.0
"""Silence in the middle of a packet after which a receiver gives it up (kd-protocol 1.13)."""
_SIZES = {
    374: "a poke by its size",
    358: "a response by its size",
    38: "a break-in or an empty control message by its size",
    54: "an acknowledge, resend, reset or connection check by its size",
    294: "a state change by its size",
    1334: "a processor's context by its size",
}
"""What a datagram probably is that cannot be opened (kdnet 6)."""
_SAMPLE = 16
_NOT = Discard.NOT_AUTHENTIC
_CONTROL_WORDS = {
    Kind.ACKNOWLEDGE: "acknowledges",
    Kind.RESEND: "asks for the last packet again",
    Kind.RESET: "RESET: the ids begin anew",
}


@dataclass(slots=True)
class _Stream:
    """One direction of a serial line."""

    reader: FrameReader
    last: Frame | None = None


class Conversation:
    """Feed it frames in their order; it gives back packets. Keeps no more than the unfinished packets."""

    def __init__(self, key: ControlKey | None = None) -> None:
        self._keyring = None if key is None else Keyring(key)
        self._number = 0
        self._talk = Talk(Medium.SERIAL)
        self._streams = {True: _Stream(FrameReader(Role.TARGET)), False: _Stream(FrameReader(Role.HOST))}

    @property
    def genuine(self) -> int:
        """Network: datagrams that authenticated with the key."""
        return 0 if self._keyring is None else self._keyring.genuine

    def feed(self, frame: Frame) -> list[DecodedPacket]:
        """The packets that this frame ends."""
        if frame.medium is Medium.NETWORK:
            return [self._datagram(frame)]
        stream = self._streams[bool(frame.to_target)]
        packets = []
        if stream.last is not None and frame.time - stream.last.time > _BYTE_TIMEOUT:
            packets = self._give_up(stream)
        stream.last = frame
        stream.reader.feed(frame.data)
        return packets + self._serial(frame, list(_all(stream.reader)))

    def finish(self) -> list[DecodedPacket]:
        """No more frames come: what is left of packets that never ended."""
        return [packet for stream in self._streams.values() for packet in self._give_up(stream)]

    def _made(
        self, frame: Frame, kind: Kind, text: str, *, to_target: bool | None, raw: bytes, packet_id: int | None = None,
        message: Message | None = None, payload: bytes = b"", datagram: Datagram | None = None, session: int = 0,
        oddities: tuple[Oddity, ...] = (), is_reply: bool = False,
    ) -> DecodedPacket:  # fmt: skip
        self._number += 1
        return DecodedPacket(
            self._number, frame.time, to_target, frame.medium, frame.source, frame.destination, kind, packet_id, text,
            "" if message is None else api_of(message), message, payload, raw, datagram, session, oddities, is_reply,
        )  # fmt: skip

    # ---- a serial line -------------------------------------------------------------------------------------

    def _give_up(self, stream: _Stream) -> list[DecodedPacket]:
        if stream.last is None:
            return []
        found: list[Found] = []
        while (rubbish := stream.reader.drop()) is not None:
            found += [rubbish, *_all(stream.reader)]
        return self._serial(stream.last, found)

    def _serial(self, frame: Frame, found: list[Found]) -> list[DecodedPacket]:
        packets: list[DecodedPacket] = []
        for what in _joined(found):
            match what:
                case Rubbish():
                    packets.append(self._rubbish(frame, what))
                case ControlFrame():
                    raw = encode_control(what.packet_type, what.packet_id)
                    packets.append(self._kd_control(frame, self._talk, what, raw, bool(frame.to_target)))
                case DataFrame(flaw=None):
                    raw = encode_data(what.packet_type, what.packet_id, what.payload)
                    packets.append(self._kd_data(frame, self._talk, what, raw, bool(frame.to_target)))
                case DataFrame():
                    packets.append(self._damaged(frame, what))
                case HeaderFrame():
                    continue  # readers here are never asked for headers alone
        return packets

    def _rubbish(self, frame: Frame, rubbish: Rubbish) -> DecodedPacket:
        data = rubbish.data
        if frame.to_target and not data.strip(BREAK_IN_BYTE):
            return self._made(frame, Kind.BREAK_IN, "break-in", to_target=True, raw=data)
        text = f"no packet, {len(data)} byte{'s' if len(data) > 1 else ''}: {data[:_SAMPLE].hex(' ')}{_more(data)}"
        odd = Oddity(Odd.DISCARD, rubbish.reason.value, rubbish.reason)
        return self._made(frame, Kind.NOISE, text, to_target=frame.to_target, raw=data, oddities=(odd,))

    def _damaged(self, frame: Frame, found: DataFrame) -> DecodedPacket:
        reason = found.flaw or Discard.NOISE
        kind = _kind(found.packet_type)
        text = f"{len(found.payload):x}h bytes: {found.payload[:_SAMPLE].hex(' ')}{_more(found.payload)}"
        return self._made(
            frame, kind, text, to_target=frame.to_target, raw=found.payload, packet_id=found.packet_id,
            payload=found.payload, oddities=(Oddity(Odd.DISCARD, reason.value, reason),),
        )  # fmt: skip

    # ---- what both links carry -----------------------------------------------------------------------------

    def _kd_control(
        self, frame: Frame, talk: Talk | None, found: ControlFrame, raw: bytes, to_target: bool, *,
        datagram: Datagram | None = None, session: int = 0, before: tuple[Oddity, ...] = (),
    ) -> DecodedPacket:  # fmt: skip
        kind = Kind.of(found.packet_type)
        heard = () if talk is None else talk.control(found.packet_type, found.packet_id, to_target=to_target)
        return self._made(
            frame, kind, _CONTROL_WORDS[kind], to_target=to_target, raw=raw, packet_id=found.packet_id,
            datagram=datagram, session=session, oddities=before + heard,
        )  # fmt: skip

    def _kd_data(
        self, frame: Frame, talk: Talk | None, found: DataFrame, raw: bytes, to_target: bool, *,
        datagram: Datagram | None = None, session: int = 0, before: tuple[Oddity, ...] = (),
    ) -> DecodedPacket:  # fmt: skip
        # What a receiver drops unread says nothing of the conversation: it is heard as by somebody who just came.
        listener = Talk(frame.medium) if talk is None else talk
        heard = listener.data(found.packet_type, found.packet_id, found.payload, to_target=to_target)
        if heard.message is not None:
            text = meaning(heard.message, is_reply=heard.is_reply, question=heard.question)
        else:
            text = f"{len(found.payload):x}h bytes: {found.payload[:_SAMPLE].hex(' ')}{_more(found.payload)}"
        return self._made(
            frame, _kind(found.packet_type), text, to_target=to_target, raw=raw, packet_id=found.packet_id,
            message=heard.message, payload=found.payload, datagram=datagram, session=session,
            oddities=before + (() if talk is None else heard.oddities), is_reply=heard.is_reply,
        )  # fmt: skip

    # ---- the network ---------------------------------------------------------------------------------------

    def _datagram(self, frame: Frame) -> DecodedPacket:
        raw = frame.data
        problem = flaw(raw)
        if problem is not None:
            return self._opaque(frame, Oddity(Odd.DISCARD, problem.value, problem))
        keyring = self._keyring
        if keyring is None:
            return self._opaque(frame, Oddity(Odd.UNDECRYPTED, "no key was given to open it with"))
        opened = keyring.open(raw)
        if opened is None:
            return self._opaque(frame, _why_shut(raw, keyring))
        datagram, session = opened
        if session is None:
            return self._key_exchange(frame, keyring, datagram)
        return self._data(frame, datagram, session)

    def _opaque(self, frame: Frame, odd: Oddity) -> DecodedPacket:
        size = len(frame.data)
        text = f"datagram of {size} bytes" + (f", {_SIZES[size]}" if size in _SIZES else "")
        return self._made(frame, Kind.OPAQUE, text, to_target=None, raw=frame.data, oddities=(odd,))

    def _key_exchange(self, frame: Frame, keyring: Keyring, datagram: Datagram) -> DecodedPacket:
        session = 0
        message: Message | None = None
        oddities: tuple[Oddity, ...] = ()
        if datagram.from_host and not datagram.payload:
            kind, text = Kind.SOLICITATION, "asks for a poke at once"
        else:
            kind = Kind.RESPONSE if datagram.from_host else Kind.POKE
            message = keyring.control(frame, datagram)
            if message is None:
                text = f"{len(datagram.payload)} bytes of a control message that nobody knows"
                oddities = (Oddity(Odd.DISCARD, Discard.MALFORMED_MESSAGE.value, Discard.MALFORMED_MESSAGE),)
            else:
                text = meaning(message)
            if isinstance(message, Response):
                session = keyring.latest
        return self._made(
            frame, kind, text, to_target=datagram.from_host, raw=frame.data, message=message,
            payload=datagram.payload, datagram=datagram, session=session, oddities=oddities,
        )  # fmt: skip

    def _data(self, frame: Frame, datagram: Datagram, session: OverheardSession) -> DecodedPacket:
        oddities = tuple(session.judge(frame, datagram))
        talk = None if any(odd.reason for odd in oddities) else session.talk
        raw, to_target, payload = frame.data, datagram.from_host, datagram.payload
        if payload == BREAK_IN_BYTE and to_target:
            return self._made(
                frame, Kind.BREAK_IN, "break-in", to_target=True, raw=raw, payload=payload, datagram=datagram,
                session=session.number, oddities=oddities,
            )  # fmt: skip
        message: Message | None = None
        match read_packet(payload):
            case ControlFrame() as found:
                return self._kd_control(
                    frame, talk, found, raw, to_target, datagram=datagram, session=session.number, before=oddities
                )
            case DataFrame() as found:
                return self._kd_data(
                    frame, talk, found, raw, to_target, datagram=datagram, session=session.number, before=oddities
                )
            case ConnectionCheck() as message:
                kind, text = Kind.UNUSED, meaning(message)
            case reason:
                kind = Kind.NOISE
                text = f"no packet, {len(payload)} bytes: {payload[:_SAMPLE].hex(' ')}{_more(payload)}"
                oddities += (Oddity(Odd.DISCARD, reason.value, reason),)
        return self._made(
            frame, kind, text, to_target=to_target, raw=raw, message=message, payload=payload, datagram=datagram,
            session=session.number, oddities=oddities,
        )  # fmt: skip


def decode_frames(frames: Iterable[Frame], key: ControlKey | None = None) -> Iterator[DecodedPacket]:
    """All packets of all frames, in order. What the key opens, and what not, each packet says itself."""
    conversation = Conversation(key)
    for frame in frames:
        yield from conversation.feed(frame)
    yield from conversation.finish()


def _why_shut(raw: bytes, keyring: Keyring) -> Oddity:
    if raw[5] == Channel.CONTROL or not keyring.genuine:
        return Oddity(Odd.AUTHENTICATION, "it does not authenticate with this key: another key's, or forged", _NOT)
    if not keyring.has_session:
        return Oddity(
            Odd.UNDECRYPTED,
            "it cannot be decrypted: the response that made its data key is not in the capture",
            Discard.NO_SESSION,
        )
    return Oddity(
        Odd.AUTHENTICATION,
        "it authenticates under no data key of the capture: the response to its session is missing, or it is forged",
        _NOT,
    )


def _kind(packet_type: int) -> Kind:
    return Kind.of(packet_type) if packet_type in tuple(PacketType) else Kind.NOISE


def _all(reader: FrameReader) -> Iterator[Found]:
    while (found := reader.next()) is not None:
        yield found


def _joined(found: Iterable[Found]) -> Iterator[Found]:
    """The same, rubbish beside rubbish made one: a reader steps over it byte by byte."""
    held: Rubbish | None = None
    for what in found:
        if isinstance(what, Rubbish):
            held = what if held is None else Rubbish(held.reason, held.data + what.data)
            continue
        if held is not None:
            yield held
            held = None
        yield what
    if held is not None:
        yield held


def _more(data: bytes) -> str:
    return " …" if len(data) > _SAMPLE else ""
