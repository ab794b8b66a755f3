"""State changes: the offsets of kd-protocol 2, and what real targets sent."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.state_change import (
    FIXED_SIZE,
    HIBERNATE_BASE,
    KERNEL_PROCESS_ID,
    REBOOT_BASE,
    Amd64ControlReport,
    CommandString,
    ExceptionChange,
    LoadSymbols,
    NewState,
    StateChange,
    StateChangeEvent,
)
from tests.protocol.kdnet_capture import Captured
from tests.protocol.reference import number, tables

_U16, _U32, _U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
_TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=120)


def _patterned(kind: int, extra: bytes = b"") -> bytes:
    """A state change in which every byte differs from its neighbours."""
    return struct.pack("<I", kind) + bytes(at * 7 & 0xFF for at in range(4, 0xF0)) + extra


def _at(payload: bytes | bytearray, rows: list[list[str]]) -> dict[str, int]:
    """The numbers that a table's rows (offset, size, field) find in a payload."""
    sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
    return {
        re.split(r"\W", field)[0]: int.from_bytes(payload[number(at) :][: sizes[size]], "little")
        for at, size, field in rows
        if size in sizes
    }


def test_the_head_stands_where_the_reference_says(shared: Path) -> None:
    payload = _patterned(0x3030)
    said = _at(payload, tables(shared, "2.1")[0])
    change = StateChange.decode(payload)
    assert said["NewState"] == NewState.EXCEPTION == 0x3030
    assert (change.processor_level, change.processor) == (said["ProcessorLevel"], said["Processor"])
    assert change.number_processors == said["NumberProcessors"]
    assert (change.thread, change.program_counter) == (said["Thread"], said["ProgramCounter"])
    assert change.control_report == payload[0xC0:0xF0]
    assert (FIXED_SIZE, change.raw) == (0xF0, payload)


def test_an_exception_stands_where_the_reference_says(shared: Path) -> None:
    payload = bytearray(_patterned(0x3030))
    payload[0x38:0x3C] = struct.pack("<I", 15)
    said = _at(payload, tables(shared, "2.2")[0])
    event = StateChange.decode(bytes(payload)).event
    assert isinstance(event, ExceptionChange)
    assert (event.code, event.flags) == (said["ExceptionCode"], said["ExceptionFlags"])
    assert (event.record, event.address) == (said["ExceptionRecord"], said["ExceptionAddress"])
    assert event.parameters == struct.unpack_from("<15Q", payload, 0x40)
    assert event.first_chance is True
    payload[0xB8:0xBC] = bytes(4)
    event = StateChange.decode(bytes(payload)).event
    assert isinstance(event, ExceptionChange) and event.first_chance is False


@pytest.mark.parametrize(("claimed", "kept"), [(0, 0), (3, 3), (15, 15), (16, 15), (0xFFFFFFFF, 15)])
def test_an_exception_has_fifteen_parameters_at_most(claimed: int, kept: int) -> None:
    payload = bytearray(_patterned(0x3030))
    payload[0x38:0x3C] = struct.pack("<I", claimed)
    event = StateChange.decode(bytes(payload)).event
    assert isinstance(event, ExceptionChange)
    assert event.parameters == struct.unpack_from("<15Q", payload, 0x40)[:kept]


def test_a_loaded_image_stands_where_the_reference_says(shared: Path) -> None:
    payload = bytearray(_patterned(0x3031, b"\\SystemRoot\\x.sys\0"))
    payload[0x20:0x24] = struct.pack("<I", 18)
    said = _at(payload, tables(shared, "2.3")[0])
    event = StateChange.decode(bytes(payload)).event
    assert said["PathNameLength"] == 18
    assert event == LoadSymbols(
        "\\SystemRoot\\x.sys", said["BaseOfDll"], said["ProcessId"], said["CheckSum"], said["SizeOfImage"], True
    )
    # The byte at 40 alone says whether it was unloaded; what follows it is garbage.
    payload[0x40] = 0
    event = StateChange.decode(bytes(payload)).event
    assert isinstance(event, LoadSymbols) and event.unload is False


