"""The recorded session: our codecs of both ends against a real WinDbg and a real kernel, byte for byte."""

from __future__ import annotations

import struct
from collections import Counter, deque
from pathlib import Path

import pytest

from protocol.arch import AMD64
from protocol.connection import KdConnection
from protocol.conversation import KdEvent, Replied, StateChanged, Told
from protocol.framing import ControlFrame, DataFrame, Frame, FrameReader, Rubbish
from protocol.kdcom import KdcomLink
from protocol.layouts.kdbg import KDBG_TAG, KDDEBUGGER_DATA64, parse_kdbg
from protocol.layouts.version import GetVersion64, SystemType, VersionFlag
from protocol.link import BreakInSeen, Discard, Discarded, PacketAcknowledged, PacketReceived, ResendAsked, Role
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.ntstatus import STATUS_BREAKPOINT
from protocol.packet import PacketType
from protocol.state_change import Amd64ControlReport, ExceptionChange, StateChange
from tests.recording import Chunk, Packet, read_chunks, split

_ACKNOWLEDGE, _RESET = 4, 6


@pytest.fixture(scope="session")
def chunks(shared: Path) -> list[Chunk]:
    return read_chunks(shared)


@pytest.fixture
def from_host(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.from_host)


@pytest.fixture
def from_target(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks if not chunk.from_host)


def _frames(reader: FrameReader, pieces: list[bytes]) -> list[Frame]:
    frames: list[Frame] = []
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.next()) is not None:
            frames.append(frame)
    return frames


def _kinds(packets: list[Packet]) -> Counter[int]:
    return Counter(packet.packet_type for packet in packets)


def test_the_recording_is_what_its_description_says(from_host: bytes, from_target: bytes) -> None:
    host, host_noise = split(from_host)
    target, target_noise = split(from_target)
    assert _kinds(host) == {2: 156, _ACKNOWLEDGE: 155, _RESET: 1}
    assert _kinds(target) == {2: 154, 7: 2, _ACKNOWLEDGE: 156, _RESET: 1}
    assert [data for _, data in host_noise] == [b"b"]
    assert target_noise == []
    # The checksum is the plain sum of the payload's bytes (kd-protocol 1.5).
    assert all(packet.checksum == sum(packet.payload) for packet in host + target)


@pytest.mark.parametrize("pieces", ["as recorded", "byte by byte", "all at once"])
@pytest.mark.parametrize("reader", list(Role))
def test_every_byte_becomes_the_packet_it_is(
    reader: Role, pieces: str, chunks: list[Chunk], from_host: bytes, from_target: bytes
) -> None:
    # The host's reader reads what the target sent, and the other way round.
    stream = from_target if reader is Role.HOST else from_host
    recorded = [chunk.data for chunk in chunks if chunk.from_host is (reader is Role.TARGET)]
    fed = {
        "as recorded": recorded,
        "byte by byte": [stream[at : at + 1] for at in range(len(stream))],
        "all at once": [stream],
    }[pieces]
    frame_reader = FrameReader(reader)
    frames = _frames(frame_reader, fed)
    packets, between = split(stream)

    assert frame_reader.pending == 0
    rubbish = [frame for frame in frames if isinstance(frame, Rubbish)]
    assert b"".join(frame.data for frame in rubbish) == b"".join(data for _, data in between)
    assert {frame.reason for frame in rubbish} <= {Discard.NOISE}
    expected: list[Frame] = [
        ControlFrame(packet.packet_type, packet.packet_id)
        if packet.control
        else DataFrame(packet.packet_type, packet.packet_id, packet.payload, None)
        for packet in packets
    ]
    assert [frame for frame in frames if not isinstance(frame, Rubbish)] == expected


def test_every_manipulate_message_comes_back_as_the_same_bytes(from_host: bytes, from_target: bytes) -> None:
    messages = [p.payload for p in split(from_host)[0] + split(from_target)[0] if p.packet_type == 2]
    assert len(messages) == 310
    for payload in messages:
        message = Manipulate.decode(payload)
        assert message.encode() == payload
        # The API stands in the first four bytes; fields decoded and laid over the rest change nothing.
        assert message.api == struct.unpack_from("<I", payload)[0]
        assert message.reply(message.status, data=message.data, **message.fields()).encode() == payload


