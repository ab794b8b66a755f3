"""What the writer writes, others read: scapy, tshark where it is, and our own reader."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import RawPcapNgReader, rdpcap

from kdbridge.capture import CaptureWriter, Frame, Medium, read_frames
from kdbridge.errors import FileError
from protocol.errors import LocalProtocolError
from tests.recording import read_chunks

_NOON = 1_795_608_000.25
_HOST, _TARGET = ("192.0.2.1", 50000), ("192.0.2.10", 50001)


def _written(path: Path) -> list[Frame]:
    """A file with all kinds of frames, and what must be read of it."""
    writer = CaptureWriter(path, name="line")
    writer.serial(_NOON, True, b"iiii\x06\0\0\0\0\0\0\0\0\0\0\0")
    writer.datagram(_NOON + 1, _TARGET, _HOST, b"MDBG\x05\x01poke")
    writer.serial(_NOON + 2, False, b"b")
    writer.datagram(_NOON + 3, ("2001:db8::1", 50000, 0, 0), ("fe80::2%eth0", 50001, 0, 3), b"MDBGodd")
    writer.datagram(_NOON + 4, ("::ffff:192.0.2.1", 50000), _TARGET, b"MDBG")
    writer.close()
    return [
        Frame(_NOON, True, b"iiii\x06\0\0\0\0\0\0\0\0\0\0\0", Medium.SERIAL, "host", "target"),
        Frame(_NOON + 1, None, b"MDBG\x05\x01poke", Medium.NETWORK, "192.0.2.10:50001", "192.0.2.1:50000"),
        Frame(_NOON + 2, False, b"b", Medium.SERIAL, "target", "host"),
        Frame(_NOON + 3, None, b"MDBGodd", Medium.NETWORK, "[2001:db8::1]:50000", "[fe80::2]:50001"),
        Frame(_NOON + 4, None, b"MDBG", Medium.NETWORK, "192.0.2.1:50000", "192.0.2.10:50001"),
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    expected = _written(tmp_path / "x.pcapng")
    assert list(read_frames(tmp_path / "x.pcapng")) == expected


def test_scapy_reads_headers_whose_checksums_it_would_write_itself(tmp_path: Path) -> None:
    _written(tmp_path / "x.pcapng")
    serial, fourth, _, sixth, mapped = rdpcap(str(tmp_path / "x.pcapng"))
    assert float(serial.time) == _NOON
    # Seconds, microseconds, TX (1), no control lines, two bytes nobody uses.
    assert bytes(serial)[:12] == int(_NOON).to_bytes(4, "big") + (250_000).to_bytes(4, "big") + b"\x01\0\0\0"
    assert (fourth[IP].src, fourth[UDP].sport, fourth[IP].dst, fourth[UDP].dport) == (
        "192.0.2.10", 50001, "192.0.2.1", 50000,
    )  # fmt: skip
    assert (mapped[IP].src, mapped[IP].dst) == ("192.0.2.1", "192.0.2.10")
    assert (sixth[IPv6].src, sixth[IPv6].dst) == ("2001:db8::1", "fe80::2")
    for packet, layer, sum_of in ((fourth, IP, IP), (mapped, IP, IP), (sixth, IPv6, UDP)):
        again = layer(bytes(packet))
        del again[sum_of].chksum
        assert layer(bytes(again))[sum_of].chksum == packet[sum_of].chksum != 0
    assert fourth[UDP].chksum == 0


def test_each_medium_is_an_interface_of_its_own_link_type(tmp_path: Path) -> None:
    _written(tmp_path / "x.pcapng")
    with RawPcapNgReader(str(tmp_path / "x.pcapng")) as reader:
        about: list[Any] = [about for _, about in reader]
    assert [each.linktype for each in about] == [250, 101, 250, 101, 101]
    assert {each.ifname for each in about} == {b"line"}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed: Wireshark cannot be asked")
def test_wireshark_opens_it(tmp_path: Path) -> None:
    _written(tmp_path / "x.pcapng")
    command = ["tshark", "-r", str(tmp_path / "x.pcapng"), "-T", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    layers = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert ["udp" if "udp" in each else "rtacser" for each in layers] == ["rtacser", "udp", "rtacser", "udp", "udp"]
    assert not any("_ws.malformed" in each for each in layers)
    assert [each["rtacser"]["rtacser.eventtype"] for each in layers if "rtacser" in each] == ["0x01", "0x02"]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"precious")
    with pytest.raises(FileError, match=r"exists already; a recording never overwrites a file"):
        CaptureWriter(path, name="line")
    assert path.read_bytes() == b"precious"
    with pytest.raises(FileError, match="cannot be made: No such file or directory"):
        CaptureWriter(tmp_path / "none" / "x.pcapng", name="line")


def test_every_frame_is_in_the_file_before_its_call_returns(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    for count in range(1, 4):
        writer.serial(_NOON, True, b"abc")
        assert len(list(read_frames(tmp_path / "x.pcapng"))) == count
    writer.close()
    writer.close()
    with pytest.raises(FileError, match="is closed"):
        writer.serial(_NOON, True, b"abc")


def test_a_file_cut_anywhere_gives_what_came_before(tmp_path: Path) -> None:
    expected = _written(tmp_path / "x.pcapng")
    whole = (tmp_path / "x.pcapng").read_bytes()
    cut = tmp_path / "cut.pcapng"
    seen = set()
    for size in range(28, len(whole)):
        cut.write_bytes(whole[:size])
        notes: list[str] = []
        frames = list(read_frames(cut, report=notes.append))
        assert frames == expected[: len(frames)]
        at_a_block = not notes
        assert at_a_block or notes == [f"{cut} was cut off: it ends in the middle of a frame"]
        seen.add((len(frames), at_a_block))
    assert {count for count, _ in seen} == set(range(len(expected)))


def test_a_full_disk_is_a_file_error_and_what_is_there_stays(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    writer.serial(_NOON, True, b"abc")
    real = writer._file
    full = mock.Mock(wraps=real, closed=False)
    full.write.side_effect = [3, OSError(errno.ENOSPC, "No space left on device")]
    writer._file = full
    with pytest.raises(FileError, match=r"x\.pcapng cannot be written: No space left on device"):
        writer.serial(_NOON, True, b"def")
    assert [frame.data for frame in read_frames(tmp_path / "x.pcapng")] == [b"abc"]


@pytest.mark.parametrize("end", [("nowhere", 1), ("192.0.2.1",), (), ("192.0.2.1", 65536), ("192.0.2.1", "x")])
def test_what_is_no_end_of_a_socket_is_our_mistake(tmp_path: Path, end: tuple[object, ...]) -> None:
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    with pytest.raises(LocalProtocolError):
        writer.datagram(_NOON, end, _HOST, b"MDBG")
    with pytest.raises(LocalProtocolError, match="65507 is the most"):
        writer.datagram(_NOON, _TARGET, _HOST, bytes(65508))
    writer.close()


def test_a_long_piece_of_serial_bytes_keeps_all_of_them(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    long = bytes(range(256)) * 1000
    writer.serial(_NOON, False, long)
    writer.close()
    assert b"".join(frame.data for frame in read_frames(tmp_path / "x.pcapng")) == long


def test_the_recorded_serial_session_survives_chunk_for_chunk(tmp_path: Path, shared: Path) -> None:
    chunks = read_chunks(shared)
    writer = CaptureWriter(tmp_path / "x.pcapng", name="line")
    for chunk in chunks:
        writer.serial(_NOON + chunk.at, chunk.from_host, chunk.data)
    writer.close()
    frames = list(read_frames(tmp_path / "x.pcapng"))
    assert [(frame.to_target, frame.data) for frame in frames] == [(c.from_host, c.data) for c in chunks if c.data]
    assert all(abs(f.time - _NOON - c.at) < 2e-6 for f, c in zip(frames, chunks, strict=True))
