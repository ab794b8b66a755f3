"""What a message means, in one line: "ReadVirtual fffff804`7c62a390 60h → 60h bytes"."""

from __future__ import annotations

import ipaddress

from protocol.address import format_address
from protocol.arch import AMD64, ControlSpace, MachineType
from protocol.debug_io import ControlRequest, DebugIoApi, GetString, GetStringReply, PrintString, TraceIo
from protocol.file_io import FileIo, FileIoApi
from protocol.kdnet.control import Endpoint, Poke, Response
from protocol.kdnet.packet import ConnectionCheck
from protocol.layouts.version import GetVersion64
from protocol.manipulate import UNIONS, ApiNumber, Manipulate
from protocol.ntstatus import status_name
from protocol.state_change import CommandString, ExceptionChange, LoadSymbols, StateChange

from .decoded import Message

__all__ = ["api_of", "meaning"]

_LONGEST_TEXT = 200
_ARROW = " → "
_MEMORY = {
    ApiNumber.READ_VIRTUAL_MEMORY: "ReadVirtual",
    ApiNumber.WRITE_VIRTUAL_MEMORY: "WriteVirtual",
    ApiNumber.READ_PHYSICAL_MEMORY: "ReadPhysical",
    ApiNumber.READ_PHYSICAL_BULK: "ReadPhysicalBulk",
    ApiNumber.WRITE_PHYSICAL_MEMORY: "WritePhysical",
}
_CONTROL_SPACES = (ApiNumber.READ_CONTROL_SPACE, ApiNumber.WRITE_CONTROL_SPACE)
_WRITES = (ApiNumber.WRITE_VIRTUAL_MEMORY, ApiNumber.WRITE_PHYSICAL_MEMORY, ApiNumber.WRITE_CONTROL_SPACE)
_CONTEXTS = (ApiNumber.GET_CONTEXT, ApiNumber.SET_CONTEXT, ApiNumber.GET_CONTEXT_EX, ApiNumber.SET_CONTEXT_EX)
_MSRS = (ApiNumber.READ_MACHINE_SPECIFIC_REGISTER, ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER)
_ANSWERED_BY_FIELD = {
    ApiNumber.WRITE_BREAK_POINT: "handle",
    ApiNumber.READ_IO_SPACE: "data_value",
    ApiNumber.READ_IO_SPACE_EXTENDED: "data_value",
    ApiNumber.SEARCH_MEMORY: "address",
    ApiNumber.FILL_MEMORY: "length",
    ApiNumber.QUERY_MEMORY: "address_space",
}
"""The field in which the answer stands; in a request it is garbage."""


def api_of(message: Message) -> str:
    """Microsoft's name of what a message asks for, reports or does."""
    match message:
        case Manipulate():
            return message.name
        case StateChange(event=ExceptionChange()):
            return "ExceptionStateChange"
        case StateChange(event=LoadSymbols()):
            return "LoadSymbolsStateChange"
        case StateChange():
            return "CommandStringStateChange"
        case PrintString():
            return "PrintString"
        case GetString() | GetStringReply():
            return "GetString"
        case TraceIo():
            return "PrintTrace"
        case FileIo():
            return _words(FileIoApi(message.api).name)
        case ControlRequest():
            known = message.api in tuple(DebugIoApi)
            return _words(DebugIoApi(message.api).name) if known else f"api {message.api:#x}"
        case _:
            return ""


def meaning(message: Message, *, is_reply: bool = False, question: Message | None = None) -> str:
    """The message in one line, without line breaks. `is_reply`: it answers a request of the same form, `question`."""
    match message:
        case Manipulate():
            return _manipulate(message, is_reply)
        case StateChange():
            return _state_change(message)
        case PrintString():
            return f"prints {_quoted(message.text)}"
        case GetString():
            return f"asks {_quoted(message.prompt)}, room for {message.longest_answer:x}h bytes"
        case GetStringReply():
            return f"answers {_quoted(message.text)}"
        case TraceIo():
            return f"trace buffer of {len(message.data):x}h bytes"
        case FileIo():
            return _file(message, is_reply, question)
        case ControlRequest():
            return f"{api_of(message)} {message.hardware_breakpoint_number}"
        case Poke():
            return _poke(message)
        case Response():
            return "response to a poke: a session begins"
        case ConnectionCheck():
            return f"connection check: its debugger is {ipaddress.IPv4Address(message.host[::-1])}"


def _manipulate(message: Manipulate, is_reply: bool) -> str:
    api = message.api
    fields = message.fields()
    text = _asked(message, fields)
    if not is_reply:
        if api in _WRITES or api == ApiNumber.SET_CONTEXT:
            text += _registers(message) if api == ApiNumber.SET_CONTEXT else _shown(message.data)
        return text
    if message.status & 0x8000_0000:
        return text + _ARROW + _status(message.status)
    return text + _ARROW + _got(message, fields)


