"""What a recording tells of a machine: where it stopped, and what it answered while it stood there.

A stop lasts from its state change until the debugger let the machine go, or it restarted. Within one, memory is what
was read first: the machine as it stopped, before a debugger wrote its breakpoints into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.address import PAGE_SHIFT
from protocol.errors import RemoteProtocolError
from protocol.manipulate import ApiNumber, Manipulate, api_name
from protocol.ntstatus import STATUS_UNSUCCESSFUL
from protocol.packet import PacketType
from protocol.state_change import StateChange

from .sparse import SparseBytes

__all__ = ["Answer", "RecordedPacket", "RecordedStop", "stops_of"]

_MEMORY = {ApiNumber.READ_VIRTUAL_MEMORY: "virtual memory", ApiNumber.READ_PHYSICAL_MEMORY: "physical memory"}
_CONTEXT = (ApiNumber.GET_CONTEXT, ApiNumber.GET_CONTEXT_EX)
_LARGEST_CONTEXT = 1 << 16

_INPUTS: dict[int, tuple[str, ...]] = {
    ApiNumber.GET_VERSION: (),
    ApiNumber.READ_MACHINE_SPECIFIC_REGISTER: ("msr",),
    ApiNumber.READ_IO_SPACE: ("io_address", "data_size"),
    ApiNumber.READ_IO_SPACE_EXTENDED: ("data_size", "interface_type", "bus_number", "address_space", "io_address"),
    ApiNumber.SEARCH_MEMORY: ("address", "search_length", "pattern_length"),
    ApiNumber.GET_BUS_DATA: ("bus_data_type", "bus_number", "slot_number", "offset", "length"),
    ApiNumber.QUERY_MEMORY: ("address", "address_space"),
    ApiNumber.QUERY_SPECIAL_CALLS: (),
    ApiNumber.GET_INTERNAL_BREAK_POINT: ("address",),
    ApiNumber.CHECK_LOW_MEMORY: (),
}
"""Requests that only read, beside memory and registers, and which fields of theirs matter."""

_GOES_ON = frozenset({ApiNumber.CONTINUE, ApiNumber.CONTINUE2, ApiNumber.REBOOT, ApiNumber.CAUSE_BUG_CHECK})
_READS = frozenset({*_MEMORY, *_CONTEXT, ApiNumber.READ_CONTROL_SPACE, *_INPUTS})


class RecordedPacket(NamedTuple):
    """A data packet of a recording, in the order in which they came; repetitions may be among them."""

    time: float
    to_target: bool
    packet_type: int
    payload: bytes
    new_life: bool = False
    """What was recorded before it is of a machine that was restarted since."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a recorded machine says to a request. `missing` says in words what the recording does not hold."""

    reply: Manipulate
    missing: str = ""


