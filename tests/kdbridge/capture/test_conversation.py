"""A serial line overheard: the recorded session of a real WinDbg, as it was and with faults put in."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from kdbridge.capture import CaptureWriter, Frame, Medium, read_frames
from kdbridge.capture.conversation import Conversation, decode_frames
from kdbridge.capture.decoded import DecodedPacket, Kind, Odd
from protocol.link import Discard
from protocol.manipulate import Manipulate
from protocol.packet import PacketType, encode_control, encode_data
from protocol.state_change import StateChange
from tests.recording import Chunk, Packet, read_chunks, split


def _frame(time: float, to_target: bool, data: bytes) -> Frame:
    ends = ("host", "target") if to_target else ("target", "host")
    return Frame(time, to_target, data, Medium.SERIAL, *ends)


@pytest.fixture(scope="module")
def chunks(shared: Path) -> list[Chunk]:
    return read_chunks(shared)


@pytest.fixture
def packets(chunks: list[Chunk], tmp_path: Path) -> list[DecodedPacket]:
    """Through a file, as a recording is."""
    writer = CaptureWriter(tmp_path / "line.pcapng", name="line")
    for chunk in chunks:
        writer.serial(1e9 + chunk.at, chunk.from_host, chunk.data)
    writer.close()
    return list(decode_frames(read_frames(tmp_path / "line.pcapng")))


def _sent(chunks: list[Chunk], from_host: bool) -> list[Packet]:
    return split(b"".join(chunk.data for chunk in chunks if chunk.from_host is from_host))[0]


def test_every_packet_of_the_recording_is_there_byte_for_byte(
    packets: list[DecodedPacket], chunks: list[Chunk]
) -> None:
    for to_target in (True, False):
        expected = [(p.packet_type, p.packet_id, p.payload, p.raw) for p in _sent(chunks, to_target)]
        found = [
            (PacketType[packet.kind.name].value, packet.id, packet.payload, packet.raw)
            for packet in packets
            if packet.to_target is to_target and packet.kind is not Kind.BREAK_IN
        ]
        assert found == expected
    assert [packet.raw for packet in packets if packet.kind is Kind.BREAK_IN] == [b"b"]
    assert len(packets) == 312 + 313 + 1


def test_every_message_is_decoded(packets: list[DecodedPacket]) -> None:
    with_data = [p for p in packets if p.kind in (Kind.STATE_MANIPULATE, Kind.STATE_CHANGE64)]
    assert all(isinstance(packet.message, (Manipulate, StateChange)) for packet in with_data)
    # The same counts as in tests/protocol/test_recording.py: two of 156 requests have no reply.
    requests = Counter(p.api for p in packets if p.kind is Kind.STATE_MANIPULATE and not p.is_reply)
    replies = Counter(p.api for p in packets if p.kind is Kind.STATE_MANIPULATE and p.is_reply)
    assert (requests.total(), replies.total(), requests["ReadVirtualMemory"]) == (156, 154, 116)
    assert requests - replies == {"Continue2": 1, "ClearAllInternalBreakpoints": 1}


def test_what_is_odd_is_the_state_change_sent_again_after_the_reset(packets: list[DecodedPacket]) -> None:
    odd = [(packet.kind, [oddity.kind for oddity in packet.oddities]) for packet in packets if packet.oddities]
    assert odd == [(Kind.STATE_CHANGE64, [Odd.RETRANSMISSION])]


def test_lines_say_what_happened(packets: list[DecodedPacket]) -> None:
    texts = [packet.text for packet in packets]
    assert "stopped: STATUS_BREAKPOINT (80000003) at fffff800`00587c92, processor 0 of 1" in texts
    assert any(text.startswith("GetVersion → AMD64 build 3790, protocol 6, kernel fffff800`00400000") for text in texts)
    assert any(
        text.startswith("GetContextEx 0h 4d0h, processor 0 → 4d0h bytes, rip fffff800`00587c92") for text in texts
    )


@pytest.mark.parametrize("seed", range(3))
def test_how_the_bytes_were_cut_makes_no_difference(
    packets: list[DecodedPacket], chunks: list[Chunk], seed: int
) -> None:
    chance = random.Random(seed)
    frames = []
    for chunk in chunks:
        data = chunk.data
        while data:
            size = chance.randint(1, 40)
            frames.append(_frame(chunk.at, chunk.from_host, data[:size]))
            data = data[size:]
    found = [(p.kind, p.id, p.text, p.oddities) for p in decode_frames(frames)]
    assert found == [(p.kind, p.id, p.text, p.oddities) for p in packets], f"seed {seed}"


_REQUEST = Manipulate.request(0x3130, address=0xFFFFF80000001000, transfer_count=0x60)  # type: ignore[arg-type]
_ID = 0x80800000


def _told(*frames: Frame) -> list[tuple[Kind, Odd | None, Discard | None]]:
    return [
        (packet.kind, packet.oddities[0].kind if packet.oddities else None,
         packet.oddities[0].reason if packet.oddities else None)
        for packet in decode_frames(frames)
    ]  # fmt: skip


def _ask(packet_id: int = _ID, time: float = 0.0, payload: bytes = _REQUEST.encode()) -> Frame:
    return _frame(time, True, encode_data(2, packet_id, payload))


def _ack(packet_id: int = _ID, *, to_target: bool = False) -> Frame:
    return _frame(0.0, to_target, encode_control(4, packet_id))


def test_a_request_and_its_reply_are_read_together() -> None:
    reply = _REQUEST.reply(0, data=bytes(0x60), actual_bytes=0x60)
    frames = [_ask(), _ack(), _frame(0.0, False, encode_data(2, _ID, reply.encode())), _ack(to_target=True)]
    packets = list(decode_frames(frames))
    assert [packet.text for packet in packets] == [
        "ReadVirtual fffff800`00001000 60h", "acknowledges",
        "ReadVirtual fffff800`00001000 60h → 60h bytes", "acknowledges",
    ]  # fmt: skip
    assert not any(packet.oddities for packet in packets)


def test_sent_again_before_and_after_its_acknowledge() -> None:
    ask, ack = (Kind.STATE_MANIPULATE, None, None), (Kind.ACKNOWLEDGE, None, None)
    assert _told(_ask(), _ask(), _ack()) == [ask, (Kind.STATE_MANIPULATE, Odd.RETRANSMISSION, None), ack]
    assert _told(_ask(), _ack(), _ask(), _ack()) == [
        ask, ack, (Kind.STATE_MANIPULATE, Odd.DUPLICATE, Discard.DUPLICATE), ack,
    ]  # fmt: skip


def test_acknowledges_that_fit_nothing() -> None:
    stray = (Kind.ACKNOWLEDGE, Odd.DISCARD, Discard.STRAY_ACKNOWLEDGE)
    assert _told(_ask(), _ack(_ID ^ 1))[1] == stray
    assert _told(_ask(), _ack(), _ack())[2] == stray
    assert _told(_ack())[0] == (Kind.ACKNOWLEDGE, None, None), "whoever comes late cannot know"


def test_gaps_and_questions_without_answers() -> None:
    other = _REQUEST._replace(processor=1).encode()
    assert _told(_ask(), _ack(), _ask(payload=other))[2][:2] == (Kind.STATE_MANIPULATE, Odd.GAP)
    assert _told(_ask(), _ask(_ID ^ 1))[1][1] is Odd.UNACKNOWLEDGED
    assert _told(_ask(), _ack(), _ask(_ID ^ 1))[2][1] is Odd.UNANSWERED
    reply = _frame(0.0, False, encode_data(2, _ID, _REQUEST.reply(0).encode()))
    assert _told(reply) == [(Kind.STATE_MANIPULATE, Odd.DISCARD, Discard.STALE_REPLY)]


def test_damage_is_named() -> None:
    whole = encode_data(2, _ID, _REQUEST.encode())
    sick = bytearray(whole)
    sick[30] ^= 1
    assert _told(_frame(0.0, True, bytes(sick))) == [(Kind.STATE_MANIPULATE, Odd.DISCARD, Discard.BAD_CHECKSUM)]
    assert _told(_frame(0.0, True, b"noise" + whole)) == [
        (Kind.NOISE, Odd.DISCARD, Discard.NOISE), (Kind.STATE_MANIPULATE, None, None),
    ]  # fmt: skip
    short = encode_data(2, _ID, b"abc")
    assert _told(_frame(0.0, True, short)) == [(Kind.STATE_MANIPULATE, Odd.DISCARD, Discard.MALFORMED_MESSAGE)]


def test_a_packet_that_never_ends_is_given_up_after_a_second_or_at_the_end() -> None:
    whole = encode_data(2, _ID, _REQUEST.encode())
    truncated = (Kind.NOISE, Odd.DISCARD, Discard.TRUNCATED)
    assert _told(_frame(0.0, True, whole[:40])) == [truncated]
    assert _told(_frame(0.0, True, whole[:40]), _frame(1.5, True, whole)) == [
        truncated, (Kind.STATE_MANIPULATE, None, None),
    ]  # fmt: skip
    # Within the second it may be one packet whose bytes came slowly.
    assert _told(_frame(0.0, True, whole[:40]), _frame(0.9, True, whole[40:])) == [(Kind.STATE_MANIPULATE, None, None)]


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_become_packets_and_none_is_lost(seed: int, chunks: list[Chunk]) -> None:
    chance = random.Random(seed)
    stream = bytearray(b"".join(chunk.data for chunk in chunks if not chunk.from_host)[:30_000])
    for _ in range(200):
        stream[chance.randrange(len(stream))] = chance.randrange(256)
    conversation = Conversation()
    packets: list[DecodedPacket] = []
    for at in range(0, len(stream), 100):
        packets += conversation.feed(_frame(0.0, False, bytes(stream[at : at + 100])))
    packets += conversation.finish()
    sizes = sum(
        17 + len(packet.payload)
        if packet.oddities and packet.oddities[0].reason is Discard.BAD_CHECKSUM
        else len(packet.raw)
        for packet in packets
    )
    assert sizes == len(stream), f"seed {seed}"
    assert [packet.number for packet in packets] == list(range(1, len(packets) + 1))
