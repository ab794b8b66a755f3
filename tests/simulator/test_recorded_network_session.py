"""A target loaded from the captured KDNET session answers WinDbg's recorded datagrams as the real boot debugger did.

What the real target told (memory, registers, version, what it printed and which files it asked for) is laid into a
machine and its script; everything else is the simulator's: keys, ids, acknowledges, resets, repetitions, and which
requests are answered and how.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.framing import ControlFrame, DataFrame
from protocol.kdnet import Channel, Endpoint, KdnetLink, Sealer, TargetChannel, parse_key
from protocol.kdnet.packet import read_packet
from protocol.layouts.version import GetVersion64
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.packet import PacketType
from protocol.state_change import ExceptionChange, LoadSymbols, StateChange
from simulator.cipher import AesCbc
from simulator.image import MemoryImage
from simulator.machine import Behaviour, Machine, VirtualProcessor
from simulator.target import Activity, Event, KdTarget, Load, OpenFile, Print, Stop
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame, read_frames
from tests.protocol.kdnet_capture import Captured, read_capture

_HOST, _TARGET = ("192.168.2.1", 51111), ("192.168.2.72", 51111)
_KEY = parse_key(KEY_TEXT)
_BOOT_DEBUGGER = Behaviour(refused=frozenset({ApiNumber.GET_CONTEXT_EX}))


@pytest.fixture(scope="module")
def frames(shared: Path) -> list[Frame]:
    return read_frames(shared)


@pytest.fixture(scope="module")
def captured(shared: Path) -> list[Captured]:
    return read_capture(shared)


@pytest.fixture(scope="module")
def data_key(shared: Path) -> bytes:
    summary = json.loads((shared / "data/kdnet/kdnet-capture-summary.json").read_text())
    return bytes.fromhex(summary["meta"]["data_key_hex"])


@dataclass(frozen=True)
class Moment:
    """One stop of the real target: its registers and memory as they were read first."""

    change: StateChange
    context: bytes
    special: bytes
    memory: list[tuple[int, bytes]]


def _moments(captured: list[Captured]) -> Iterator[Moment]:
    told = [packet for packet in captured if not packet.from_host]
    starts = [at for at, packet in enumerate(told) if packet.packet_type == PacketType.STATE_CHANGE64]
    for start, end in zip(starts, [*starts[1:], len(told)], strict=True):
        change = StateChange.decode(told[start].payload)
        replies = [
            Manipulate.decode(p.payload) for p in told[start:end] if p.packet_type == PacketType.STATE_MANIPULATE
        ]
        memory = [(r.fields()["address"], r.data) for r in replies if r.api == ApiNumber.READ_VIRTUAL_MEMORY and r.data]
        memory.append((change.program_counter, change.control_report[0x18:0x28]))
        contexts = [r.data for r in replies if r.api == ApiNumber.GET_CONTEXT]
        specials = [r.data for r in replies if r.api == ApiNumber.READ_CONTROL_SPACE and r.fields()["address"] == 2]
        yield Moment(change, contexts[0] if contexts else b"", specials[0] if specials else b"", memory)


class Memory:
    """Virtual pages, each at a frame of its own."""

    def __init__(self, moments: list[Moment]) -> None:
        pages = {
            at >> PAGE_SHIFT
            for moment in moments
            for place, data in moment.memory
            for at in (place, place + len(data) - 1)
        }
        self.frames = {page: number for number, page in enumerate(sorted(pages), start=1)}
        self.image = MemoryImage(PageRuns([PageRun(1, len(self.frames))]))

    def translate(self, root: int, address: int) -> int | None:
        frame = self.frames.get(address >> PAGE_SHIFT)
        return None if frame is None else frame << PAGE_SHIFT | address & PAGE_SIZE - 1

    def become(self, moment: Moment) -> None:
        for place, data in moment.memory:
            for at, byte in enumerate(data, place):
                where = self.translate(0, at)
                assert where is not None and self.image.write(where, bytes([byte]))


def _load(captured: list[Captured], client_key: bytes) -> KdTarget:
    moments = list(_moments(captured))
    first, second, _ = moments
    memory = Memory(moments)
    memory.become(first)
    (version,) = (p for p in captured if not p.from_host and p.payload[:4] == b"\x46\x31\0\0")
    processor = VirtualProcessor(0, first.context, first.special, 0, 0, 0, 0)

    def crash(machine: Machine) -> None:
        memory.become(second)
        machine.forget_translations()
        processor.context, processor.special_registers = second.context, second.special

    script: deque[Event] = deque()
    for packet in captured:
        if packet.from_host or packet.said["retransmission"]:
            continue
        if packet.packet_type == PacketType.DEBUG_IO:
            script.append(Print(packet.params["text"].encode()))
        elif packet.packet_type == PacketType.FILE_IO:
            script.append(OpenFile(packet.params["path"]))
        elif packet.packet_type == PacketType.STATE_CHANGE64:
            event = StateChange.decode(packet.payload).event
            script.append(Load(event) if isinstance(event, LoadSymbols) else Stop(apply=crash))
    machine = Machine(
        memory.image, memory.translate, GetVersion64.decode(version.payload[16:56]), [processor], _BOOT_DEBUGGER
    )
    channel = TargetChannel(
        _KEY, AesCbc(), lambda size: client_key[:size], own=Endpoint(*_TARGET), host=_HOST, version=4
    )
    return KdTarget(machine, KdnetLink(channel), script=script)


@dataclass(frozen=True)
class Said:
    """One datagram of a target's, taken apart."""

    kind: str
    id: int
    payload: bytes

    @property
    def api(self) -> int | None:
        return int.from_bytes(self.payload[:4], "little") if self.payload else None


