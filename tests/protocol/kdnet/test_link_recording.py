"""The real session again: WinDbg's datagrams drive our target, the real target's drive our host."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.framing import ControlFrame, DataFrame
from protocol.kdnet import Channel, Endpoint, HostChannel, KdnetLink, Sealer, TargetChannel, parse_key
from protocol.kdnet.packet import ConnectionCheck, read_packet
from protocol.link import LinkRestarted, PacketAcknowledged, PacketReceived
from protocol.packet import PacketType
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import events_of
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame

_KEY = parse_key(KEY_TEXT)
_HOST, _TARGET = ("192.168.2.1", 51111), ("192.168.2.72", 51111)
_LOST_REPLY = 196
"""What WinDbg evidently never saw (kdnet 5.2)."""
_WINDBG_RESETS = 202


@pytest.fixture
def data_key(summary: dict[str, Any]) -> bytes:
    return bytes.fromhex(summary["meta"]["data_key_hex"])


def _contents(datagram: bytes, data_key: bytes) -> bytes:
    sealer = Sealer(_KEY, Aes())
    opened = sealer.open(datagram, data_key if datagram[5] == Channel.DATA else sealer.control_key)
    assert opened is not None
    return opened.payload


def _body(frame: Frame, data_key: bytes) -> bytes:
    return _contents(frame.datagram, data_key)[16:]


def _named(datagram: bytes, data_key: bytes) -> tuple[str, int, int]:
    """Type, id and API, as the description has them."""
    payload = _contents(datagram, data_key)
    if datagram[5] == Channel.CONTROL:
        return ("poke" if payload[1] == 1 else "response", 0, 0)
    content = read_packet(payload)
    if isinstance(content, ConnectionCheck):
        return ("UNUSED", 0, 0)
    assert isinstance(content, (DataFrame, ControlFrame))
    api = int.from_bytes(content.payload[:4], "little") if isinstance(content, DataFrame) else 0
    return (PacketType(content.packet_type).name, content.packet_id, api)


def _described(frame: Frame) -> tuple[str, int, int]:
    said = frame.said
    return (frame.kind, int(said.get("kd_packet_id", "0"), 16), int(said.get("api_number", "0"), 16))


def test_our_target_writes_what_the_real_target_wrote_byte_for_byte(frames: list[Frame], data_key: bytes) -> None:
    """All 692 datagrams: pokes, acknowledges, replies, RESEND, RESET, repetitions, each with its sequence number."""
    client_key = bytes.fromhex(frames[0].said["client_key"])
    channel = TargetChannel(_KEY, Aes(), lambda size: client_key[:size], own=Endpoint(*_TARGET), host=_HOST, version=4)
    link = KdnetLink(channel)
    wanted = PacketType.STATE_MANIPULATE
    written: list[bytes] = []
    asked: list[PacketReceived] = []
    for frame in frames:
        now = frame.said["time"]
        if frame.from_host:
            link.receive_datagram(frame.datagram, frame.source, now)
        elif frame.kind == "poke":
            link.handle_timeout(now)
        elif frame.is_first_try:
            packet_type = PacketType[frame.kind]
            link.send_packet(packet_type, _body(frame, data_key), now, tries=0)
            # It waits for the answer of what it asks, and else for requests.
            wanted = PacketType.FILE_IO if packet_type is PacketType.FILE_IO else PacketType.STATE_MANIPULATE
            link.want(wanted)
        asked += [event for event in events_of(link) if isinstance(event, PacketReceived)]
        for datagram, destination in link.datagrams_to_send():
            assert destination == _HOST
            written.append(datagram)
    recorded = [frame for frame in frames if not frame.from_host]
    assert [_named(datagram, data_key) for datagram in written] == [_described(frame) for frame in recorded]
    assert written == [frame.datagram for frame in recorded]
    assert len(written) == 692
    # What it understood: 94 requests and 33 answers to file requests, none twice.
    assert len(asked) == 127 and len({event.packet_id for event in asked}) == 127


def test_our_host_says_what_windbg_said(frames: list[Frame], data_key: bytes) -> None:
    """Types, ids and payloads of all 263; only where WinDbg drops a packet that ours takes is there one more."""
    host_key = bytes.fromhex(frames[1].said["host_key"])
    link = KdnetLink(HostChannel(_KEY, Aes(), lambda size: host_key[:size]))
    written: list[bytes] = []
    events: list[object] = []
    for frame in frames:
        now = frame.said["time"]
        if not frame.from_host:
            if frame.said["frame"] != _LOST_REPLY:
                link.receive_datagram(frame.datagram, frame.source, now)
        elif frame.is_first_try:
            if not link.idle:
                # The reply that got lost, or whose acknowledge did, was asked for anew.
                link.imply_acknowledge()
            link.send_packet(PacketType[frame.kind], _body(frame, data_key), now)
        elif frame.said["frame"] == _WINDBG_RESETS:
            link.send_reset(now)
        due = link.next_timeout()
        assert due is None or due > now
        events += events_of(link)
        for datagram, destination in link.datagrams_to_send():
            assert destination == _TARGET
            written.append(datagram)
    expected = [(_described(frame), _contents(frame.datagram, data_key)) for frame in frames if frame.from_host]
    said = [(_named(datagram, data_key), _contents(datagram, data_key)) for datagram in written]
    assert written[0] == frames[1].datagram, "the response, byte for byte"

    # WinDbg does not acknowledge what came before its greeting took effect, nor id 62 before its RESET was answered.
    early, skipped = ("ACKNOWLEDGE", 0, 0), ("ACKNOWLEDGE", 0x62, 0)
    assert [name for name, _ in said[1:4]] == [("RESEND", 0, 0), early, early]
    del said[2]
    at = [name for name, _ in said].index(skipped)
    assert said[at + 1][0] == ("RESET", 0x80000060, 0) and expected[at][0] == ("RESET", 0x80000060, 0)
    del said[at]
    assert said == expected
    assert len(expected) == 263

    # Every packet of the target's came through once; id 60 was lost, and RESET had id 62 repeated.
    taken = [event.packet_id for event in events if isinstance(event, PacketReceived)]
    assert taken == [n for n in range(0, 0x10A, 2) if n != 0x60 for _ in range(2 if n == 0x62 else 1)]
    assert events.count(LinkRestarted(solicited=True)) == 1
    assert events.count(LinkRestarted(solicited=False)) == 0
    assert sum(isinstance(event, PacketAcknowledged) for event in events) == 127
    facts = link.facts
    assert (facts.pokes, facts.keep_alives, facts.responses, facts.sessions) == (427, 426, 1, 1)
    assert (facts.gaps, facts.restarts, facts.moves) == (1, 0, 0)
    assert {reason.name: count for reason, count in facts.discarded.items()} == {"DUPLICATE": 1}
