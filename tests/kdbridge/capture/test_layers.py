"""The scapy layers: they show what the capture's description says, and build to the same bytes."""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.config import conf
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw, split_layers
from scapy.utils import rdpcap

from kdbridge.capture import CaptureWriter, read_frames
from kdbridge.capture.layers import KDCOM, KDNET, KDPacket, RtacSerial, enable
from protocol.errors import LocalProtocolError
from protocol.kdnet import KeyTextError
from tests.recording import Chunk, read_chunks, split

_PORT = 51111


@pytest.fixture
def enabled() -> Iterator[None]:
    enable("8.8.8.8", [_PORT])
    yield
    split_layers(UDP, KDNET, sport=_PORT)
    split_layers(UDP, KDNET, dport=_PORT)
    conf.contribs.clear()


@pytest.fixture
def packets(enabled: None, shared: Path) -> list[Packet]:
    return list(rdpcap(str(shared / "data/kdnet/windbg-uncut.pcapng.gz")))


def test_every_datagram_opens_and_builds_to_the_same_bytes(packets: list[Packet], shared: Path) -> None:
    frames = list(read_frames(shared / "data/kdnet/windbg-uncut.pcapng.gz"))
    assert len(packets) == len(frames) == 955
    for packet, frame in zip(packets, frames, strict=True):
        assert packet[KDNET].authentic is True
        assert bytes(packet[KDNET]) == frame.data


def test_fields_are_those_of_the_description(packets: list[Packet], shared: Path) -> None:
    said = json.loads((shared / "data/kdnet/kdnet-capture-summary.json").read_text())["packets"]
    for packet, about in zip(packets, said, strict=True):
        datagram = packet[KDNET]
        assert (datagram.version, datagram.sequence) == (about["kdnet_version"], about["kdnet_seq"])
        assert datagram.from_host is (about["direction"] == "host->target")
        assert datagram.channel == (1 if about["channel"] == "control" else 0)
        if "kd_packet_id" in about:
            assert packet[KDPacket].packet_id == int(about["kd_packet_id"], 16)
    read = packets[17][KDPacket].payload
    assert (read.name, read.address, read.transfer_count) == ("Manipulate ReadVirtualMemory", 0xFFFFF8017BC49E30, 0x88)
    assert packets[0][KDNET].payload.own.port == 51111
    assert packets[3][KDPacket].payload.text == b"BD: Boot Debugger Initialized\n"


def test_a_changed_field_goes_through_the_codec(packets: list[Packet]) -> None:
    packet = packets[17][KDNET]
    packet.payload.payload.transfer_count = 0x40
    # The newest session's key seals it; dissected again it says the new count.
    again = KDNET(bytes(packet))
    assert again.authentic is True and again.payload.payload.transfer_count == 0x40
    assert again.payload.payload.address == 0xFFFFF8017BC49E30


def test_without_the_key_or_the_response_bytes_stay_bytes(enabled: None, shared: Path) -> None:
    frames = list(read_frames(shared / "data/kdnet/windbg-uncut.pcapng.gz"))
    for key in ("8.8.8.9", "8.8.8.8", None):
        enable(key, [_PORT])
        shut = KDNET(frames[9].data)
        assert (shut.authentic, shut.sequence, type(shut.payload)) == (False, None, Raw)
        assert bytes(shut) == frames[9].data
    with pytest.raises(LocalProtocolError, match="there is no key to seal a KDNET datagram with"):
        bytes(KDNET())
    with pytest.raises(KeyTextError):
        enable("8.8.8", [_PORT])


def test_a_recorded_line_is_dissected_and_built_again(enabled: None, shared: Path, tmp_path: Path) -> None:
    chunks = read_chunks(shared)
    writer = CaptureWriter(tmp_path / "line.pcapng", name="line")
    for chunk in chunks:
        writer.serial(1e9 + chunk.at, chunk.from_host, chunk.data)
    writer.close()
    lines = list(rdpcap(str(tmp_path / "line.pcapng")))
    assert len(lines) == len(chunks)
    found = 0
    for line, chunk in zip(lines, chunks, strict=True):
        assert isinstance(line, RtacSerial) and line.to_target is chunk.from_host
        assert bytes(line)[12:] == chunk.data
        found += sum(isinstance(packet, KDCOM) for packet in line.packets)
    assert found == _whole_in_a_chunk(chunks, from_host=True) + _whole_in_a_chunk(chunks, from_host=False) > 400


def _whole_in_a_chunk(chunks: list[Chunk], *, from_host: bool) -> int:
    data = [chunk.data for chunk in chunks if chunk.from_host is from_host]
    ends = list(itertools.accumulate(map(len, data)))
    packets, _ = split(b"".join(data))
    first_and_last = [(packet.offset, packet.offset + len(packet.raw) - 1) for packet in packets]
    return sum(bisect.bisect(ends, first) == bisect.bisect(ends, last) for first, last in first_and_last)


@pytest.mark.parametrize("data", [b"", b"M", b"MDBG", b"MDBG\x05\x00" + bytes(32), b"iiii", b"0000" * 9, bytes(11)])
def test_any_bytes_are_dissected_and_stay_themselves(enabled: None, data: bytes) -> None:
    for layer in (KDNET, KDPacket, KDCOM, RtacSerial):
        if data:
            assert bytes(layer(data)) == data