def _said(datagram: bytes, data_key: bytes) -> Said:
    sealer = Sealer(_KEY, AesCbc())
    opened = sealer.open(datagram, data_key if datagram[5] == Channel.DATA else sealer.control_key)
    assert opened is not None
    if datagram[5] == Channel.CONTROL:
        return Said("poke", 0, b"")
    content = read_packet(opened.payload)
    if isinstance(content, DataFrame):
        return Said(PacketType(content.packet_type).name, content.packet_id, content.payload)
    return (
        Said(PacketType(content.packet_type).name, content.packet_id, b"")
        if isinstance(content, ControlFrame)
        else Said("UNUSED", 0, b"")
    )


@pytest.fixture
def answered(frames: list[Frame], captured: list[Captured], data_key: bytes) -> tuple[list[Said], KdTarget]:
    """What our target says to WinDbg's datagrams, each at its time; and the target, as it is left."""
    target = _load(captured, bytes.fromhex(frames[0].said["client_key"]))
    link = target.link
    assert isinstance(link, KdnetLink)
    written: list[bytes] = []
    for frame in frames:
        now = frame.said["time"]
        if frame.from_host:
            woken = link.receive_datagram(frame.datagram, frame.source, now)
            written += [datagram for datagram, _ in link.datagrams_to_send()]
            if woken:
                target.receive_data(b"", now)
        elif frame.kind == "poke":
            target.handle_timeout(now)
        written += [datagram for datagram, _ in link.datagrams_to_send()]
    return [_said(datagram, data_key) for datagram in written], target


@pytest.fixture(scope="module")
def recorded(frames: list[Frame], data_key: bytes) -> list[Said]:
    """What the real target said."""
    return [_said(frame.datagram, data_key) for frame in frames if not frame.from_host]


def test_the_same_sequence_of_types_ids_and_apis(answered: tuple[list[Said], KdTarget], recorded: list[Said]) -> None:
    ours = [(said.kind, said.id, said.api) for said in answered[0]]
    real = [(said.kind, said.id, said.api) for said in recorded]
    assert ours == real and len(real) == 692
    kinds = Counter(said.kind for said in recorded)
    assert kinds == {
        "poke": 427, "ACKNOWLEDGE": 127, "STATE_MANIPULATE": 92, "FILE_IO": 33, "DEBUG_IO": 7, "STATE_CHANGE64": 3,
        "RESEND": 1, "RESET": 1, "UNUSED": 1,
    }  # fmt: skip


def test_every_answer_is_the_same_to_the_byte(answered: tuple[list[Said], KdTarget], recorded: list[Said]) -> None:
    ours = [said.payload for said in answered[0] if said.kind == "STATE_MANIPULATE"]
    real = [said.payload for said in recorded if said.kind == "STATE_MANIPULATE"]
    assert ours == real
    assert len({payload[:4] for payload in ours}) == 8


def test_a_state_change_differs_only_in_fields_that_nobody_reads(
    answered: tuple[list[Said], KdTarget], recorded: list[Said]
) -> None:
    """Of the first two: what they report is the same, and so is where the machine stands and the code there."""
    ours = [StateChange.decode(said.payload) for said in answered[0] if said.kind == "STATE_CHANGE64"]
    real = [StateChange.decode(said.payload) for said in recorded if said.kind == "STATE_CHANGE64"]
    assert [change.event for change in ours[::2]] == [change.event for change in real[::2]]
    events = [change.event for change in (ours[1], real[1])]
    assert all(isinstance(event, ExceptionChange) and event.code == 0x80000003 for event in events)
    for own, other in zip(ours[:2], real[:2], strict=True):
        assert own.program_counter == other.program_counter
        assert own.control_report[0x18:0x28] == other.control_report[0x18:0x28]
    # A third time it stops where the loader always reports; our machine stands where WinDbg put it.
    assert (real[2].program_counter, ours[2].program_counter) == (real[0].program_counter, real[1].program_counter + 1)


def test_what_windbg_asked_is_what_was_answered_and_in_the_end_it_runs(
    answered: tuple[list[Said], KdTarget],
) -> None:
    target = answered[1]
    assert sum(target.machine.counts.values()) == 94
    silent = {entry.request.api for entry in target.machine.touched if entry.status is None}
    assert silent == {ApiNumber.CONTINUE2, ApiNumber.CONTINUE} <= NO_REPLY
    assert target.activity is Activity.RUNNING and not target.script
