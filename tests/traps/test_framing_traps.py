"""Traps of framing (kd-protocol 8.1): what looks like a packet and is none, and the other way round."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.framing import ControlFrame, DataFrame, Frame, FrameReader, Rubbish
from protocol.kdcom import KdcomLink
from protocol.link import Discard, Discarded, LinkEvent, PacketReceived, ResendAsked, Role
from protocol.packet import PacketType, encode_control, encode_data

_STATE_CHANGE = 7
_ID = 0x80800000


def _frames(role: Role, stream: bytes, *, step: int = 1 << 20) -> list[Frame]:
    reader = FrameReader(role)
    frames: list[Frame] = []
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (frame := reader.next()) is not None:
            frames.append(frame)
    return frames


def _events(link: KdcomLink) -> list[LinkEvent]:
    events: list[LinkEvent] = []
    while (event := link.next_event()) is not None:
        events.append(event)
    return events


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("role", list(Role))
def test_t10_control_packets_have_no_trailer(role: Role, step: int) -> None:
    data = encode_data(PacketType.STATE_MANIPULATE, _ID, bytes(range(56)))
    stream = (
        encode_control(PacketType.ACKNOWLEDGE, _ID) + data + encode_control(PacketType.RESET)
        + encode_control(PacketType.RESEND) + data
    )  # fmt: skip
    whole = DataFrame(PacketType.STATE_MANIPULATE, _ID, bytes(range(56)), None)
    assert _frames(role, stream, step=step) == [
        ControlFrame(4, _ID), whole, ControlFrame(6, 0), ControlFrame(5, 0), whole,
    ]  # fmt: skip


def test_t10_a_link_writes_control_packets_of_sixteen_bytes() -> None:
    link = KdcomLink(Role.HOST)
    link.send_reset(0.0)
    link.receive_data(encode_data(_STATE_CHANGE, 0x80800800, b"x" * 240), 0.0)
    written = link.data_to_send()
    assert [len(part) for part in written] == [16, 16]
    assert [part[:6] for part in written] == [b"iiii\x06\0", b"iiii\x04\0"]


def test_t12_leaders_inside_a_torn_payload_do_not_hide_the_next_packet() -> None:
    good = encode_data(PacketType.DEBUG_IO, _ID | 1, b"whole")
    # We came to the line in the middle of a packet. Its text holds leaders, one of them with a header behind it that
    # is legal to the last bit and claims 4,000 bytes: the next packet lies inside what it claims.
    bogus = struct.pack("<IHHII", 0x30303030, 2, 4000, _ID, 0)
    torn = b"...0000iiii 0000\x63\0" + b"iiii\x04\0\x07\0" + bogus + b"0000 text" + b"\xaa"
    link = KdcomLink(Role.HOST)
    link.receive_data(torn + good, 10.0)
    assert not any(isinstance(event, PacketReceived) for event in _events(link))
    due = link.next_timeout()
    assert due is not None and due == pytest.approx(11.0)
    link.handle_timeout(due)
    received = [event for event in _events(link) if isinstance(event, PacketReceived)]
    assert received == [PacketReceived(PacketType.DEBUG_IO, _ID | 1, b"whole")]

    # With more bytes behind it no silence is needed: the trailer is missing where the bogus packet should end.
    link = KdcomLink(Role.HOST)
    link.receive_data(torn + good * 400, 10.0)
    received = [event for event in _events(link) if isinstance(event, PacketReceived)]
    assert received[0] == PacketReceived(PacketType.DEBUG_IO, _ID | 1, b"whole")


@given(st.data())
def test_t12_whatever_was_torn_off_the_next_packet_is_found(data: st.DataObject) -> None:
    leaderish = st.lists(st.sampled_from([b"0", b"i", b"0000", b"iiii", b"\x02\0", b"\0", b"b", b"\xaa", b"\x80"]))
    payload = b"".join(data.draw(leaderish))[:200]
    torn = encode_data(PacketType.DEBUG_IO, _ID, payload)
    torn = torn[data.draw(st.integers(5, len(torn))) :]
    good = encode_data(PacketType.DEBUG_IO, _ID | 1, b"whole")
    link = KdcomLink(Role.HOST)
    link.receive_data(torn + good, 0.0)
    found = _events(link)
    link.handle_timeout(1.0)
    found += _events(link)
    assert [event.payload for event in found if isinstance(event, PacketReceived)] == [b"whole"]
    # Nothing is lost without a word: every byte is the packet's or was named.
    thrown = sum(event.count for event in found if isinstance(event, Discarded))
    assert thrown == len(torn)


def test_t13_a_stray_leader_byte_before_a_leader() -> None:
    good = encode_data(PacketType.DEBUG_IO, _ID, b"hello")
    for stray in (b"0", b"00", b"000"):
        frames = _frames(Role.HOST, stray + good)
        assert frames[-1] == DataFrame(PacketType.DEBUG_IO, _ID, b"hello", None)
        assert b"".join(frame.data for frame in frames if isinstance(frame, Rubbish)) == stray
    reset = encode_control(PacketType.RESET)
    assert _frames(Role.HOST, b"i" + reset)[-1] == ControlFrame(6, 0)
    # A target takes the first four and misreads what follows: the packet is lost to it, and it recovers.
    target = KdcomLink(Role.TARGET)
    request = encode_data(PacketType.STATE_MANIPULATE, _ID, bytes(56))
    target.receive_data(b"0" + request, 0.0)
    target.handle_timeout(5.0)
    assert not any(isinstance(event, PacketReceived) for event in _events(target))
    target.receive_data(request, 6.0)
    assert [type(event) for event in _events(target)] == [PacketReceived]


def test_t11_a_truncated_control_packet_is_not_answered_before_it_is_whole() -> None:
    link = KdcomLink(Role.TARGET)
    resend = encode_control(PacketType.RESEND)
    link.receive_data(resend[:6], 0.0)
    assert link.data_to_send() == []
    # Its remaining ten bytes are noise, or its end: either way the packet that follows is heard.
    link.receive_data(resend[6:] + encode_data(PacketType.STATE_MANIPULATE, _ID, bytes(56)), 0.1)
    kinds = [type(event) for event in _events(link)]
    assert kinds.count(ResendAsked) == 1 and kinds.count(PacketReceived) == 1


def test_t16_time_counts_from_the_last_byte() -> None:
    # The largest packet at 9600 baud takes 4.2 s, four times the host's patience with a silent line.
    wire = encode_data(PacketType.STATE_MANIPULATE, _ID, bytes(4000))
    link = KdcomLink(Role.HOST)
    link.send_packet(PacketType.STATE_MANIPULATE, bytes(56), 0.0)
    sent = link.data_to_send()
    now = 0.0
    for at in range(0, len(wire), 64):
        now += 64 * 10 / 9600
        due = link.next_timeout()
        assert due is not None and due > now
        link.receive_data(wire[at : at + 64], now)
    assert now > 4.0
    assert [event for event in _events(link) if isinstance(event, PacketReceived)] != []
    assert [part for part in link.data_to_send() if part == sent[0]] == [], "it was sent again while bytes came"


def test_t16_a_line_of_pure_noise_does_not_stop_the_timer() -> None:
    link = KdcomLink(Role.HOST)
    link.send_packet(PacketType.STATE_MANIPULATE, bytes(56), 0.0)
    first = link.data_to_send()
    now = 0.0
    while not (again := [part for part in link.data_to_send() if part == first[0]]):
        now += 0.3
        link.receive_data(random.Random(int(now * 10)).randbytes(8).replace(b"i", b"x"), now)
        link.handle_timeout(now)
        assert now < 30
    assert again


def test_t17_foreign_text_is_noise_that_can_be_shown() -> None:
    text = b"\x1b[2JUEFI Interactive Shell v2.2\r\nboot0: loading iiiii\r\nSAC>"
    link = KdcomLink(Role.HOST)
    link.receive_data(text + encode_data(_STATE_CHANGE, 0x80800800, b"s" * 240), 0.0)
    events = _events(link)
    noise = [event for event in events if isinstance(event, Discarded)]
    assert b"".join(event.sample for event in noise) == text
    assert sum(event.count for event in noise) == len(text)
    assert {event.reason for event in noise} <= {Discard.NOISE, Discard.BAD_TYPE}
    assert [event.payload for event in events if isinstance(event, PacketReceived)] == [b"s" * 240]
    # Text alone is never answered with RESEND: whoever wrote it is no debugger.
    link = KdcomLink(Role.HOST)
    link.receive_data(text, 0.0)
    link.handle_timeout(10.0)
    assert link.data_to_send() == []