@pytest.mark.parametrize(
    ("length", "extra", "path"),
    [
        (0, b"", ""),
        (0, b"stale\0", ""),
        (4, b"nt\0\0", "nt"),
        (2, b"nt", "nt"),
        (99, b"nt", "nt"),
        (0xFFFFFFFF, b"nt\0rest", "nt"),
        (3, b"\xe4\xff\0", "äÿ"),
    ],
)
def test_paths_are_what_is_there(length: int, extra: bytes, path: str) -> None:
    payload = bytearray(_patterned(0x3031, extra))
    payload[0x20:0x24] = struct.pack("<I", length)
    event = StateChange.decode(bytes(payload)).event
    assert isinstance(event, LoadSymbols) and event.path == path


@pytest.mark.parametrize(("base", "leaving"), [(REBOOT_BASE, True), (HIBERNATE_BASE, True), (0x96F000, False)])
def test_the_goodbye_of_a_machine(base: int, leaving: bool) -> None:
    assert (REBOOT_BASE, HIBERNATE_BASE, KERNEL_PROCESS_ID) == (2**64 - 1, 2**64 - 2, 2**64 - 1)
    assert LoadSymbols("", base, 0, 0, 0, True).target_is_leaving is leaving
    assert LoadSymbols("", base, 0, 0, 0, False).target_is_leaving is False


def test_a_command_is_two_texts_behind_the_fixed_part() -> None:
    payload = _patterned(0x3032, b"name\0.echo hello\0")
    change = StateChange.decode(payload)
    assert change.event == CommandString("name", ".echo hello")
    assert change.encode()[0xF0:] == payload[0xF0:]
    assert change.encode()[0x20:0xC0] == bytes(0xA0)
    # The name has room for 127 characters (kd-protocol 2.4).
    long = StateChange(6, 0, 1, 0, 0, CommandString("n" * 200, "c")).encode()
    assert long[0xF0:] == b"n" * 127 + b"\0c\0"


def test_the_alternate_flag_changes_nothing() -> None:
    assert StateChange.decode(_patterned(0x13030)).event == StateChange.decode(_patterned(0x3030)).event


