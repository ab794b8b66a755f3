"""What is recorded is what went over the way, with its times and ends; a full disk ends the recording alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from kdbridge.capture.frames import Medium
from kdbridge.capture.reader import read_frames
from kdbridge.capture.record import Recorder
from kdbridge.errors import FileError
from kdbridge.opening import OpenTarget, open_target
from kdbridge.transports import sim_net
from kdbridge.transports.sim import SimTransport
from kdbridge.transports.tap import untapped
from protocol.address import VirtualAddress
from protocol.kdnet import ControlKey
from simulator.kernel import SimulatedKernel
from tests.kdbridge.cli.limits import no_file_longer_than
from tests.recording import split

_MACHINE = "sim:bugcheck?memory=16M&processors=1"


def _kernel(target: OpenTarget) -> SimulatedKernel:
    way = untapped(target.session.engine.transport)
    assert isinstance(way, SimTransport)
    return way.running.kernel


async def test_a_recording_of_a_line_holds_both_directions_in_their_order(
    tmp_path: Path, autojump_clock: object
) -> None:
    path = tmp_path / "line.pcapng"
    async with open_target(_MACHINE, record=path) as target:
        kernel = _kernel(target)
        await target.virtual.read(VirtualAddress(kernel.kdbg_address), 64)
    frames = list(read_frames(path))
    assert {frame.medium for frame in frames} == {Medium.SERIAL}
    said, between = split(b"".join(frame.data for frame in frames if not frame.to_target))
    asked, _ = split(b"".join(frame.data for frame in frames if frame.to_target))
    assert between == [] and said[-1].payload[-64:] == kernel.read_virtual(kernel.kdbg_address, 64)
    assert asked[-1].packet_type == 4, "the last acknowledge too"
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


async def test_times_are_those_of_the_clock_that_the_work_went_by(tmp_path: Path, autojump_clock: object) -> None:
    recorder = Recorder(tmp_path / "line.pcapng", name="line")
    recorder.serial(True, b"first")
    await trio.sleep(12.5)
    recorder.serial(False, b"second")
    recorder.close()
    first, second = read_frames(tmp_path / "line.pcapng")
    assert second.time - first.time == pytest.approx(12.5, abs=1e-5)


async def test_a_recording_of_a_network_is_udp_that_others_read_and_holds_no_key(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pcapng"
    keys: list[ControlKey] = []

    def make(raw: bytes) -> ControlKey:
        keys.append(ControlKey(raw))
        return keys[-1]

    monkeypatch.setattr(sim_net, "ControlKey", make)
    async with open_target(f"{_MACHINE}&link=net", record=path) as target:
        await target.version()
    packets = rdpcap(str(path))
    assert {(p[IP].src, p[UDP].sport, p[IP].dst, p[UDP].dport) for p in packets} == {
        ("192.0.2.1", 50000, "192.0.2.10", 50000),
        ("192.0.2.10", 50000, "192.0.2.1", 50000),
    }
    assert all(bytes(p[UDP].payload).startswith(b"MDBG") for p in packets)
    data = path.read_bytes()
    assert len(keys) == 1 and not any(part in data for part in (keys[0].raw, keys[0].raw.hex().encode()))


async def test_an_end_bound_to_every_address_is_recorded_with_the_one_it_was_reached_by(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "net.pcapng", name="net")
    recorder.datagram(("::", 50000), ("127.0.0.1", 7), b"MDBG" + bytes(40))
    recorder.datagram(("::1", 7), ("::", 50000), b"MDBG" + bytes(41))
    recorder.close()
    four, six = rdpcap(str(tmp_path / "net.pcapng"))
    assert (four[IP].src, four[IP].dst, four[UDP].sport) == ("127.0.0.1", "127.0.0.1", 50000)
    assert (six[IPv6].src, six[IPv6].dst, six[UDP].dport) == ("::1", "::1", 50000)


async def test_a_full_disk_ends_the_recording_with_one_sentence_and_never_the_work(
    tmp_path: Path, autojump_clock: object
) -> None:
    path = tmp_path / "line.pcapng"
    told: list[str] = []
    async with open_target(_MACHINE, record=path, report=told.append) as target:
        kernel = _kernel(target)
        size = path.stat().st_size + 1000
        with no_file_longer_than(size):
            for _ in range(10):
                data = await target.virtual.read(VirtualAddress(kernel.kdbg_address), 256)
                assert data == kernel.read_virtual(kernel.kdbg_address, 256)
    (said,) = (text for text in told if "recording" in text)
    assert said == (
        f"the recording {path} cannot be written: File too large: the recording ends here; what was recorded up to "
        "here is kept, and the work goes on"
    )
    assert path.stat().st_size == size
    cut: list[str] = []
    assert list(read_frames(path, report=cut.append)) and len(cut) == 1


async def test_a_recording_never_overwrites_a_file_and_the_target_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "there.pcapng"
    path.write_text("precious")
    with pytest.raises(FileError, match=r"there\.pcapng exists already"):
        async with open_target(_MACHINE, record=path):
            pass
    assert path.read_text() == "precious"