def test_requests_are_the_ones_windbg_is_known_to_send(from_host: bytes, from_target: bytes) -> None:
    requests = Counter(Manipulate.decode(p.payload).api for p in split(from_host)[0] if p.packet_type == 2)
    replies = Counter(Manipulate.decode(p.payload).api for p in split(from_target)[0] if p.packet_type == 2)
    assert requests == {
        0x3130: 116, 0x3135: 32, 0x3137: 2, 0x3146: 1, 0x315F: 1, 0x3133: 1, 0x3138: 1, 0x313C: 1, 0x315A: 1,
    }  # fmt: skip
    # Two of them have no reply: Continue2 and ClearAllInternalBreakpoints (kd-protocol 3.2).
    assert requests - replies == {0x313C: 1, 0x315A: 1}
    assert set(requests - replies) == {api for api in requests if api in NO_REPLY}
    assert replies - requests == Counter()


def test_the_state_change_says_what_the_registers_say(from_target: bytes) -> None:
    packets, _ = split(from_target)
    changes = [packet for packet in packets if packet.packet_type == 7]
    assert [hex(packet.packet_id) for packet in changes] == ["0x80800800", "0x80800000"]
    assert changes[0].payload == changes[1].payload
    payload = changes[0].payload
    change = StateChange.decode(payload)
    assert isinstance(change.event, ExceptionChange)
    assert change.event.code == STATUS_BREAKPOINT == 0x80000003
    assert (change.processor, change.number_processors) == (0, 1)
    assert change.program_counter == 0xFFFFF80000587C92
    # PC is trusted, ExceptionAddress is not: here they differ by one (T31).
    assert change.event.address == change.program_counter + 1

    report = Amd64ControlReport.decode(change.control_report)
    assert report.instruction_stream[:1] == b"\xcc"
    assert (report.dr6, report.dr7, report.instruction_count) == (0xFFFF0FF0, 0x400, 16)
    assert (report.seg_cs, report.seg_ds, report.seg_es, report.seg_fs) == (0x10, 0x2B, 0x2B, 0x53)
    # The union's unused parts hold garbage of the target's stack; what we write there is zero, the rest is the same.
    ours = change.encode()
    assert ours[:0x0C] == payload[:0x0C] and ours[0x10:0x3C] == payload[0x10:0x3C]
    # It ends in four bytes of trace data that nobody reads (kd-protocol 2.2).
    assert ours[0xC0:] == payload[0xC0:0xF0] and len(payload) == 0xF4

    # The target's GetContextEx reply, another structure of another packet, tells the same registers.
    reply = next(m for m in _messages(packets) if m.api == ApiNumber.GET_CONTEXT_EX)
    assert reply.fields() == {"offset": 0, "byte_count": 0x4D0, "bytes_copied": 0x4D0}
    context = AMD64.context.decode(reply.data)
    assert context["rip"] == change.program_counter
    assert context["e_flags"] == report.e_flags == 0x86
    assert [context[name] for name in ("seg_cs", "seg_ds", "seg_es", "seg_fs")] == [0x10, 0x2B, 0x2B, 0x53]
    assert context["context_flags"] & 0x00100000


def _messages(packets: list[Packet]) -> list[Manipulate]:
    return [Manipulate.decode(packet.payload) for packet in packets if packet.packet_type == 2]


def test_who_the_target_is(from_target: bytes) -> None:
    messages = _messages(split(from_target)[0])
    version = GetVersion64.decode(next(m for m in messages if m.api == ApiNumber.GET_VERSION).union)
    assert (version.build, version.checked, version.system_type) == (3790, True, SystemType.NT)
    assert (version.protocol_version, version.kd_secondary_version, version.machine_type) == (6, 2, 0x8664)
    assert version.flags == VersionFlag.DATA | VersionFlag.PTR64
    assert version.kern_base == 0xFFFFF80000400000

    # WinDbg then reads the list head, the block's header, and the block; its Size says Server 2003 (kd-protocol 6.2).
    reads = {m.fields()["address"]: m.data for m in messages if m.api == ApiNumber.READ_VIRTUAL_MEMORY}
    block_at = int.from_bytes(reads[version.debugger_data_list][:8], "little")
    header = KDDEBUGGER_DATA64.decode(reads[block_at], least=0x18)
    assert header["owner_tag"] == KDBG_TAG
    block = parse_kdbg(reads[block_at] + reads[block_at + 0x18])
    assert (block["size"], len(block.raw)) == (0x318, 0x318)
    assert block["kern_base"] == version.kern_base
    assert block["ps_loaded_module_list"] == version.ps_loaded_module_list
    assert block["offset_prcb_context"] == 0 and not block.has("offset_prcb_context")
    assert block["mm_page_size"] == 0x1000


