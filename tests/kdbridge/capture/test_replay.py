"""A recorded machine as a target: the real boot debugger of the capture, and machines that we recorded ourselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from itertools import takewhile
from pathlib import Path

import pytest

from kdbridge.capture.writer import CaptureWriter
from kdbridge.errors import FileError, MemoryFault, TargetRefusedError, UsageError
from kdbridge.opening import OpenTarget, open_target
from protocol.address import PhysicalAddress, VirtualAddress
from protocol.arch import ControlSpace
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import PacketType, encode_data
from protocol.state_change import ExceptionChange, StateChange
from tests.protocol.kdnet_capture import Captured, read_capture

pytestmark = pytest.mark.usefixtures("autojump_clock")

_KEY = "8.8.8.8"
_CONTINUES = (ApiNumber.CONTINUE, ApiNumber.CONTINUE2)


@pytest.fixture(scope="module")
def captured(shared: Path) -> list[Captured]:
    return read_capture(shared)


@pytest.fixture(scope="module")
def capture(shared: Path) -> Path:
    return shared / "data/kdnet/windbg-uncut.pcapng.gz"


def _api(packet: Captured) -> int:
    return int.from_bytes(packet.payload[:4], "little")


def _stop(captured: list[Captured], number: int) -> list[Captured]:
    """The packets of one of the stops, by where WinDbg continued: they are counted from 1."""
    packets: Iterator[Captured] = iter(captured)
    stop: list[Captured] = []
    for _ in range(number):
        stop = list(
            takewhile(
                lambda p: not (p.from_host and p.packet_type == PacketType.STATE_MANIPULATE and _api(p) in _CONTINUES),
                packets,
            )
        )
    return stop


def _replies(captured: list[Captured], api: int) -> list[Captured]:
    found = [p for p in captured if not p.from_host and p.packet_type == PacketType.STATE_MANIPULATE and _api(p) == api]
    assert found
    return found


def _open(capture: Path, options: str = "", **more: object) -> AbstractAsyncContextManager[OpenTarget]:
    return open_target(f"replay:{capture}?key={_KEY}{options}", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "reads"), [(1, 13), (2, 31)])
async def test_every_read_of_memory_that_windbg_made_gives_what_it_gave(
    capture: Path, captured: list[Captured], number: int, reads: int
) -> None:
    """All 44 of the capture."""
    replies = _replies(_stop(captured, number), ApiNumber.READ_VIRTUAL_MEMORY)
    assert len(replies) == reads
    async with _open(capture, f"&stop={number}") as target:
        for packet in replies:
            address, count = packet.params["address"], packet.params["actual_count"]
            assert await target.virtual.read(VirtualAddress(address), count) == packet.payload[56:]


async def test_version_registers_and_control_space_are_those_of_the_capture(
    capture: Path, captured: list[Captured]
) -> None:
    (version,) = _replies(captured, ApiNumber.GET_VERSION)
    async with _open(capture) as target:
        found = await target.version()
        assert found.machine_type == version.params["machine"] == 0x8664
        assert (found.major_version, found.minor_version) == (version.params["major"], version.params["minor"])
        assert found.kern_base == version.params["kern_base"]
        assert found.ps_loaded_module_list == version.params["ps_loaded_module_list"]
        stop = _stop(captured, 2)
        context = await target.context(0)
        # The first of them: later ones, if they differ, are of what WinDbg wrote.
        recorded = [*_replies(stop, ApiNumber.GET_CONTEXT), *_replies(stop, ApiNumber.GET_CONTEXT_EX)]
        assert context.raw in {packet.payload[56:][: len(context.raw)] for packet in recorded}
        # Rip is at F8, Rsp at 98, CS at 38 of a CONTEXT.
        assert context["rip"] == int.from_bytes(recorded[0].payload[56:][0xF8:0x100], "little")
        assert context["rsp"] == int.from_bytes(recorded[0].payload[56:][0x98:0xA0], "little")
        special = await target.special_registers(0)
        controls = [p for p in _replies(stop, ApiNumber.READ_CONTROL_SPACE) if p.params["address"] == 2]
        assert special.raw == controls[0].payload[56:][: len(special.raw)] and len(special.raw) >= 0xD8
        # CR0, CR2 and CR3 are the first three words.
        assert special["cr3"] == int.from_bytes(controls[0].payload[56:][0x10:0x18], "little")


async def test_the_stop_that_was_asked_most_is_taken_unless_another_is_named(
    capture: Path, captured: list[Captured]
) -> None:
    changes = [p.params["program_counter"] for p in captured if p.packet_type == PacketType.STATE_CHANGE64]
    assert len(set(changes)) == 2
    notes: list[str] = []
    async with _open(capture, report=notes.append) as target:
        assert target.stop is not None
        assert (target.stop.exception_code, target.stop.program_counter) == (0x80000003, 0x9CF07E)
    assert notes[0] == "a recording of a machine: stop 2 of 3: stopped at 0x9cf07e, 34 answers; stop=N takes another"
    for number, place in ((1, changes[0]), (3, changes[-1])):
        async with _open(capture, f"&stop={number}") as target:
            assert target.stop is not None and target.stop.program_counter == place == 0xA79685
    with pytest.raises(UsageError, match="there is no stop 4 in this recording; it has 3"):
        async with _open(capture, "&stop=4"):
            pass


async def test_discovery_names_what_a_boot_debugger_and_a_recording_lack_and_fails_at_nothing(capture: Path) -> None:
    async with _open(capture) as target:
        found = await target.discover()
    assert found.version.machine_type == 0x8664
    assert len(found.processors) == 1 and found.processors[0].context is not None
    missing = {finding.step for finding in found.shortcomings}
    assert {"KDBG", "physical memory runs", "modules", "bug check", "physical memory"} <= missing


async def test_memory_that_was_not_recorded_is_a_fault_and_counted(capture: Path) -> None:
    told: list[str] = []
    async with _open(capture, report=told.append) as target:
        for _ in range(3):
            with pytest.raises(MemoryFault) as raised:
                await target.virtual.read(VirtualAddress(0xFFFFF780_00000000), 8)
            assert raised.value.address == 0xFFFFF780_00000000
        assert target.physical is not None
        with pytest.raises(MemoryFault):
            await target.physical.read(PhysicalAddress(0x1000), 8)
    first, total = told[-2:]
    assert first == (
        "the recording holds no virtual memory at 0xfffff78000000000; memory that it does not hold counts as unreadable"
    )
    assert total == "4 requests were for memory that the recording does not hold"


async def test_what_else_was_not_recorded_is_refused_in_the_name_of_the_recording(capture: Path) -> None:
    async with _open(capture) as target:
        with pytest.raises(TargetRefusedError, match="the recording holds no registers of processor 7") as raised:
            await target.context(7)
        assert str(raised.value).startswith(f"replay:{capture}?key=…: ") and raised.value.api == "GetContextEx"
        with pytest.raises(TargetRefusedError, match="the recording holds no control space 0x2 of processor 7"):
            await target.special_registers(7)
        request = Manipulate.request(ApiNumber.READ_CONTROL_SPACE, address=ControlSpace.SPECIAL_REGISTERS)
        assert (await target.session.ask(request)).status == 0, "and the conversation goes on"


async def test_nothing_is_carried_out_on_a_recording(capture: Path) -> None:
    async with _open(capture) as target:
        with pytest.raises(TargetRefusedError, match=r"a recording can only be read: .* Reboot"):
            await target.session.reboot()
        with pytest.raises(TargetRefusedError, match="a recording can only be read"):
            await target.session.resume()
        assert target.session.change is not None


async def test_a_wrong_key_and_no_key_are_told_apart(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDBRIDGE_KEY", raising=False)
    with pytest.raises(UsageError, match="none of 955 datagrams authenticates; that machine had another key"):
        async with open_target(f"replay:{capture}?key=8.8.8.9"):
            pass
    with pytest.raises(UsageError, match=r"is encrypted: write .*key=w"):
        async with open_target(f"replay:{capture}"):
            pass
    monkeypatch.setenv("KDBRIDGE_KEY", _KEY)
    async with open_target(f"replay:{capture}") as target:
        assert target.stop is not None


async def test_a_recording_of_nothing_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    CaptureWriter(tmp_path / "empty.pcapng", name="nothing").close()
    with pytest.raises(FileError, match="the recording holds no machine that stopped"):
        async with open_target(f"replay:{tmp_path / 'empty.pcapng'}"):
            pass
    torn = CaptureWriter(tmp_path / "torn.pcapng", name="torn")
    torn.serial(1.0, False, encode_data(PacketType.STATE_CHANGE64, 0x80800800, b"\xff" * 240))
    torn.close()
    with pytest.raises(FileError, match="the recording holds no machine that stopped"):
        async with open_target(f"replay:{tmp_path / 'torn.pcapng'}"):
            pass
    (tmp_path / "text").write_text("no capture")
    with pytest.raises(FileError):
        async with open_target(f"replay:{tmp_path / 'text'}"):
            pass
    with pytest.raises(FileError):
        async with open_target(f"replay:{tmp_path / 'missing'}"):
            pass


async def test_two_lives_of_a_machine_are_two_stops_though_they_stop_alike(tmp_path: Path) -> None:
    """Restarted without a word, it says the same once more: a first packet again, with SYNC (kd-protocol T2)."""
    path = tmp_path / "lives.pcapng"
    writer = CaptureWriter(path, name="lives")
    event = ExceptionChange(0x80000003, 0, 0, 0x1000, (0,), True)
    change = StateChange(0, 0, 1, 0xFFFF8000_00001000, 0x1000, event, bytes(0x40)).encode()
    request = Manipulate.request(ApiNumber.READ_VIRTUAL_MEMORY, address=0x1000, transfer_count=4)
    version = Manipulate.request(ApiNumber.GET_VERSION)
    for life, data in enumerate((b"past", b"late")):
        writer.serial(life * 10 + 1.0, False, encode_data(PacketType.STATE_CHANGE64, 0x80800800, change))
        for step, (asked, reply) in enumerate(
            (
                (version, version.reply(0, machine_type=0x8664, major_version=15)),
                (request, request.reply(0, data=data, actual_bytes=4)),
            )
        ):
            number = 0x80800000 | step
            writer.serial(life * 10 + 2.0, True, encode_data(PacketType.STATE_MANIPULATE, number, asked.encode()))
            writer.serial(life * 10 + 3.0, False, encode_data(PacketType.STATE_MANIPULATE, number ^ 1, reply.encode()))
    writer.close()
    for number, data in ((1, b"past"), (2, b"late")):
        async with open_target(f"replay:{path}?stop={number}") as target:
            assert await target.virtual.read(VirtualAddress(0x1000), 4) == data