def _asked(message: Manipulate, fields: dict[str, int]) -> str:
    api = message.api
    if api in _MEMORY:
        address = fields["address"]
        virtual = api in (ApiNumber.READ_VIRTUAL_MEMORY, ApiNumber.WRITE_VIRTUAL_MEMORY)
        where = format_address(address) if virtual else f"{address:x}"
        return f"{_MEMORY[ApiNumber(api)]} {where} {fields['transfer_count']:x}h"
    if api in _CONTROL_SPACES:
        what = fields["address"]
        name = _words(ControlSpace(what).name) if what in tuple(ControlSpace) else f"{what:x}"
        return f"{message.name} {name} {fields['transfer_count']:x}h, processor {message.processor}"
    if api in (ApiNumber.GET_CONTEXT_EX, ApiNumber.SET_CONTEXT_EX):
        return f"{message.name} {fields['offset']:x}h {fields['byte_count']:x}h, processor {message.processor}"
    if api in _CONTEXTS or api == ApiNumber.SWITCH_PROCESSOR:
        return f"{message.name}, processor {message.processor}"
    if api in _MSRS:
        value = fields["high"] << 32 | fields["low"]
        return f"{message.name} {fields['msr']:x}" + (
            f" := {value:x}" if api == ApiNumber.WRITE_MACHINE_SPECIFIC_REGISTER else ""
        )
    if api == ApiNumber.CONTINUE:
        return f"Continue {_status(fields['continue_status'])}"
    if api == ApiNumber.CONTINUE2:
        step = ", one instruction" if fields["trace_flag"] else ""
        return f"Continue2 {_status(fields['continue_status'])}{step}"
    if api == ApiNumber.GET_VERSION:
        return "GetVersion"
    hidden = _ANSWERED_BY_FIELD.get(ApiNumber(api)) if api in UNIONS else None
    shown = [f"{name} {value:x}" for name, value in fields.items() if name != hidden]
    return f"{message.name} {', '.join(shown)}".rstrip()


def _got(message: Manipulate, fields: dict[str, int]) -> str:
    api = message.api
    if api in _MEMORY or api in _CONTROL_SPACES:
        verb = " written" if api in _WRITES else ""
        return f"{fields['actual_bytes']:x}h bytes{verb}{'' if api in _WRITES else _shown(message.data)}"
    if api in (ApiNumber.GET_CONTEXT_EX, ApiNumber.SET_CONTEXT_EX):
        whole = "" if fields["offset"] else _registers(message)
        return f"{fields['bytes_copied']:x}h bytes{whole}"
    if api == ApiNumber.GET_CONTEXT:
        return f"{len(message.data):x}h bytes{_registers(message)}"
    if api == ApiNumber.READ_MACHINE_SPECIFIC_REGISTER:
        return f"{fields['high'] << 32 | fields['low']:x}"
    if api == ApiNumber.GET_VERSION:
        return _version(message.union)
    name = _ANSWERED_BY_FIELD.get(ApiNumber(api)) if api in UNIONS else None
    return f"{name.replace('_', ' ')} {fields[name]:x}" if name else "done"


def _version(union: bytes) -> str:
    version = GetVersion64.decode(union)
    machine = version.machine_type
    name = MachineType(machine).name if machine in tuple(MachineType) else f"machine {machine:x}"
    kdbg = format_address(version.debugger_data_list) if version.debugger_data_list else "none"
    return (
        f"{_words(name.lower()) if name.startswith('machine') else name} build {version.build}, "
        f"protocol {version.protocol_version}, kernel {format_address(version.kern_base)}, KDBG list {kdbg}"
    )


def _registers(message: Manipulate) -> str:
    """The program counter and stack pointer of a whole AMD64 context."""
    layout = AMD64.context
    if len(message.data) != layout.size:
        return ""
    context = layout.decode(message.data)
    names = (AMD64.program_counter, AMD64.stack_pointer)
    return "".join(f", {name} {format_address(context[name])}" for name in names)


def _state_change(change: StateChange) -> str:
    place = f"at {format_address(change.program_counter)}, processor {change.processor} of {change.number_processors}"
    match change.event:
        case ExceptionChange() as event:
            chance = "" if event.first_chance else ", second chance"
            return f"stopped: {_status(event.code)} {place}{chance}"
        case LoadSymbols() as image:
            if image.target_is_leaving:
                return "unloads everything: the machine restarts, hibernates, or hands over"
            name = _quoted(image.path.encode("latin-1", "replace")) if image.path else "an image"
            return f"{'unloads' if image.unload else 'loaded'} {name} at {format_address(image.base)}" + (
                "" if image.unload else f", {image.size_of_image:x}h bytes"
            )
        case CommandString() as command:
            return f"asks the debugger to run {_quoted(command.command.encode('latin-1', 'replace'))}"


def _file(message: FileIo, is_reply: bool, question: Message | None) -> str:
    asked = question if isinstance(question, FileIo) and question.api == message.api else message
    text = api_of(message) + (f" {_quoted(asked.path.encode('utf-8', 'replace'))}" if asked.path else "")
    if is_reply:
        text += _ARROW + (_status(message.status) if message.status else "done")
    return text


def _poke(poke: Poke) -> str:
    bound = f"bound to {_endpoint(poke.bound)}" if poke.bound.port else "bound to no debugger"
    return f"poke: {_endpoint(poke.own)} looks for {_endpoint(poke.configured)}, {bound}"


def _endpoint(end: Endpoint) -> str:
    return f"[{end.address}]:{end.port}" if ":" in end.address else f"{end.address}:{end.port}"


def _status(value: int) -> str:
    name = status_name(value)
    return f"{value:08x}" if name is None else f"{name} ({value:08x})"


def _shown(data: bytes) -> str:
    """Up to eight bytes, for values that were read or written one at a time."""
    return f": {data.hex(' ')}" if 0 < len(data) <= 8 else ""


def _quoted(text: bytes) -> str:
    plain = text.decode("utf-8", "replace").rstrip("\r\n")
    shown = "".join(c if c.isprintable() else {"\n": "\\n", "\r": "", "\t": "\\t"}.get(c, ".") for c in plain)
    return f'"{shown}"' if len(shown) <= _LONGEST_TEXT else f'"{shown[:_LONGEST_TEXT]}…"'


def _words(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
