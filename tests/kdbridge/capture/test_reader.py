"""Captures as others write them: every container, every link type that scapy knows, twice, cut, and hostile."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter, wrpcap, wrpcapng

from kdbridge.capture import CaptureError, CaptureWriter, Medium, read_frames
from kdbridge.errors import FileError

_DATA = b"MDBG\x05\x01" + bytes(range(32))
_IP = IP(src="192.0.2.10", dst="192.0.2.1", id=0, flags="DF") / UDP(sport=51111, dport=9, chksum=0)
_IPV6 = IPv6(src="2001:db8::a", dst="2001:db8::1") / UDP(sport=51111, dport=9)
_ENDS = ("192.0.2.10:51111", "192.0.2.1:9")


def _ends(path: Path) -> list[tuple[bytes, str, str]]:
    return [(frame.data, frame.source, frame.destination) for frame in read_frames(path)]


@pytest.mark.parametrize(
    "below",
    [
        Ether(), Ether() / Dot1Q(vlan=7), Ether() / Dot1Q(vlan=7) / Dot1Q(vlan=9), Loopback(), CookedLinux(proto=0x800),
        CookedLinuxV2(proto=0x800), Ether(dst="4d:44:42:47:4d:44"),
    ],
    ids=lambda packet: packet.summary(),
)  # fmt: skip
def test_a_datagram_is_found_below_every_link_layer(tmp_path: Path, below: Packet) -> None:
    wrpcap(str(tmp_path / "x.pcap"), [below / _IP / Raw(_DATA)])
    assert _ends(tmp_path / "x.pcap") == [(_DATA, *_ENDS)]


@pytest.mark.parametrize("packet", [_IP / Raw(_DATA), IP(options=[]) / _IP / Raw(_DATA)], ids=["raw", "in a tunnel"])
def test_raw_ip_and_what_is_in_a_tunnel_are_read(tmp_path: Path, packet: Packet) -> None:
    with PcapWriter(str(tmp_path / "x.pcap"), linktype=101) as writer:
        writer.write(packet)
    assert _ends(tmp_path / "x.pcap") == [(_DATA, *_ENDS)]


def test_ipv6_is_read(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "x.pcap"), [Ether() / _IPV6 / Raw(_DATA)])
    assert _ends(tmp_path / "x.pcap") == [(_DATA, "[2001:db8::a]:51111", "[2001:db8::1]:9")]


def test_padding_of_a_short_ethernet_frame_is_no_part_of_it(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "x.pcap"), [Ether() / _IP / Raw(b"MDBG") / Raw(b"")])
    whole = bytes(Ether() / _IP / Raw(b"MDBG"))
    wrpcap(str(tmp_path / "y.pcap"), [Ether(whole + bytes(20))])
    assert [frame.data for frame in read_frames(tmp_path / "y.pcap")] == [b"MDBG"]


def test_what_is_not_kdnet_is_left_out(tmp_path: Path) -> None:
    wrpcap(
        str(tmp_path / "x.pcap"),
        [
            Ether() / _IP / Raw(b"hello"),
            Ether() / _IP / Raw(b"xMDBG"),
            Ether() / IP() / TCP() / Raw(_DATA),
            Ether() / IP(frag=3) / UDP() / Raw(_DATA),
            Ether() / Raw(_DATA),
            Raw(_DATA),
        ],
    )
    assert _ends(tmp_path / "x.pcap") == []


def _pcap(order: str, magic: int, fraction: int, frame: bytes) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 0xFFFF, 1)
    return head + struct.pack(order + "IIII", 1_000_000_000, fraction, len(frame), len(frame)) + frame


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 250_000), (0xA1B23C4D, 250_000_000)])
def test_pcap_of_either_byte_order_and_resolution(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap(order, magic, fraction, bytes(Ether() / _IP / Raw(_DATA))))
    (frame,) = read_frames(path)
    assert (frame.time, frame.data, frame.medium) == (1_000_000_000.25, _DATA, Medium.NETWORK)


def test_pcapng_of_others_and_gzipped(tmp_path: Path) -> None:
    packet = Ether() / _IP / Raw(_DATA)
    packet.time = 1_000_000_000.25
    wrpcapng(str(tmp_path / "x.pcapng"), [packet])
    (tmp_path / "x.gz").write_bytes(gzip.compress((tmp_path / "x.pcapng").read_bytes()))
    for name in ("x.pcapng", "x.gz"):
        (frame,) = read_frames(tmp_path / name)
        assert (frame.time, frame.data) == (1_000_000_000.25, _DATA)


def _block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def _section(order: str, options: bytes = b"") -> bytes:
    head = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    return head + _block(order, 1, struct.pack(order + "HHI", 1, 0, 0) + options)


@pytest.mark.parametrize("order", "<>")
def test_pcapng_of_either_byte_order_with_other_blocks_and_clocks(tmp_path: Path, order: str) -> None:
    frame = bytes(Ether() / _IP / Raw(_DATA))
    # Option 9: nanoseconds; option 14: times count from 1,000 s on.
    options = struct.pack(order + "HHBxxx", 9, 1, 9) + struct.pack(order + "HHq", 14, 8, 1000) + bytes(4)
    ticks = 7_500_000_000
    packet = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)) + frame
    path = tmp_path / "x.pcapng"
    path.write_bytes(
        _section(order, options) + _block(order, 5, bytes(12)) + _block(order, 0x80000001, bytes(200_000))
        + _block(order, 6, packet) + _section("<" if order == ">" else ">")
    )  # fmt: skip
    assert [(each.time, each.data) for each in read_frames(path)] == [(1007.5, _DATA)]
    simple = struct.pack(order + "I", len(frame)) + frame
    path.write_bytes(_section(order) + _block(order, 3, simple))
    assert [(each.time, each.data) for each in read_frames(path)] == [(0.0, _DATA)]


def test_what_was_captured_twice_counts_once(tmp_path: Path) -> None:
    first, second = Ether() / _IP / Raw(_DATA), Ether() / Dot1Q() / _IP / Raw(_DATA)
    first.time, second.time = 100.0, 100.0001
    third = Ether() / _IP / Raw(_DATA)
    third.time = 105.0
    wrpcap(str(tmp_path / "x.pcap"), [first, Ether(bytes(first))])
    with PcapNgWriter(str(tmp_path / "y.pcapng")) as writer:
        writer.write([first, second, third])
    notes: list[str] = []
    assert len(list(read_frames(tmp_path / "y.pcapng", report=notes.append))) == 2
    assert notes == ["captured twice and counted once: 1 datagram"]


def test_what_our_socket_received_twice_was_there_twice(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    for _ in range(2):
        writer.datagram(100.0, ("192.0.2.10", 1), ("192.0.2.1", 2), _DATA)
        writer.datagram(100.0, ("2001:db8::a", 1), ("2001:db8::1", 2), _DATA)
    writer.close()
    assert len(list(read_frames(tmp_path / "x.pcapng"))) == 4


def test_datagrams_that_a_capture_cut_are_told(tmp_path: Path) -> None:
    frame = bytes(Ether() / _IP / Raw(_DATA))
    (tmp_path / "x.pcap").write_bytes(_pcap("<", 0xA1B2C3D4, 0, frame[:-10]))
    notes: list[str] = []
    (found,) = read_frames(tmp_path / "x.pcap", report=notes.append)
    assert found.data == _DATA[:-10]
    assert notes == ["cut by the capture, whose snap length is too small for them: 1 datagram"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: no capture"),
        (b"hello", "is no capture: it begins with neither pcap's nor pcapng's mark"),
        (b"PAGEDU64" * 100, "is no capture"),
        (_section("<")[:8] + b"\1\2\3\4" + bytes(16), "a section whose byte order nobody knows"),
        (_section("<") + struct.pack("<II", 6, 0), "a block of 0x0 bytes, which none can have"),
        (_section("<") + struct.pack("<II", 6, 0xFFFFFFF0) + bytes(100), "none with a frame is larger"),
        (_section("<") + _block("<", 6, bytes(4)), "a frame whose block is too short"),
        (_section("<") + _block("<", 6, struct.pack("<IIIII", 7, 0, 0, 0, 0)), "a frame of interface 7, of which"),
        (_section("<") + _block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "a frame of 0x63 bytes in a block"),
        (_section("<") + _block("<", 1, b"abcd"), "an interface that is too short"),
        (_pcap("<", 0xA1B2C3D4, 0, b"")[:-8] + b"\xff" * 8, "a frame of 0xffffffff bytes; none is larger"),
        (gzip.compress(b"hello" * 10), "is no capture"),
        (gzip.compress(_section("<"))[:-8] + bytes(8), "its compression is damaged"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_capture_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(CaptureError) as raised:
        list(read_frames(path))
    assert str(path) in str(raised.value) and message in str(raised.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(FileError, match=f"{path} cannot be read: {reason}"):
            list(read_frames(path))


def test_a_gzip_that_holds_far_more_than_its_size_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    body = _section("<") + struct.pack("<II", 0x80000001, 0x1000_0000) + bytes(0x1000_0000 - 8)
    path.write_bytes(gzip.compress(body, 1))
    assert list(read_frames(path)) == []


@pytest.mark.parametrize("seed", range(3))
def test_mutated_captures_give_frames_or_our_error(tmp_path: Path, shared: Path, seed: int) -> None:
    whole = gzip.decompress((shared / "data/kdnet/windbg-uncut.pcapng.gz").read_bytes())[:20_000]
    chance = random.Random(seed)
    path = tmp_path / "x.pcapng"
    outcomes: dict[Any, int] = {}
    for round_ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            list(read_frames(path))
            outcomes["read"] = outcomes.get("read", 0) + 1
        except FileError as error:
            outcomes[type(error)] = outcomes.get(type(error), 0) + 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, round {round_}: {error!r}") from error
    assert sum(outcomes.values()) == 60 and len(outcomes) == 2
