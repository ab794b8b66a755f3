"""Answers to requests about memory, breakpoints, I/O and the machine as a whole (kd-protocol 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from protocol.address import PAGE_SIZE
from protocol.arch import AMD64
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import (
    STATUS_DATATYPE_MISALIGNMENT,
    STATUS_INVALID_PARAMETER,
    STATUS_NOT_FOUND,
    STATUS_SUCCESS,
    STATUS_UNSUCCESSFUL,
)

from .behaviour import Answer, Effect
from .breakpoints import MOST_BREAKPOINTS
from .registers import REGISTER_REQUESTS

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["carry_out"]

_LARGEST_SEARCH = 1 << 20
_LARGEST_BULK = 1 << 17
_PATTERN_PHYSICAL = 2
_FAILURE = 0x8000_0000

_Handler: TypeAlias = "Callable[[Machine, Manipulate], Answer]"


def carry_out(machine: Machine, request: Manipulate) -> Answer:
    """Do what is asked. Who is unknown or refused gets its 56 bytes back with C0000001 (kd-protocol 3.2)."""
    if request.api in machine.behaviour.unanswered:
        return Answer(None)
    handler = _HANDLERS.get(request.api)
    if handler is None or request.api in machine.behaviour.refused:
        return Answer(request.reply(STATUS_UNSUCCESSFUL))
    return handler(machine, request)


def _ended(good: bool) -> int:
    return STATUS_SUCCESS if good else STATUS_UNSUCCESSFUL


def _get_version(machine: Machine, request: Manipulate) -> Answer:
    return Answer(
        Manipulate(
            request.api,
            request.processor_level,
            request.processor,
            STATUS_SUCCESS,
            request.padding,
            machine.version.encode(),
        )
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


def _read(machine: Machine, request: Manipulate, read: Callable[[int, int], bytes]) -> Answer:
    fields = request.fields()
    count = min(fields["transfer_count"], machine.behaviour.largest_transfer)
    data = read(fields["address"], count)
    return Answer(request.reply(_ended(len(data) == count), data=data, actual_bytes=len(data)))


def _read_virtual(machine: Machine, request: Manipulate) -> Answer:
    return _read(machine, request, machine.read_virtual)


def _read_physical(machine: Machine, request: Manipulate) -> Answer:
    if machine.behaviour.refuse_page_zero and request.fields()["address"] < PAGE_SIZE:
        return _read(machine, request, lambda address, size: b"")
    return _read(machine, request, machine.memory.read_some)


def _read_physical_bulk(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    at, left = fields["address"], fields["transfer_count"]
    if not machine.behaviour.bulk_reads:
        return Answer(request.reply(STATUS_UNSUCCESSFUL))
    if left > _LARGEST_BULK:
        return Answer(None, unacknowledged=(request.reply(STATUS_UNSUCCESSFUL),))
    replies = []
    while left:
        wanted = min(left, machine.behaviour.largest_transfer)
        data = machine.memory.read_some(at, wanted)
        replies.append(request.reply(_ended(len(data) == wanted), data=data, address=at, actual_bytes=len(data)))
        if len(data) < wanted:
            break
        at, left = at + wanted, left - wanted
    return Answer(None, unacknowledged=tuple(replies))


def _write_virtual(machine: Machine, request: Manipulate) -> Answer:
    done = machine.write_virtual(request.fields()["address"], request.data)
    return Answer(request.reply(_ended(done == len(request.data)), actual_bytes=done))


def _write_physical(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    data = request.data[: fields["transfer_count"]]
    done = machine.write_physical(fields["address"], data)
    return Answer(request.reply(_ended(done == len(data)), actual_bytes=done))


def _search_memory(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    pattern = request.data[: fields["pattern_length"]]
    data = machine.read_virtual(fields["address"], min(fields["search_length"], _LARGEST_SEARCH))
    at = data.find(pattern) if pattern else -1
    if at < 0:
        return Answer(request.reply(STATUS_NOT_FOUND))
    return Answer(request.reply(STATUS_SUCCESS, address=fields["address"] + at))


def _fill_memory(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    pattern = request.data[: fields["pattern_length"]]
    length = fields["length"]
    if not pattern or length > _LARGEST_SEARCH:
        return Answer(request.reply(STATUS_INVALID_PARAMETER))
    data = (pattern * (length // len(pattern) + 1))[:length]
    write = machine.write_physical if fields["flags"] == _PATTERN_PHYSICAL else machine.write_virtual
    done = write(fields["address"], data)
    return Answer(request.reply(_ended(done == length), length=done))


def _query_memory(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    if fields["address_space"]:
        return Answer(request.reply(STATUS_INVALID_PARAMETER))
    kernel = fields["address"] >> 47 != 0
    return Answer(request.reply(STATUS_SUCCESS, reserved=0, address_space=2 if kernel else 0, flags=7))


# ---- breakpoints -----------------------------------------------------------------------------------------------------


def _write_break_point(machine: Machine, request: Manipulate) -> Answer:
    handle = machine.breakpoints.insert(request.fields()["address"])
    return Answer(request.reply(_ended(handle != 0), handle=handle))


def _restore_break_point(machine: Machine, request: Manipulate) -> Answer:
    return Answer(request.reply(_ended(machine.breakpoints.remove(request.fields()["handle"]))))


def _write_break_point_ex(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    count = fields["count"]
    if count > MOST_BREAKPOINTS or len(request.data) != count * 16:
        return Answer(request.reply(STATUS_UNSUCCESSFUL))
    table = bytearray(request.data)
    entries = [
        (int.from_bytes(table[at : at + 8], "little"), int.from_bytes(table[at + 8 : at + 12], "little"))
        for at in range(0, len(table), 16)
    ]
    for _, handle in entries:
        if handle:
            machine.breakpoints.remove(handle)
    good = True
    for number, (address, _) in enumerate(entries):
        if address:
            handle = machine.breakpoints.insert(address)
            table[number * 16 + 8 : number * 16 + 12] = handle.to_bytes(4, "little")
            good = good and handle != 0
    effect = Effect.CONTINUE if fields["continue_status"] else Effect.NONE
    return Answer(request.reply(_ended(good), data=bytes(table)), effect)


def _restore_break_point_ex(machine: Machine, request: Manipulate) -> Answer:
    count = request.fields()["count"]
    if count > MOST_BREAKPOINTS or len(request.data) != count * 4:
        return Answer(request.reply(STATUS_UNSUCCESSFUL))
    handles = [int.from_bytes(request.data[at : at + 4], "little") for at in range(0, count * 4, 4)]
    removed = [machine.breakpoints.remove(handle) for handle in handles]
    return Answer(request.reply(_ended(all(removed)), data=request.data))


# ---- I/O -------------------------------------------------------------------------------------------------------------


def _io_space(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    size = fields["data_size"]
    if size not in (1, 2, 4):
        return Answer(request.reply(STATUS_INVALID_PARAMETER))
    if fields["io_address"] & size - 1:
        return Answer(request.reply(STATUS_DATATYPE_MISALIGNMENT))
    if request.api in (ApiNumber.READ_IO_SPACE, ApiNumber.READ_IO_SPACE_EXTENDED):
        # Nothing is decoded there: an empty bus reads as ones.
        return Answer(request.reply(STATUS_SUCCESS, data_value=(1 << 8 * size) - 1))
    return Answer(request.reply(STATUS_SUCCESS))


def _io_space_extended(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    if (fields["interface_type"], fields["bus_number"], fields["address_space"]) != (1, 0, 1):
        return Answer(request.reply(STATUS_INVALID_PARAMETER))
    return _io_space(machine, request)


# ---- the machine as a whole ------------------------------------------------------------------------------------------


def _query_special_calls(machine: Machine, request: Manipulate) -> Answer:
    return Answer(request.reply(STATUS_SUCCESS, count=0))


def _succeed(machine: Machine, request: Manipulate) -> Answer:
    return Answer(request.reply(STATUS_SUCCESS))


def _silent(machine: Machine, request: Manipulate) -> Answer:
    return Answer(None)


def _continue(machine: Machine, request: Manipulate) -> Answer:
    return Answer(None, Effect.CONTINUE)


def _continue2(machine: Machine, request: Manipulate) -> Answer:
    """The control set is followed unless the status is a failure (T26)."""
    fields = request.fields()
    if not fields["continue_status"] & _FAILURE:
        stopped = machine.stopped_processor
        flags = AMD64.context.decode(stopped.context)["e_flags"] & ~AMD64.trace_flag
        stopped.set(e_flags=flags | AMD64.trace_flag if fields["trace_flag"] else flags)
        for processor in machine.processors:
            processor.set_special(kernel_dr7=fields["dr7"], kernel_dr6=0)
    return Answer(None, Effect.CONTINUE)


def _reboot(machine: Machine, request: Manipulate) -> Answer:
    return Answer(None, Effect.REBOOT)


def _cause_bug_check(machine: Machine, request: Manipulate) -> Answer:
    return Answer(None, Effect.CRASH)


def _switch_processor(machine: Machine, request: Manipulate) -> Answer:
    if request.processor >= len(machine.processors) or request.processor == machine.current:
        return Answer(None, Effect.RESELECT)
    machine.current = request.processor
    return Answer(None, Effect.SWITCH)


_HANDLERS: Mapping[int, _Handler] = {
    **REGISTER_REQUESTS,
    ApiNumber.GET_VERSION: _get_version,
    ApiNumber.READ_VIRTUAL_MEMORY: _read_virtual,
    ApiNumber.WRITE_VIRTUAL_MEMORY: _write_virtual,
    ApiNumber.READ_PHYSICAL_MEMORY: _read_physical,
    ApiNumber.WRITE_PHYSICAL_MEMORY: _write_physical,
    ApiNumber.SEARCH_MEMORY: _search_memory,
    ApiNumber.FILL_MEMORY: _fill_memory,
    ApiNumber.READ_PHYSICAL_BULK: _read_physical_bulk,
    ApiNumber.QUERY_MEMORY: _query_memory,
    ApiNumber.WRITE_BREAK_POINT: _write_break_point,
    ApiNumber.RESTORE_BREAK_POINT: _restore_break_point,
    ApiNumber.WRITE_BREAK_POINT_EX: _write_break_point_ex,
    ApiNumber.RESTORE_BREAK_POINT_EX: _restore_break_point_ex,
    ApiNumber.READ_IO_SPACE: _io_space,
    ApiNumber.WRITE_IO_SPACE: _io_space,
    ApiNumber.READ_IO_SPACE_EXTENDED: _io_space_extended,
    ApiNumber.WRITE_IO_SPACE_EXTENDED: _io_space_extended,
    ApiNumber.QUERY_SPECIAL_CALLS: _query_special_calls,
    ApiNumber.CHECK_LOW_MEMORY: _succeed,
    ApiNumber.SET_SPECIAL_CALL: _silent,
    ApiNumber.CLEAR_SPECIAL_CALLS: _silent,
    ApiNumber.SET_INTERNAL_BREAK_POINT: _silent,
    ApiNumber.CLEAR_ALL_INTERNAL_BREAKPOINTS: _silent,
    ApiNumber.CONTINUE: _continue,
    ApiNumber.CONTINUE2: _continue2,
    ApiNumber.REBOOT: _reboot,
    ApiNumber.CAUSE_BUG_CHECK: _cause_bug_check,
    ApiNumber.SWITCH_PROCESSOR: _switch_processor,
}