@pytest.mark.parametrize("kind", [0, 0x3033, 0x302F, 0xFFFF, 0x30300000])
def test_a_state_that_nobody_documented_is_the_peer_s_mistake(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{kind:#x}"):
        StateChange.decode(_patterned(kind))


def test_the_control_report_stands_where_the_reference_says(shared: Path) -> None:
    rows = tables(shared, "2.5")[0]
    payload = _patterned(0x3030)
    said = _at(payload, [[at, size, field] for _, at, size, field in rows])
    report = Amd64ControlReport.decode(StateChange.decode(payload).control_report)
    assert (report.dr6, report.dr7, report.e_flags) == (said["Dr6"], said["Dr7"], said["EFlags"])
    assert (report.instruction_count, report.report_flags) == (said["InstructionCount"], said["ReportFlags"])
    assert report.instruction_stream == payload[0xD8:0xE8]
    assert (report.seg_cs, report.seg_ds, report.seg_es, report.seg_fs) == (
        said["Cs"], said["Ds"], said["Es"], said["Fs"],
    )  # fmt: skip
    assert report.encode() == payload[0xC0:0xF0]
    # A report that is shorter, as x86 has it, reads as if zeros followed.
    assert Amd64ControlReport.decode(payload[0xC0:0xE8]).seg_fs == 0


def _exception_of_windows_8_1() -> bytes:
    """Field by field the first packet of a real kernel's break-in (kdnet 9.2, last column)."""
    payload = bytearray(0xF0)
    struct.pack_into("<IHHI4xQQ", payload, 0, 0x3030, 6, 0, 1, 0xFFFFF8026BF65A00, 0xFFFFF8026BD72B90)
    struct.pack_into("<IIQQI4xQ", payload, 0x20, 0x80000003, 0, 0, 0xFFFFF8026BD72B90, 1, 0)
    payload[0xB8] = 1
    struct.pack_into("<QQIHH", payload, 0xC0, 0xFFFF0FF0, 0x400, 0x202, 16, 3)
    payload[0xD8:0xE8] = bytes.fromhex("ccc3cccccccccccc0f1f840000000000")
    struct.pack_into("<HHHH", payload, 0xE8, 0x10, 0x2B, 0x2B, 0x53)
    return bytes(payload)


def test_the_break_in_of_a_real_kernel_is_encoded_to_its_bytes() -> None:
    stream = bytes.fromhex("ccc3cccccccccccc0f1f840000000000")
    report = Amd64ControlReport(0xFFFF0FF0, 0x400, 0x202, 16, 3, stream, 0x10, 0x2B, 0x2B, 0x53)
    event = ExceptionChange(0x80000003, 0, 0, 0xFFFFF8026BD72B90, (0,), True)
    change = StateChange(6, 0, 1, 0xFFFFF8026BF65A00, 0xFFFFF8026BD72B90, event, report.encode())
    assert change.encode() == _exception_of_windows_8_1()
    assert StateChange.decode(_exception_of_windows_8_1()) == change


def test_a_boot_debugger_s_state_changes(captured: list[Captured]) -> None:
    packets = [packet for packet in captured if packet.packet_type == 7]
    assert [packet.said["frame"] for packet in packets] == [8, 378, 952]
    for packet in packets:
        change, said = StateChange.decode(packet.payload), packet.params
        assert (change.processor_level, change.processor) == (said["processor_level"], said["processor"])
        assert change.number_processors == said["number_processors"]
        assert (change.thread, change.program_counter) == (said["thread"], said["program_counter"])
        report = Amd64ControlReport.decode(change.control_report)
        assert (report.dr6, report.dr7, report.e_flags) == (said["dr6"], said["dr7"], said["eflags"])
        assert (report.instruction_count, report.report_flags) == (said["instruction_count"], said["report_flags"])
        assert report.instruction_stream.hex() == said["instruction_stream"]
        assert report.seg_cs == said["seg_cs"]
        assert {report.seg_ds, report.seg_es, report.seg_fs} == {said["seg_ds"]}
        # The same bytes again, but for padding and what the union does not use.
        used = [(0, 0x0C), (0x10, 0x24), (0x28, 0x3C), (0xC0, len(packet.payload))]
        assert [change.encode()[a:b] for a, b in used] == [packet.payload[a:b] for a, b in used]

    loaded, stopped, leaving = (StateChange.decode(packet.payload).event for packet in packets)
    assert loaded == LoadSymbols("winload.efi", 0x96F000, KERNEL_PROCESS_ID, 0x149E3F, 0x17D000, False)
    said = packets[1].params
    assert stopped == ExceptionChange(said["exception_code"], 0, 0, said["exception_address"], (0,), True)
    assert leaving == LoadSymbols("", REBOOT_BASE, 0, 0, 0, True)
    assert isinstance(leaving, LoadSymbols) and leaving.target_is_leaving


_EVENTS: st.SearchStrategy[StateChangeEvent] = st.one_of(
    st.builds(ExceptionChange, _U32, _U32, _U64, _U64, st.lists(_U64, max_size=15).map(tuple), st.booleans()),
    st.builds(LoadSymbols, _TEXT, _U64, _U64, _U32, _U32, st.booleans()),
    st.builds(CommandString, _TEXT, _TEXT),
)


@given(_U16, _U16, _U32, _U64, _U64, _EVENTS, st.binary(min_size=48, max_size=48))
def test_any_state_change_survives_the_wire(
    level: int, processor: int, count: int, thread: int, pc: int, event: StateChangeEvent, report: bytes
) -> None:
    change = StateChange(level, processor, count, thread, pc, event, report)
    assert StateChange.decode(change.encode()) == change


@given(st.sampled_from([0x3030, 0x3031, 0x3032]), st.binary(min_size=0xEC, max_size=0x140))
def test_any_bytes_of_its_size_are_a_state_change(kind: int, rest: bytes) -> None:
    change = StateChange.decode(struct.pack("<I", kind) + rest)
    # What was understood is said again in the same words.
    assert StateChange.decode(change.encode()) == change


@pytest.mark.parametrize("kind", [0x3030, 0x3031, 0x3032])
def test_every_truncation_is_a_state_change_or_the_peer_s_mistake(kind: int) -> None:
    payload = _patterned(kind, b"\\SystemRoot\\x.sys\0and more\0")
    for size in range(len(payload) + 1):
        if size < 0xF0:
            with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
                StateChange.decode(payload[:size])
        else:
            assert StateChange.decode(payload[:size]).raw == payload[:size]
