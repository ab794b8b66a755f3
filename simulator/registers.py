"""Answers to requests about registers: CONTEXT whole and in chunks, control space, MSRs (kd-protocol 3.6 to 3.8, 3.11).

Only here the request's Processor field counts: it says whose registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from protocol.arch import AMD64, ControlSpace
from protocol.manipulate import ApiNumber, Manipulate
from protocol.ntstatus import STATUS_NO_SUCH_DEVICE, STATUS_SUCCESS, STATUS_UNSUCCESSFUL

from .behaviour import Answer

if TYPE_CHECKING:
    from .machine import Machine, VirtualProcessor

__all__ = ["REGISTER_REQUESTS"]

_LARGEST_STAGED_CONTEXT = 0x3000


def _processor_of(machine: Machine, request: Manipulate) -> VirtualProcessor | None:
    return machine.processors[request.processor] if request.processor < len(machine.processors) else None


def _refused(request: Manipulate) -> Answer:
    return Answer(request.reply(STATUS_UNSUCCESSFUL))


def _get_context(machine: Machine, request: Manipulate) -> Answer:
    processor = _processor_of(machine, request)
    if processor is None:
        return _refused(request)
    machine.context_sent = True
    extended = bytes(machine.behaviour.longer_context)
    return Answer(request.reply(STATUS_SUCCESS, data=processor.context + extended))


def _set_context(machine: Machine, request: Manipulate) -> Answer:
    processor = _processor_of(machine, request)
    size = AMD64.context.size
    if processor is None or not machine.context_sent or len(request.data) < size:
        return _refused(request)
    processor.context = request.data[:size]
    return Answer(request.reply(STATUS_SUCCESS))


def _get_context_ex(machine: Machine, request: Manipulate) -> Answer:
    processor = _processor_of(machine, request)
    fields = request.fields()
    if processor is None:
        return _refused(request)
    whole = processor.context + bytes(machine.behaviour.longer_context)
    room = min(fields["byte_count"], machine.behaviour.largest_transfer)
    data = whole[fields["offset"] : fields["offset"] + room]
    if not data:
        return Answer(request.reply(STATUS_UNSUCCESSFUL, bytes_copied=0))
    machine.context_sent = True
    return Answer(request.reply(STATUS_SUCCESS, data=data, bytes_copied=len(data)))


def _set_context_ex(machine: Machine, request: Manipulate) -> Answer:
    """Chunks are staged in order; the one that completes the announced total commits them (T46)."""
    processor = _processor_of(machine, request)
    fields = request.fields()
    offset, total = fields["offset"], fields["bytes_copied"]
    staged, end = machine.staged_context, offset + len(request.data)
    sane = AMD64.context.size <= total <= _LARGEST_STAGED_CONTEXT and offset == len(staged) and end <= total
    if processor is None or not machine.context_sent or not sane:
        staged.clear()
        return Answer(request.reply(STATUS_UNSUCCESSFUL, bytes_copied=0))
    staged += request.data
    if end == total:
        processor.context = bytes(staged[: AMD64.context.size])
        staged.clear()
    return Answer(request.reply(STATUS_SUCCESS, bytes_copied=len(request.data)))


def _read_control_space(machine: Machine, request: Manipulate) -> Answer:
    processor = _processor_of(machine, request)
    fields = request.fields()
    if processor is None:
        return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
    pointers = {
        ControlSpace.KPCR: processor.pcr,
        ControlSpace.KPRCB: processor.prcb,
        ControlSpace.KTHREAD: processor.thread,
    }
    if fields["address"] == ControlSpace.SPECIAL_REGISTERS:
        whole = processor.special_registers
    elif fields["address"] in pointers:
        whole = pointers[ControlSpace(fields["address"])].to_bytes(8, "little")
    else:
        return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
    data = whole if machine.behaviour.whole_control_space else whole[: fields["transfer_count"]]
    told = whole if machine.behaviour.whole_control_size else data
    return Answer(request.reply(STATUS_SUCCESS, data=data, actual_bytes=len(told)))


def _write_control_space(machine: Machine, request: Manipulate) -> Answer:
    processor = _processor_of(machine, request)
    if processor is None or request.fields()["address"] != ControlSpace.SPECIAL_REGISTERS:
        return Answer(request.reply(STATUS_UNSUCCESSFUL, actual_bytes=0))
    size = len(processor.special_registers)
    processor.special_registers = request.data[:size] + processor.special_registers[len(request.data) :]
    machine.forget_translations()
    echo = request.data if machine.behaviour.echo_control_writes else b""
    return Answer(request.reply(STATUS_SUCCESS, data=echo, actual_bytes=min(size, len(request.data))))


def _msrs(machine: Machine) -> dict[int, int]:
    processor = machine.stopped_processor
    special = AMD64.special_registers.decode(processor.special_registers, least=0xA8)
    return {
        0xC000_0080: 0xD01,  # EFER: SCE, LME, LMA, NXE
        0xC000_0081: special["msr_star"],
        0xC000_0082: special["msr_l_star"],
        0xC000_0083: special["msr_c_star"],
        0xC000_0084: special["msr_syscall_mask"],
        0xC000_0101: processor.pcr,
        0xC000_0102: special["msr_gs_swap"],
        **machine.msrs,
    }


def _read_msr(machine: Machine, request: Manipulate) -> Answer:
    value = _msrs(machine).get(request.fields()["msr"])
    if value is None:
        return Answer(request.reply(STATUS_NO_SUCH_DEVICE))
    return Answer(request.reply(STATUS_SUCCESS, low=value & 0xFFFF_FFFF, high=value >> 32))


def _write_msr(machine: Machine, request: Manipulate) -> Answer:
    fields = request.fields()
    if fields["msr"] not in _msrs(machine):
        return Answer(request.reply(STATUS_NO_SUCH_DEVICE))
    machine.msrs[fields["msr"]] = fields["low"] | fields["high"] << 32
    return Answer(request.reply(STATUS_SUCCESS))


REGISTER_REQUESTS: Mapping[int, Callable[[Machine, Manipulate], Answer]] = {
    ApiNumber.GET_CONTEXT: _get_context,
    ApiNumber.SET_CONTEXT: _set_context,
    ApiNumber.GET_CONTEXT_EX: _get_context_ex,
    ApiNumber.SET_CONTEXT_EX: _set_context_ex,
    ApiNumber.READ_CONTROL_SPACE: _read_control_space,
    ApiNumber.WRITE_CONTROL_SPACE: _write_control_space,
    ApiNumber.READ_MACHINE_SPECIFIC_REGISTER: _read_msr,
    ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER: _write_msr,
}
"""Who answers which of them."""
