"""The capture of a real WinDbg and a real target over KDNET, decoded: packet for packet what its description says.

The description was written by somebody else's program; see tests/protocol/kdnet_capture.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kdbridge.capture import Frame, Medium, read_frames
from kdbridge.capture.conversation import decode_frames
from kdbridge.capture.decoded import DecodedPacket, Kind, Odd
from kdbridge.capture.tally import Tally
from kdbridge.cipher import AesCbc
from protocol.file_io import FileIo
from protocol.kdnet import Datagram, Sealer, parse_key
from protocol.kdnet.control import Endpoint, Poke, Response, data_key
from protocol.manipulate import Manipulate
from protocol.state_change import ExceptionChange, LoadSymbols, StateChange

_KEY = "8.8.8.8"
_TYPES = {
    "ACKNOWLEDGE": Kind.ACKNOWLEDGE, "RESEND": Kind.RESEND, "RESET": Kind.RESET, "UNUSED": Kind.UNUSED,
    "DEBUG_IO": Kind.DEBUG_IO, "FILE_IO": Kind.FILE_IO, "STATE_CHANGE64": Kind.STATE_CHANGE64,
    "STATE_MANIPULATE": Kind.STATE_MANIPULATE, "poke": Kind.POKE, "response": Kind.RESPONSE,
}  # fmt: skip


@pytest.fixture(scope="session")
def summary(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "data/kdnet/kdnet-capture-summary.json").read_text())
    return found


@pytest.fixture(scope="session")
def frames(shared: Path) -> list[Frame]:
    return list(read_frames(shared / "data/kdnet/windbg-uncut.pcapng.gz"))


@pytest.fixture(scope="session")
def packets(frames: list[Frame]) -> list[DecodedPacket]:
    return list(decode_frames(frames, parse_key(_KEY)))


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(each) for each in value]
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def test_every_datagram_is_found_and_authenticates(frames: list[Frame], packets: list[DecodedPacket]) -> None:
    assert len(frames) == len(packets) == 955
    assert {(frame.medium, frame.to_target) for frame in frames} == {(Medium.NETWORK, None)}
    assert sum(packet.datagram is not None for packet in packets) == 955
    tally = Tally()
    for packet in packets:
        tally.count(packet)
    assert (tally.datagrams, tally.genuine, tally.sessions, tally.shut) == (955, 955, 1, Counter())


def test_every_packet_is_what_its_description_says(packets: list[DecodedPacket], summary: dict[str, Any]) -> None:
    start = summary["meta"]["capture_start_unix_us"] / 1e6
    for packet, said in zip(packets, summary["packets"], strict=True):
        assert packet.number == said["frame"]
        assert packet.time - start == pytest.approx(said["time"], abs=2e-6)
        assert packet.to_target is (said["direction"] == "host->target")
        ends = (packet.source, packet.destination)
        host, target = summary["meta"]["host"], summary["meta"]["target"]
        assert ends == ((host, target) if packet.to_target else (target, host))
        assert hashlib.sha256(packet.raw).hexdigest() == said["datagram_sha256"]
        datagram = packet.datagram
        assert datagram is not None
        assert (datagram.version, datagram.sequence) == (said["kdnet_version"], said["kdnet_seq"])
        assert hashlib.sha256(datagram.payload).hexdigest() == said["payload_sha256"]
        kind = said.get("kdnet_msg") or said["kd_packet_type"]
        assert packet.kind is _TYPES[kind], said["frame"]
        assert packet.id == (_number(said["kd_packet_id"]) if "kd_packet_id" in said else None)
        if said["channel"] == "data" and "kd_byte_count" in said:
            assert len(packet.payload) == said["kd_byte_count"]
        if "api" in said:
            assert packet.api == said["api"], said["frame"]
        if "role" in said:
            assert packet.is_reply is (said["role"] == "reply")


def test_every_field_is_what_its_description_says(packets: list[DecodedPacket], summary: dict[str, Any]) -> None:
    checked: Counter[str] = Counter()
    for packet, said in zip(packets, summary["packets"], strict=True):
        message = packet.message
        params = {name: _number(value) for name, value in said.get("params", {}).items()}
        match message:
            case Manipulate():
                assert message.status == params["return_status"] and message.processor == params["processor"]
                assert len(message.data) == said["data_len"]
                for name, value in message.fields().items():
                    if name in params:
                        assert value == params[name], (said["frame"], name)
                        checked[name] += 1
            case StateChange(event=LoadSymbols() as event):
                assert (event.base, event.size_of_image, event.unload, event.process_id) == (
                    params["base_of_dll"], params["size_of_image"], bool(params["unload"]), params["process_id"],
                )  # fmt: skip
            case StateChange(event=ExceptionChange() as event):
                assert (event.code, event.address) == (params["exception_code"], params["exception_address"])
            case FileIo():
                assert message.status == params["status"]
                assert packet.is_reply or message.path == params["path"]
            case Poke():
                ends = (said["endpoint_self"], said["endpoint_configured_host"], said["endpoint_bound_host"])
                assert tuple(map(_text, (message.own, message.configured, message.bound))) == ends
                assert message.client_key.hex() == said["client_key"]
            case Response():
                assert (message.client_key.hex(), message.host_key.hex()) == (said["client_key"], said["host_key"])
            case _:
                assert message is None or packet.kind in (Kind.DEBUG_IO, Kind.UNUSED)
    assert checked["address"] >= 88, checked


def _text(end: Endpoint) -> str:
    return f"{end.address}:{end.port}"


def test_the_counts_are_those_of_the_description(packets: list[DecodedPacket], summary: dict[str, Any]) -> None:
    counted = Counter(
        f"{p.api} | {'host->target' if p.to_target else 'target->host'}" for p in packets if p.api
    )  # fmt: skip
    assert counted == summary["counts"]["by_api"]


def test_what_is_odd_is_what_was_lost(packets: list[DecodedPacket], summary: dict[str, Any]) -> None:
    """kdnet 5.2 tells the one loss of this session frame by frame, kdnet 7 how many packets were sent again."""
    odd = {packet.number: [oddity.kind for oddity in packet.oddities] for packet in packets if packet.oddities}
    assert odd == {
        6: [Odd.RETRANSMISSION], 199: [Odd.RETRANSMISSION], 201: [Odd.UNACKNOWLEDGED], 204: [Odd.RETRANSMISSION]
    }  # fmt: skip
    again = [said["frame"] for said in summary["packets"] if said.get("retransmission")]
    assert again == [6, 199, 204]


def test_every_datagram_encodes_to_the_same_bytes(packets: list[DecodedPacket]) -> None:
    key = parse_key(_KEY)
    sealer = Sealer(key, AesCbc())
    session = b""
    for packet in packets:
        datagram = packet.datagram
        assert isinstance(datagram, Datagram)
        if isinstance(packet.message, Response):
            session = data_key(key.raw, datagram.payload)
        assert sealer.seal(datagram, session if datagram.channel == 0 else key.raw) == packet.raw


def test_a_line_says_what_a_packet_means(packets: list[DecodedPacket]) -> None:
    texts = {packet.number: packet.text for packet in packets}
    assert texts[1] == "poke: 192.168.2.72:51111 looks for 192.168.2.1:51111, bound to no debugger"
    assert texts[3] == "connection check: its debugger is 192.168.2.1"
    assert texts[4] == 'prints "BD: Boot Debugger Initialized"'
    assert texts[8] == 'loaded "winload.efi" at 00000000`0096f000, 17d000h bytes'
    assert texts[12] == "GetVersion → AMD64 build 10586, protocol 6, kernel 00000000`0096f000, KDBG list none"
    assert texts[18] == "ReadVirtual fffff801`7bc49e30 88h"
    assert texts[20] == "ReadVirtual fffff801`7bc49e30 88h → 88h bytes"
    assert texts[60] == "RestoreBreakPoint handle 1 → STATUS_UNSUCCESSFUL (c0000001)"
    assert texts[238] == r'CreateFile "\Windows\system32\en-GB\winload.efi.MUI" → STATUS_NO_SUCH_FILE (c000000f)'
    assert texts[950].startswith("Continue2 DBG_")


def test_with_another_key_nothing_opens_and_each_packet_says_so(frames: list[Frame]) -> None:
    tally = Tally()
    for packet in decode_frames(frames, parse_key("8.8.8.9")):
        assert (packet.kind, packet.message, packet.to_target) == (Kind.OPAQUE, None, None)
        assert [odd.kind for odd in packet.oddities] == [Odd.AUTHENTICATION]
        tally.count(packet)
    assert (tally.genuine, tally.key_is_wrong) == (0, True)


def test_without_the_response_pokes_open_and_data_does_not(frames: list[Frame]) -> None:
    packets = list(decode_frames([*frames[:1], *frames[2:]], parse_key(_KEY)))
    assert Counter(packet.kind for packet in packets) == {Kind.POKE: 427, Kind.OPAQUE: 527}
    shut = {odd.text for packet in packets for odd in packet.oddities}
    assert shut == {"it cannot be decrypted: the response that made its data key is not in the capture"}


def test_lost_datagrams_are_counted_by_their_sequence(frames: list[Frame]) -> None:
    packets = list(decode_frames([*frames[:9], *frames[12:]], parse_key(_KEY)))
    odd = [(packet.number, oddity.kind, oddity.text) for packet in packets[:12] for oddity in packet.oddities]
    # Frames 10 to 12 are gone: the request, its acknowledge, and the reply; 13 acknowledges what nobody heard.
    assert odd == [
        (6, Odd.RETRANSMISSION, "the same packet again"),
        (10, Odd.GAP, "1 datagram before it missing, sequence 4"),
        (10, Odd.DISCARD, "it acknowledges 00000004, and 00000002 is due"),
        (12, Odd.GAP, "2 datagrams before it missing, sequence 5 to 6"),
    ]


def test_a_datagram_that_comes_twice_is_a_repetition_and_changes_nothing(frames: list[Frame]) -> None:
    packets = list(decode_frames([*frames[:20], frames[19], frames[17], *frames[20:]], parse_key(_KEY)))
    assert [oddity.text for oddity in packets[20].oddities + packets[21].oddities] == [
        "sequence 10 was there before: repeated by the network, or played back",
        "sequence 8 was there before: repeated by the network, or played back",
    ]
    rest = [packet.number for packet in packets[22:] if packet.oddities]
    assert rest == [201, 203, 206]


@pytest.mark.parametrize("flipped", [0, 4, 5, 6, 37, -1])
def test_one_changed_bit_is_no_packet(frames: list[Frame], flipped: int) -> None:
    raw = bytearray(frames[9].data)
    raw[flipped] ^= 0x80
    frame = Frame(frames[9].time, None, bytes(raw), Medium.NETWORK, frames[9].source, frames[9].destination)
    packet = list(decode_frames([*frames[:9], frame], parse_key(_KEY)))[9]
    assert (packet.kind, packet.message) == (Kind.OPAQUE, None) and packet.oddities


def test_the_synthetic_vectors_open(summary: dict[str, Any]) -> None:
    vectors = summary["synthetic_vectors"]
    host, target = "192.0.2.1:50000", "192.0.2.10:50000"
    # A datagram can be opened once the response was heard: that one first.
    ordered = sorted(vectors["datagrams"], key=lambda one: len(one["payload_hex"]) != 2 * 322)
    frames = []
    for one in ordered:
        source, destination = (host, target) if one["dir_flag"] else (target, host)
        frames.append(Frame(0.0, None, bytes.fromhex(one["datagram_hex"]), Medium.NETWORK, source, destination))
    packets = list(decode_frames(frames, parse_key(vectors["key_text"])))
    assert len(packets) == len(vectors["datagrams"]) >= 6
    for packet, said in zip(packets, ordered, strict=True):
        assert packet.datagram is not None, said["name"]
        assert packet.datagram.payload.hex() == said["payload_hex"]
        assert (packet.datagram.version, packet.datagram.sequence) == (said["version"], said["seq"])
    kinds = Counter(packet.kind for packet in packets)
    assert kinds[Kind.BREAK_IN] == kinds[Kind.UNUSED] == kinds[Kind.SOLICITATION] == kinds[Kind.RESPONSE] == 1