@dataclass(slots=True)
class RecordedStop:
    """One stop of a recorded machine."""

    time: float
    state_change: bytes
    """The packet as it came."""
    life: dict[int, Manipulate] = field(default_factory=dict)
    """What it answers at each of its stops alike: its version packet."""
    replies: int = 0
    _memory: dict[int, SparseBytes] = field(default_factory=lambda: {api: SparseBytes() for api in _MEMORY})
    _faults: dict[tuple[int, int], int] = field(default_factory=dict)
    """By API and page, the status with which reading ended there."""
    _contexts: dict[int, SparseBytes] = field(default_factory=dict)
    _control: dict[tuple[int, int], Manipulate] = field(default_factory=dict)
    _others: dict[tuple[object, ...], Manipulate] = field(default_factory=dict)

    @property
    def change(self) -> StateChange:
        """Why it stopped. Raises RemoteProtocolError."""
        return StateChange.decode(self.state_change)

    def learn(self, request: Manipulate, reply: Manipulate) -> None:
        """Keep what was answered. What only wrote is none of it."""
        if request.api not in _READS:
            return
        self.replies += 1
        fields = request.fields()
        failed = bool(reply.status & 0x8000_0000)
        if reply.api in _MEMORY:
            came = min(reply.fields()["actual_bytes"], fields["transfer_count"], len(reply.data))
            self._memory[reply.api].put(fields["address"], reply.data[:came])
            if failed:
                self._faults.setdefault((reply.api, fields["address"] + came >> PAGE_SHIFT), reply.status)
        elif reply.api in _CONTEXT and not failed:
            ex = reply.api == ApiNumber.GET_CONTEXT_EX
            offset = min(fields["offset"], _LARGEST_CONTEXT) if ex else 0
            data = reply.data[: min(fields["byte_count"], _LARGEST_CONTEXT)] if ex else reply.data
            self._contexts.setdefault(request.processor, SparseBytes()).put(offset, data)
        elif reply.api == ApiNumber.READ_CONTROL_SPACE:
            key = (request.processor, fields["address"])
            known = self._control.get(key)
            if known is None or len(known.data) < len(reply.data):
                self._control[key] = reply
        elif reply.api == ApiNumber.GET_VERSION:
            self.life.setdefault(ApiNumber.GET_VERSION, reply)
        else:
            self._others.setdefault(_key(request), reply)

    def answer(self, request: Manipulate) -> Answer:
        """What the machine answers. A request that changes it is none that a recording can answer."""
        if request.api in _MEMORY:
            return self._read(request)
        if request.api in _CONTEXT:
            return self._context(request)
        if request.api == ApiNumber.READ_CONTROL_SPACE:
            return self._control_space(request)
        known = self.life.get(request.api) or self._others.get(_key(request))
        if known is not None and request.api in _READS:
            return Answer(_as_answer_to(request, known))
        if request.api in _READS:
            return _missing(request, f"the recording holds no answer to {api_name(request.api)}")
        return _missing(request, f"a recording can only be read: there is no machine to carry out {request.name}")

    def _read(self, request: Manipulate) -> Answer:
        fields = request.fields()
        address, size = fields["address"], fields["transfer_count"]
        data = self._memory[request.api].get(address, size)
        if len(data) == size:
            return Answer(request.reply(0, data=data, actual_bytes=size))
        hole = address + len(data)
        status = self._faults.get((request.api, hole >> PAGE_SHIFT))
        reply = request.reply(status or STATUS_UNSUCCESSFUL, data=data, actual_bytes=len(data))
        return Answer(reply, "" if status else f"the recording holds no {_MEMORY[ApiNumber(request.api)]} at {hole:#x}")

    def _context(self, request: Manipulate) -> Answer:
        known = self._contexts.get(request.processor)
        if known is None:
            refused = self._others.get(_key(request))
            if refused is not None:
                return Answer(_as_answer_to(request, refused))
            return _missing(request, f"the recording holds no registers of processor {request.processor}")
        if request.api == ApiNumber.GET_CONTEXT:
            return Answer(request.reply(0, data=known.get(0, _LARGEST_CONTEXT)))
        fields = request.fields()
        data = known.get(fields["offset"], min(fields["byte_count"], _LARGEST_CONTEXT))
        return Answer(request.reply(0 if data else STATUS_UNSUCCESSFUL, data=data, bytes_copied=len(data)))

    def _control_space(self, request: Manipulate) -> Answer:
        fields = request.fields()
        known = self._control.get((request.processor, fields["address"]))
        if known is None:
            where = f"control space {fields['address']:#x} of processor {request.processor}"
            return _missing(request, f"the recording holds no {where}")
        data = known.data[: fields["transfer_count"]]
        return Answer(request.reply(known.status, data=data, actual_bytes=len(data)))


def stops_of(packets: Iterable[RecordedPacket]) -> list[RecordedStop]:
    """The stops of a recording, in their order. What makes no sense in it is left out, and what was asked before the
    first state change: nobody can say what the machine stood at then."""
    stops: list[RecordedStop] = []
    life: dict[int, Manipulate] = {}
    standing = False
    asked: Manipulate | None = None
    for packet in packets:
        if packet.new_life:
            standing, life = False, {}
        if packet.packet_type == PacketType.STATE_CHANGE64 and not packet.to_target:
            if not standing or stops[-1].state_change != packet.payload:
                stops.append(RecordedStop(packet.time, packet.payload, life))
                standing, asked = True, None
            continue
        if packet.packet_type != PacketType.STATE_MANIPULATE:
            continue
        try:
            message = Manipulate.decode(packet.payload)
        except RemoteProtocolError:
            continue
        if packet.to_target:
            asked = message
            if message.api in _GOES_ON:
                standing, asked = False, None
        elif standing and asked is not None and _is_answer(asked, message):
            stops[-1].learn(asked, message)
    return stops


def _is_answer(request: Manipulate, reply: Manipulate) -> bool:
    if reply.api != request.api:
        return False
    addressed = request.api in _MEMORY or request.api == ApiNumber.READ_CONTROL_SPACE
    return not addressed or reply.union[:8] == request.union[:8] or bool(reply.status & 0x8000_0000)


def _key(request: Manipulate) -> tuple[object, ...]:
    """What tells this request from another one to which the answer is another."""
    fields = request.fields()
    own = request.processor if request.api in (*_CONTEXT, ApiNumber.READ_MACHINE_SPECIFIC_REGISTER) else 0
    inputs = tuple(fields[name] for name in _INPUTS.get(request.api, ()))
    return request.api, own, inputs, request.data if request.api == ApiNumber.SEARCH_MEMORY else b""


def _as_answer_to(request: Manipulate, known: Manipulate) -> Manipulate:
    return known._replace(processor_level=request.processor_level, processor=request.processor)


def _missing(request: Manipulate, what: str) -> Answer:
    return Answer(request.reply(STATUS_UNSUCCESSFUL), what)
