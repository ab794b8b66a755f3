"""A target loaded from the recorded session answers WinDbg's recorded bytes as the real one did, packet by packet.

What the real target told (memory, registers, version) is laid into a machine; everything else is the simulator's:
framing, ids, acknowledges, resets, which requests are answered and how.
"""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path

import pytest

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.layouts.version import GetVersion64
from protocol.manipulate import NO_REPLY, ApiNumber, Manipulate
from protocol.state_change import StateChange
from simulator.image import MemoryImage
from simulator.machine import Behaviour, Machine, VirtualProcessor
from simulator.target import Activity, KdTarget, Stop
from tests.recording import Chunk, Packet, read_chunks, split
from tests.wire import target_link

_READ_ONLY_SPACE = {0: "pcr", 1: "prcb", 3: "thread"}


@pytest.fixture(scope="module")
def chunks(shared: Path) -> list[Chunk]:
    return read_chunks(shared)


@pytest.fixture(scope="module")
def recorded(chunks: list[Chunk]) -> list[Packet]:
    """What the real target said."""
    return split(b"".join(chunk.data for chunk in chunks if not chunk.from_host))[0]


class Memory:
    """Pieces of virtual memory, each page of it at a frame of its own."""

    def __init__(self) -> None:
        self.frames: dict[int, int] = {}
        self.pieces: list[tuple[int, bytes]] = []

    def put(self, address: int, data: bytes) -> None:
        self.pieces.append((address, data))
        for page in range(address >> PAGE_SHIFT, (address + len(data) - 1 >> PAGE_SHIFT) + 1):
            self.frames.setdefault(page, len(self.frames) + 1)

    def translate(self, root: int, address: int) -> int | None:
        frame = self.frames.get(address >> PAGE_SHIFT)
        return None if frame is None else frame << PAGE_SHIFT | address & PAGE_SIZE - 1

    def image(self) -> MemoryImage:
        image = MemoryImage(PageRuns([PageRun(1, len(self.frames))]))
        for address, data in self.pieces:
            for at, byte in enumerate(data):
                place = self.translate(0, address + at)
                assert place is not None and image.write(place, bytes([byte]))
        return image


def _load(recorded: list[Packet]) -> KdTarget:
    change = StateChange.decode(next(packet.payload for packet in recorded if packet.packet_type == 7))
    memory = Memory()
    memory.put(change.program_counter, change.control_report[0x18:0x28])
    context = special = b""
    version: GetVersion64 | None = None
    prcb = 0
    for packet in recorded:
        if packet.packet_type != 2:
            continue
        reply = Manipulate.decode(packet.payload)
        fields = reply.fields()
        if reply.api == ApiNumber.READ_VIRTUAL_MEMORY:
            memory.put(fields["address"], reply.data)
        elif reply.api == ApiNumber.GET_VERSION:
            version = GetVersion64.decode(reply.union)
        elif reply.api == ApiNumber.GET_CONTEXT_EX:
            context = reply.data
        elif reply.api == ApiNumber.READ_CONTROL_SPACE and fields["address"] == 1:
            prcb = int.from_bytes(reply.data, "little")
        elif reply.api == ApiNumber.READ_CONTROL_SPACE:
            special = reply.data
    assert version is not None and len(context) == 0x4D0 and len(special) == 0xD8
    processor = VirtualProcessor(0, context, special, prcb - 0x180, prcb, change.thread, change.processor_level)
    # This kernel echoes what is written to its control space, as ROS does (kd-protocol 3.8).
    behaviour = Behaviour(echo_control_writes=True)
    machine = Machine(memory.image(), memory.translate, version, [processor], behaviour)
    return KdTarget(machine, target_link(), script=deque([Stop()]))


@pytest.fixture
def answered(chunks: list[Chunk], recorded: list[Packet]) -> tuple[list[Packet], KdTarget]:
    """What our target says to WinDbg's bytes, each at its time; and the target, as it is left."""
    target = _load(recorded)
    written: list[bytes] = []
    target.handle_timeout(chunks[0].at)
    written += target.data_to_send()
    for chunk in chunks:
        if chunk.from_host:
            due = target.next_timeout()
            assert due is None or due > chunk.at, "no timer runs out in this session"
            target.receive_data(chunk.data, chunk.at)
            written += target.data_to_send()
    packets, between = split(b"".join(written))
    assert between == []
    return packets, target