def test_a_target_s_link_answers_windbg_as_the_real_target_did(chunks: list[Chunk], from_target: bytes) -> None:
    """WinDbg's bytes at their times into our target's link: it writes the very bytes that the real target wrote."""
    packets, _ = split(from_target)
    change = next(p.payload for p in packets if p.packet_type == 7)
    replies = deque(p.payload for p in packets if p.packet_type == 2)
    link = KdcomLink(Role.TARGET)
    written: list[bytes] = []
    asked: list[Manipulate] = []
    seen: list[object] = []

    link.send_packet(PacketType.STATE_CHANGE64, change, chunks[0].at, tries=0)
    for chunk in chunks:
        if not chunk.from_host:
            continue
        due = link.next_timeout()
        assert due is None or due > chunk.at, "no timer runs out in this session"
        link.receive_data(chunk.data, chunk.at)
        while (event := link.next_event()) is not None:
            seen.append(event)
            if isinstance(event, PacketReceived):
                asked.append(Manipulate.decode(event.payload))
                if asked[-1].api not in NO_REPLY:
                    link.send_packet(PacketType.STATE_MANIPULATE, replies.popleft(), chunk.at, tries=0)
        written += link.data_to_send()
    assert b"".join(written) == from_target
    assert len(asked) == 156 and not replies
    # The byte "b" came right before a leader: the packet counts, and so does the break-in (kd-protocol 1.7 step 6).
    assert [type(event) for event in seen if not isinstance(event, (PacketReceived, PacketAcknowledged))] == [
        Discarded,
        BreakInSeen,
    ]
    assert Discarded(Discard.NOISE, 1, b"b") in seen
    assert not any(isinstance(event, ResendAsked) for event in seen)


def test_a_host_that_asks_what_windbg_asked_writes_what_windbg_wrote(
    chunks: list[Chunk], from_host: bytes, from_target: bytes
) -> None:
    """The real target's bytes into our host: its requests and acknowledges are WinDbg's own bytes, ids and all."""
    host_packets, _ = split(from_host)
    target_packets = deque(split(from_target)[0])
    host = KdConnection(KdcomLink(Role.HOST))
    written: list[bytes] = []
    events: list[KdEvent] = []
    now = 0.0

    def take() -> None:
        written.extend(host.data_to_send())
        while (event := host.next_event()) is not None:
            events.append(event)

    def hear(kind: int) -> None:
        packet = target_packets.popleft()
        assert packet.packet_type == kind
        host.receive_data(packet.raw, now)
        take()

    # As WinDbg did, do not acknowledge the first state change but reset: its repetition is the first that counts.
    target_packets.popleft()
    host.send_reset(now)
    take()
    hear(_RESET)
    hear(7)
    for packet in (p for p in host_packets if p.packet_type == 2):
        now += 0.01
        request = Manipulate.decode(packet.payload)
        host.ask(request, now)
        take()
        hear(_ACKNOWLEDGE)
        if request.api not in NO_REPLY:
            hear(2)
    assert b"".join(written) == b"".join(p.raw for p in host_packets)
    assert not target_packets
    assert sum(isinstance(event, Replied) for event in events) == 154
    assert sum(isinstance(event, Told) for event in events) == 2
    assert [event.repeated for event in events if isinstance(event, StateChanged)] == [False]
    assert [event for event in events if isinstance(event, Discarded)] == []
    replies = [event.reply.encode() for event in events if isinstance(event, Replied)]
    assert replies == [p.payload for p in split(from_target)[0] if p.packet_type == 2]


def test_why_it_stopped(from_target: bytes) -> None:
    """The recording's own description says bug check 69; the target stands at the last break of a bug check."""
    messages = _messages(split(from_target)[0])
    memory = {
        message.fields()["address"] + at: byte
        for message in messages
        if message.api == ApiNumber.READ_VIRTUAL_MEMORY
        for at, byte in enumerate(message.data)
    }

    def read(address: int, size: int) -> bytes:
        return bytes(memory[address + at] for at in range(size))

    block = parse_kdbg(read(0xFFFFF80000593CE0, 0x318))
    words = struct.unpack("<5Q", read(block["ki_bugcheck_data"], 40))
    assert words == (0x69, 0, 0, 0, 0)
    context = AMD64.context.decode(next(m for m in messages if m.api == ApiNumber.GET_CONTEXT_EX).data)
    # At BreakpointWithStatus rcx holds the status; 4 is a bug check's second break (kd-protocol 7.1).
    assert (context["rip"], context["rcx"]) == (block["breakpoint_with_status"], 4)
