"""A bug check in words: what happened, and each of its four parameters with its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.address import format_address
from protocol.ntstatus import exception_words, status_name

from .model import Parameter, ParameterKind, parameters_of
from .table import bug_check, bug_check_name

__all__ = ["BugCheckText", "describe"]

_UNKNOWN = "Microsoft publishes nothing about this code; a driver or another program may have chosen it."
_NOT_ONE = "No bug check happened, or its data could not be read."

_ADDRESSES = frozenset(
    {
        ParameterKind.ADDRESS,
        ParameterKind.PHYSICAL_ADDRESS,
        ParameterKind.CODE_ADDRESS,
        ParameterKind.PTE,
        ParameterKind.EXCEPTION_RECORD,
        ParameterKind.CONTEXT_RECORD,
        ParameterKind.TRAP_FRAME,
        ParameterKind.THREAD,
        ParameterKind.PROCESS,
        ParameterKind.OBJECT,
        ParameterKind.DEVICE_OBJECT,
        ParameterKind.DRIVER_OBJECT,
        ParameterKind.IRP,
        ParameterKind.MDL,
        ParameterKind.UNICODE_STRING,
    }
)
_LEVELS = {0: "PASSIVE_LEVEL", 1: "APC_LEVEL", 2: "DISPATCH_LEVEL", 0xFF: "interrupts off"}
_PAGE_ACCESS = {0: "read", 1: "write", 2: "write", 8: "execute", 0x10: "execute"}


@dataclass(frozen=True, slots=True)
class BugCheckText:
    """A bug check as a person reads it. `parameters` are four lines: the value, then what it means."""

    code: int
    name: str
    meaning: str
    parameters: tuple[str, str, str, str]


def describe(code: int, parameters: Sequence[int]) -> BugCheckText:
    """Put a bug check into words. Missing parameters count as 0, more than four are left out; nothing is raised."""
    values = [value & 0xFFFFFFFF_FFFFFFFF for value in [*parameters[:4], 0, 0, 0, 0][:4]]
    found = bug_check(code)
    meanings = parameters_of(found, values)
    a, b, c, d = (_line(value, parameter) for value, parameter in zip(values, meanings, strict=True))
    if found is None:
        meaning = _UNKNOWN if code & 0xFFFFFFFF else _NOT_ONE
    else:
        subcase = found.subcase(values)
        meaning = found.meaning if subcase is None else f"{found.meaning} {subcase.meaning}"
    return BugCheckText(code & 0xFFFFFFFF, bug_check_name(code), meaning, (a, b, c, d))


def _line(value: int, parameter: Parameter) -> str:
    return f"{_value(value, parameter.kind)}  {parameter.words}"


def _value(value: int, kind: ParameterKind) -> str:
    """A value as its kind is usually written."""
    if kind in _ADDRESSES:
        return format_address(value)
    match kind:
        case ParameterKind.COUNT:
            return str(value)
        case ParameterKind.SIZE:
            return f"{value} bytes"
        case ParameterKind.IRQL:
            return f"{value} ({_LEVELS[value]})" if value in _LEVELS else str(value)
        case ParameterKind.ACCESS:
            return f"{value:#x} ({_access(value)})"
        case ParameterKind.PAGE_ACCESS:
            return f"{value:#x} ({_PAGE_ACCESS[value]})" if value in _PAGE_ACCESS else f"{value:#x}"
        case ParameterKind.NTSTATUS:
            return _status(value, status_name(value))
        case ParameterKind.EXCEPTION_CODE:
            name, words = status_name(value), exception_words(value)
            return _status(value, f"{name}: {words}" if name and words else name)
        case ParameterKind.POOL_TAG:
            return _tag(value)
        case ParameterKind.SOURCE_LINE:
            return f"file {value >> 16 & 0xFFFF:#x}, line {value & 0xFFFF}"
        case _:
            return f"{value:#x}"


def _access(value: int) -> str:
    """Bit 3 is execute; a value of 2 means it too. Bit 0 is write."""
    if value & 0xA:
        return "execute"
    return "write" if value & 1 else "read"


def _status(value: int, words: str | None) -> str:
    """A status may have been widened to 64 bits with its sign; other high bits mean that it is no status."""
    if value >> 32 not in (0, 0xFFFFFFFF):
        return f"{value:#x}"
    return f"{value & 0xFFFFFFFF:#010x} ({words})" if words else f"{value & 0xFFFFFFFF:#010x}"


def _tag(value: int) -> str:
    """A pool tag is four characters, the first in the lowest byte."""
    raw = (value & 0xFFFFFFFF).to_bytes(4, "little")
    text = raw.decode("latin-1")
    return f"'{text}'" if all(0x20 <= byte < 0x7F for byte in raw) else f"{value:#x}"