def test_the_same_sequence_of_types_ids_and_apis(
    answered: tuple[list[Packet], KdTarget], recorded: list[Packet]
) -> None:
    def story(packets: list[Packet]) -> list[tuple[int, int, int | None, int | None]]:
        replies = {2: Manipulate.decode}
        told = [replies[p.packet_type](p.payload) if p.packet_type in replies else None for p in packets]
        return [
            (p.packet_type, p.packet_id, message.api if message else None, message.status if message else None)
            for p, message in zip(packets, told, strict=True)
        ]

    ours, real = story(answered[0]), story(recorded)
    assert Counter(kind for kind, *_ in real) == {4: 156, 2: 154, 7: 2, 6: 1}
    assert ours == real


def test_every_packet_but_the_state_changes_is_the_same_to_the_byte(
    answered: tuple[list[Packet], KdTarget], recorded: list[Packet]
) -> None:
    ours = [packet.raw for packet in answered[0] if packet.packet_type != 7]
    real = [packet.raw for packet in recorded if packet.packet_type != 7]
    assert ours == real and len(real) == 311


def test_a_state_change_differs_only_where_the_real_one_has_leftovers_of_its_stack(
    answered: tuple[list[Packet], KdTarget], recorded: list[Packet]
) -> None:
    """Named differences, by offset of kd-protocol 2.1, 2.2 and 2.5.

    That kernel's ExceptionAddress is PC + 1 (T31 is the same in the other direction); of its three exception
    parameters only the first, 0 for a breakpoint, means something, and ours comes without the other two; and behind
    the 240 bytes it sends the count of an instruction trace, of which there is none here.
    """
    leftovers = {*range(0x0C, 0x10), *range(0x3C, 0x40), *range(0x48, 0xB8), *range(0xBC, 0xC0)}
    exception_address, parameter_count = set(range(0x30, 0x38)), set(range(0x38, 0x3C))
    ours = [packet.payload for packet in answered[0] if packet.packet_type == 7]
    real = [packet.payload for packet in recorded if packet.packet_type == 7]
    assert len(ours) == len(real) == 2 and ours[0] == ours[1] and real[0] == real[1]
    assert (len(ours[0]), len(real[0])) == (240, 244)
    differing = {at for at in range(240) if ours[0][at] != real[0][at]}
    assert differing - leftovers <= exception_address | parameter_count
    pc = int.from_bytes(real[0][0x18:0x20], "little")
    assert int.from_bytes(ours[0][0x30:0x38], "little") == pc == int.from_bytes(real[0][0x30:0x38], "little") - 1
    assert (ours[0][0x38], real[0][0x38]) == (1, 3)


def test_what_windbg_asked_is_what_was_answered(answered: tuple[list[Packet], KdTarget]) -> None:
    target = answered[1]
    assert sum(target.machine.counts.values()) == 156
    silent = [entry.request.api for entry in target.machine.touched if entry.status is None]
    assert silent == [ApiNumber.CLEAR_ALL_INTERNAL_BREAKPOINTS, ApiNumber.CONTINUE2]
    assert set(silent) <= NO_REPLY


def test_in_the_end_it_goes_on_from_where_windbg_put_it(
    answered: tuple[list[Packet], KdTarget], recorded: list[Packet]
) -> None:
    """WinDbg moved PC past the int3 and continued; its "b" from the beginning makes it break at the next tick."""
    target = answered[1]
    before = StateChange.decode(next(p.payload for p in recorded if p.packet_type == 7)).program_counter
    assert target.machine.processors[0].program_counter == before + 1
    assert target.activity is Activity.RUNNING
    due = target.next_timeout()
    assert due is not None
    target.handle_timeout(due)
    (packet,), _ = split(b"".join(target.data_to_send()))
    assert StateChange.decode(packet.payload).program_counter == before + 1
